// Package landlock refuses files, TCP, device ioctls, signals and abstract
// sockets to a process and all its descendants, for good, with Linux's
// Landlock. It needs no rights and works in a plain container. It takes paths
// and knows nothing of sessions or interpreters.
//
// # Two uses
//
// The shared layer: a launcher calls [Policy.Restrict] with what all jobs of a
// slot may use ([Runtime] and the directory that holds the sessions), then
// executes the interpreter. Every fork inherits the layer at no cost.
//
// The session's layer: [Held.Ruleset] makes a descriptor ahead of the job, with
// the runtime and the directories of one session; the forked child makes one
// system call with it, needs no path and can't fail half way:
//
//	syscall = ctypes.CDLL(None, use_errno=True).syscall
//	if syscall(446, fd, 0):  # landlock_restrict_self(2), the same number everywhere
//		raise OSError(ctypes.get_errno(), "landlock_restrict_self")
//
// Layers only take away: what counts is what all of them allow. A domain may
// signal and trace those nested in it, not the other way: inside a layer of its
// own a submission can neither kill nor read the fork server it came from, even
// as the same user, while the server can still end the submission.
//
// # What it does not cover
//
//   - Metadata. stat, access, readlink, chdir, flock and xattr work on any path
//     that permissions allow, so names and sizes outside can be seen; chmod,
//     chown and utime work on every file the user owns, wherever it is.
//   - Descriptors opened before, or received over a socket, keep their rights.
//     Files that have no place in the tree (pipes, memfd) are never checked:
//     a memfd can be executed.
//   - Execute is about execve(2). A readable file can still be run by a program
//     that may be executed (sh, python3, ld.so) or mapped as code.
//   - Network: bind and connect of TCP only (from ABI 4), and not MPTCP,
//     listening on a port the kernel picks, UDP (before ABI 10), unix sockets
//     with a path (before ABI 9), raw, netlink or vsock sockets. A seccomp filter has
//     to refuse the sockets themselves.
//   - System V and POSIX IPC other than by files, resource use, and system calls
//     as such.
//   - /proc is readable as a whole: command lines and states of all processes
//     show. What the kernel guards with a ptrace check is refused for processes
//     outside the domain: mem, cwd, root and exe to everybody, environ and maps
//     to all without CAP_PERFMON or CAP_SYS_ADMIN (as seen on 6.18; older
//     kernels refuse those too). Processes that share a domain, as children
//     under the shared layer alone do, are kept apart by their users only.
//   - Older kernels cover less: [Policy.String] says what. Before ABI 3 files
//     outside can be truncated; ABI 1 refuses every rename between directories.
//
// Three more things to know. A restricted process can't mount, unmount or
// pivot_root, so namespaces come first. Rules hold for the file or directory
// that had the name when the ruleset was made: a directory made anew under the
// same name has none. A thread holds 16 layers at most.
//
// # Why system calls and not github.com/landlock-lsm/go-landlock
//
// That library (v0.11.0, from which the table of versions and the habits are
// learnt) makes, enforces and closes a ruleset in one call, for all threads of
// the calling process: it can't hand out the descriptor that a session's layer
// is, and its means to reach all threads are not needed by a process that
// executes another program from the restricted thread. What is left of it is
// three system calls whose numbers and constants golang.org/x/sys/unix has.
//
// Sources: landlock(7), https://docs.kernel.org/userspace-api/landlock.html.
package landlock
