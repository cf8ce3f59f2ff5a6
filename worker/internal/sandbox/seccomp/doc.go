// Package seccomp refuses system calls to a process and all its descendants,
// for good, with a seccomp-BPF filter. It needs no rights besides no_new_privs
// and works in a plain container. It knows nothing of sessions or interpreters.
//
// A launcher calls [Policy.Install] once, before it executes the fork server.
// Every fork inherits the filter: forks take as long as without. A call that is
// always allowed costs some 0.03 µs more (Linux remembers those from 5.11 on
// and doesn't run the program), one that depends on its arguments 0.1 µs.
//
// # What is decided, and how
//
// Every system call that golang.org/x/sys/unix knows has a verdict in
// classes.go, and a test fails when a call of a new version has none. So the
// table reads like a list of what is refused, but it is a list of what is
// allowed: a number that nobody has decided on doesn't exist (ENOSYS).
//
//   - Allowed is what programs compute with: files, memory, processes, threads,
//     signals, clocks, pipes, and giving up rights (users, Landlock, more
//     filters). Python with numpy and multiprocessing, shells, compilers, Perl,
//     Prolog, Node.js and Java run under it, and tests hold that.
//   - EPERM is the answer to what reaches past the job: sockets, other
//     processes' memory and limits, mounts, namespaces, kernel code, keys and
//     System V IPC (which outlive a job), the machine's clock and name.
//   - By their arguments are decided: clone (no namespaces, no siblings),
//     socketpair (no datagrams: such a pair can send to any unix socket),
//     prlimit64 and scheduling (the own process as number 0 only), ioctl
//     (nothing typed into a terminal), prctl, personality, mknod (no devices),
//     sends and receives (nothing out of band).
//   - ENOSYS is the answer to what programs replace by something that can be
//     checked, or do without: clone3 (its flags are in memory, the C library
//     falls back to clone), io_uring (it would do what the filter refuses), the
//     older asynchronous I/O, and calls newer than the table.
//   - A call by a foreign convention (i386 on x86-64, 32-bit ARM on arm64) ends
//     the process: its numbers mean other calls. The x32 numbers don't exist.
//
// A refusal is an errno and no signal, so that a program that asks for too much
// goes on, and one that only probes works.
//
// # Sockets
//
// None can be made but connected pairs, which subprocesses, asyncio and the
// pipes of multiprocessing need. Unix sockets are refused because connect takes
// a path that a filter can't see and that Landlock checks from ABI 9 on only:
// where the worker runs as a user who is logged in, the session bus starts
// programs outside of any sandbox. [Policy.UnixSockets] allows stream sockets
// for multiprocessing.Manager, for its forkserver start method (the default of
// Python 3.14) and for what hands descriptors from process to process.
//
// # What it does not cover
//
//   - Paths, and anything else behind a pointer. What files may be opened and
//     whom a signal may reach (kill, F_SETOWN) is up to users, Landlock and
//     namespaces.
//   - Descriptors that the process has: a socket that it inherited, or is sent,
//     works.
//   - Files outlive a job: POSIX semaphores and shared memory are files in
//     /dev/shm, to be removed like others. memfd_create is allowed: such a file
//     ends with its last user, and can be executed.
//   - Amounts: memory, processes, disk, sync.
//   - What debuggers do: ptrace is refused, so gdb and strace don't work, and
//     the leak check of -fsanitize=address has to be turned off
//     (ASAN_OPTIONS=detect_leaks=0). Sandboxes inside, as Chromium's, have no
//     namespaces to build with.
//   - Threads that set each other's processor, policy or priority get EPERM
//     (pthread_setaffinity_np and its like): to a filter, the number of a thread
//     looks like that of any other process.
//   - Before Linux 5.16 the kernel also turns speculative store bypass off for
//     processes with a filter, which costs them some speed. That is left as it
//     is: what runs here is not trusted.
//
// # Why an own assembler and not github.com/elastic/go-seccomp-bpf
//
// That library (v1.6.0) compares the number with one call after the other, some
// 300 comparisons for those at the end, where this package needs 6 to 11
// instructions for the frequent calls and 16 at most to decide by a number. It
// gives calls of a foreign convention the default action, which here must be
// neither of the two (allowed, or ENOSYS), can't compare some bits of an
// argument with a value, and its conditions look at 64 bits where the kernel cuts to 32, so
// that a bit set above would get past a refused ioctl. Its table of calls would
// be a second one to keep up to date. golang.org/x/net/bpf would be a new
// dependency for three kinds of instructions: what is needed is assemble.go.
package seccomp
