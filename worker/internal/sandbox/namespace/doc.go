// Package namespace gives a slot a set of namespaces of its own: processes,
// mounts, network, System V IPC and the host's name, and, for a worker that
// isn't root, users. It is made once for a slot, before the fork server's
// interpreter is executed, and costs a job nothing.
//
// What it brings: the slot's processes see only each other, and all of them end
// when the first one, the fork server, does; they see no files but those of the
// [Policy], at the paths it gives them; they have no network, not even the
// loopback's addresses, and no abstract sockets of others.
//
// [Probe] tries all of it in a process of its own and says why it can't be had:
// a plain container's engine refuses namespaces, some systems refuse them to
// users, some mask /proc so that a fresh one can't be mounted.
//
// # How the slot's root is made
//
// The trees of the Policy are cloned (open_tree(2)), made read-only, without
// set-user-id and devices (mount_setattr(2), Linux 5.12), and moved into an
// empty tmpfs, which becomes the root. The old one is unmounted: no path leads
// to it. Links of the top directory (/bin to usr/bin) are made as links.
//
// # What it does not cover
//
//   - Who may do what inside: files of several sessions are in the same tree,
//     kept apart by users and Landlock. The kernel's attack surface is the
//     seccomp filter's affair, resources are the limits' and cgroups'.
//   - With users (worker not root), the processes of the slot are the worker's
//     own user; only the first program has rights over the namespaces, and
//     gives them up before it executes the interpreter.
//   - Time namespaces: clocks are not told apart.
//
// Sources: namespaces(7), user_namespaces(7), open_tree(2), mount_setattr(2),
// pivot_root(2).
package namespace
