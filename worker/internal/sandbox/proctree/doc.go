// Package proctree looks at the processes beneath a fork server from outside,
// and ends them: for where no cgroup does it. It knows of pids and /proc, and
// nothing of jobs, sessions or the fork server's protocol.
//
// The caller is in the same pid namespace as the fork server ("root" below), or
// in one above it, and is root or the same user. Descendants may be in pid
// namespaces of their own.
//
//   - [Descendants] lists them, [Measure] and [MeasureExact] sum up what they
//     use, [DeletedFiles] finds the disk space that a walk of directories can't.
//   - [Guard] watches one job and says when its tree is over a limit. A job
//     that ends within the first interval costs it one timer.
//   - [End] ends a tree whose root may be wedged, fork bombs among its members.
//
// # What it does not cover
//
//   - It looks now and then: what comes and goes between two looks is not seen.
//     A program can be over a limit for an interval (50 ms, and up to 500 ms for
//     disk and for memory that is in no process), more on a machine so busy
//     that looks come late. A cgroup has no such gap.
//   - CPU time of processes whose parent ignores SIGCHLD is lost when they end:
//     the kernel adds it to nobody. RLIMIT_CPU and the wall clock bound it.
//   - Memory that processes share is counted exactly only where smaps_rollup
//     can be read: as root with CAP_SYS_PTRACE (or, on new kernels,
//     CAP_PERFMON), or of processes of any user that are dumpable. Otherwise pages shared after a fork count once for each
//     process. Processes with one address space (CLONE_VM, not threads) count
//     twice in any case; a [Guard] waits until a vfork is over.
//   - Kernel memory (pipes, sockets, page tables) and the page cache are not
//     counted, nor are files that are in a socket's queue and open nowhere.
//   - A process that could change its parent to one outside the tree would be
//     lost: no call does that as long as root lives and is the subreaper.
package proctree
