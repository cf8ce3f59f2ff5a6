// Package cgroup bounds the memory and the number of processes of a slot with
// the kernel's control groups, where the worker may make any: cgroup v2 first,
// v1 (memory, pids, cpuacct) where that is all there is. It knows groups, their
// limits and counters, and nothing of slots or jobs.
//
// [Find] tries what it takes, once at start, and says why there is none
// otherwise. A [Group] serves one slot for the worker's life; [Group.Limit] is
// called for every job and costs nothing when nothing changes.
//
// # What it does not cover
//
//   - A group is the whole slot's: the fork server is in it too. An OOM kill
//     takes the process that scores highest, mostly the largest; whoever wants
//     the fork server to be spared writes its oom_score_adj. [Group.Kill] ends
//     it as well.
//   - Memory is all that the kernel charges: anonymous pages, page cache, tmpfs,
//     and kernel memory such as page tables, pipes and sockets. Page cache goes
//     when room is needed and never kills, but it shows in Usage and Peak. What
//     was charged before a process joined stays with its old group.
//   - Counters are up to some 100 KiB a CPU behind: the kernel charges in batches.
//   - CPU time and disk are not limited. CPU is counted where it can be.
//   - v1 joins one hierarchy after the other: a process that ends half way
//     through was in one only. A v1 limit below what is in use is refused, and
//     the old one kept ([ErrBusy]); on v2, where the kernel would kill for it,
//     this package refuses it itself, as far as it sees it coming.
//   - v2's rule that a group with processes can't have groups with limits beneath
//     it: Find moves the worker into a group "worker" of its own, for good, if it
//     is alone in its group, and explains itself otherwise.
//
// Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html,
// https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, cgroups(7).
package cgroup
