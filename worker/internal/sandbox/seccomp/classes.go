package seccomp

import "golang.org/x/sys/unix"

// class is a set of calls that get the same verdict. Each call of calls.go is
// in one class, once.
type class struct {
	verdict verdict
	calls   string
}

// Values that golang.org/x/sys/unix doesn't name.
const (
	ioprioWhoProcess = 1 // linux/ioprio.h
	ioprioWhoPgrp    = 2
	noRandomize      = 0x0040000  // linux/personality.h, ADDR_NO_RANDOMIZE
	queryPersonality = 0xffffffff // personality(2)
	socketType       = 0xf        // linux/net.h, SOCK_TYPE_MASK
)

// namespaces are the flags that make clone(2) give the child a namespace of its
// own. CLONE_NEWTIME is a part of the signal number there.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// newestOption is the last of the options of prctl(2) that count up.
const newestOption = unix.PR_SET_CFI

// classes is the policy.
func (p Policy) classes() []class {
	// The C library asks a name service and the kernel for names by itself, and
	// urllib3 whether there is IPv6, when it is imported.
	common := isNot(0, unix.AF_UNIX, unix.AF_NETLINK, unix.AF_INET6)
	newSocket := refuse
	switch {
	case p.Tell && !p.UnixSockets:
		newSocket = verdict{rules: []rule{{common, told}}, otherwise: eperm}
	case p.UnixSockets:
		newSocket = check(
			rule{common, told},
			rule{isNot(0, unix.AF_UNIX), eperm},
			rule{isNot(1, unix.SOCK_STREAM).masked(socketType), eperm},
		)
	}
	list := append([]class{{newSocket, "socket"}}, fixed...)
	if !p.Tell {
		for i := range list {
			list[i].verdict = list[i].verdict.untold()
		}
	}
	return list
}

// fixed is what no field of a Policy changes.
var fixed = append([]class{
	// Only what stays connected to its other end. A pair of datagram sockets
	// is a way around what is refused to socket: each can still send to any
	// address, or be connected to it.
	{check(
		rule{isNot(0, unix.AF_UNIX), eperm},
		rule{isNot(1, unix.SOCK_STREAM, unix.SOCK_SEQPACKET).masked(socketType), eperm},
	), "socketpair"},

	// Out-of-band bytes of unix sockets, as on a kernel built without them:
	// used by next to nobody and a source of memory errors in the kernel
	// (CVE-2025-38236 and others).
	{check(rule{has(2, unix.MSG_OOB), eopnotsupp}), "sendmsg recvmsg"},
	{check(rule{has(3, unix.MSG_OOB), eopnotsupp}), "sendto recvfrom sendmmsg recvmmsg"},

	// No namespaces, in which a process has rights that open much of the
	// kernel. And no siblings: CLONE_PARENT would make the fork server the
	// parent of a process that it knows nothing of.
	{check(rule{has(0, namespaces|unix.CLONE_PARENT), told}), "clone"},
	{forbid, "unshare setns"},
	// Its flags are behind a pointer, where a filter can't look. The C library
	// falls back to clone.
	{absent, "clone3"},

	// Limits and scheduling of other processes: the same user is enough to end
	// the worker with a CPU limit of 0 or to leave it no processor time. Each
	// process may set its own, as process 0; threads can't set each other's,
	// since a filter can't tell a thread from a foreign process.
	{check(rule{is(0, 0), allowed}, rule{has(2, ^uint32(0)), eperm}, rule{has(2, ^uint32(0)).high(), eperm}), "prlimit64"},
	{check(rule{isNot(0, 0), eperm}),
		"sched_setaffinity sched_setattr sched_setparam sched_setscheduler move_pages"},
	{check(rule{isNot(0, unix.PRIO_PROCESS, unix.PRIO_PGRP), eperm}, rule{isNot(1, 0), eperm}), "setpriority"},
	{check(rule{isNot(0, ioprioWhoProcess, ioprioWhoPgrp), eperm}, rule{isNot(1, 0), eperm}), "ioprio_set"},
	{refuse, "migrate_pages"},

	// Typing into a terminal, the console's extras, loading line disciplines.
	{check(rule{is(1, unix.TIOCSTI, unix.TIOCLINUX, unix.TIOCSETD, unix.TIOCCONS), eperm}), "ioctl"},

	// PR_SET_MM rewrites what /proc says of a process; PR_SCHED_CORE keeps
	// others off a whole core. Options newer than the table are unknown, as on
	// an older kernel.
	{check(
		rule{is(0, unix.PR_SET_MM, unix.PR_SCHED_CORE), eperm},
		rule{is(0, unix.PR_SET_VMA, unix.PR_GET_AUXV), allowed},
		rule{exceeds(0, newestOption), einval},
	), "prctl"},

	// Asking, the usual one, and the one that debuggers and some run-time
	// systems start themselves with. The others emulate foreign systems or
	// make memory executable.
	{check(rule{isNot(0, 0, noRandomize, queryPersonality), eperm}), "personality"},

	// Devices, in case a submission has the right to make them.
	{check(rule{is(1, unix.S_IFCHR, unix.S_IFBLK).masked(unix.S_IFMT), eperm}), "mknod"},
	{check(rule{is(2, unix.S_IFCHR, unix.S_IFBLK).masked(unix.S_IFMT), eperm}), "mknodat"},

	// Other processes: their memory, descriptors and states.
	{forbid, "ptrace process_vm_readv process_vm_writev process_mrelease kcmp pidfd_getfd"},
	{refuse, "process_madvise"},

	// Mounts and roots.
	{forbid, "mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsmount fspick fsconfig mount_setattr"},
	// Attributes of files that everybody may write to, wherever they are:
	// Landlock doesn't look. As on a file system that has none.
	{unsupported, "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setxattrat removexattrat"},
	// Files by a handle, which looks past directories; file system accounting.
	{refuse, "name_to_handle_at quotactl quotactl_fd"},
	{forbid, "open_by_handle_at acct"},
	// Watches whole mounts, and can answer for others.
	{refuse, "fanotify_init fanotify_mark"},

	// Code in the kernel, its counters, faults answered by users (a tool to win
	// races in the kernel), memory that the kernel itself can't see.
	{forbid, "bpf perf_event_open userfaultfd"},
	{refuse, "memfd_secret lookup_dcookie modify_ldt"},
	{forbid, "init_module finit_module delete_module kexec_load kexec_file_load iopl ioperm"},

	// The machine.
	{forbid, "reboot swapon swapoff sethostname setdomainname settimeofday clock_settime"},
	{refuse, "syslog vhangup nfsservctl uselib ustat sysfs clock_adjtime adjtimex"},

	// State that no process owns and that outlives a job: keys, System V IPC,
	// message queues.
	{forbid, "add_key request_key keyctl"},
	{refuse, "shmget shmat shmdt shmctl semget semop semctl semtimedop msgget msgsnd msgrcv msgctl"},
	{refuse, "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr"},
	{refuse, "lsm_set_self_attr"},

	// Much kernel for what programs do without: asynchronous I/O (io_uring
	// makes sockets and opens files past this filter; the older one counts
	// against a limit of the whole machine), and calls so new that what uses
	// them knows an older way.
	{absent, "io_uring_setup io_uring_enter io_uring_register"},
	{absent, "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents"},
	{absent, "statmount listmount listns lsm_get_self_attr lsm_list_modules cachestat file_getattr file_setattr"},

	// Numbers that no kernel answers to any more, or ever did.
	{absent, "_sysctl create_module get_kernel_syms query_module getpmsg putpmsg afs_syscall tuxcall security vserver"},
	{absent, "epoll_ctl_old epoll_wait_old set_thread_area get_thread_area arch_specific_syscall"},
}, allowedClasses...)

// allowedClasses is what needs no look at its arguments.
var allowedClasses = []class{
	// Reading, writing and waiting.
	{allow, "read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek close close_range"},
	{allow, "open openat openat2 creat dup dup2 dup3 fcntl flock pipe pipe2"},
	{allow, "sendfile splice tee vmsplice copy_file_range readahead fadvise64"},
	{allow, "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2"},
	{allow, "eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch"},
	{allow, "fsync fdatasync sync syncfs sync_file_range"},

	// Files, as far as users and Landlock let.
	{allow, "stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat"},
	{allow, "getdents getdents64 getcwd chdir fchdir umask"},
	{allow, "truncate ftruncate fallocate rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir"},
	{allow, "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat"},
	{allow, "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr getxattrat listxattrat"},

	// Sockets that are there: the ends of pairs.
	{allow, "connect accept accept4 bind listen shutdown getsockname getpeername setsockopt getsockopt"},

	// Memory. memfd_create makes a file that no path leads to and that can be
	// executed: no more than what a process may do with its own memory.
	{allow, "mmap munmap mprotect mremap msync mincore madvise brk mlock mlock2 munlock mlockall munlockall mseal"},
	{allow, "pkey_mprotect pkey_alloc pkey_free remap_file_pages map_shadow_stack memfd_create"},
	{allow, "mbind set_mempolicy get_mempolicy set_mempolicy_home_node"},

	// Processes and threads.
	{allow, "fork vfork execve execveat exit exit_group wait4 waitid set_tid_address"},
	{allow, "futex futex_wait futex_wake futex_waitv futex_requeue set_robust_list get_robust_list rseq rseq_slice_yield membarrier arch_prctl"},
	{allow, "getpid getppid gettid getpgid getpgrp getsid setpgid setsid"},
	{allow, "sched_yield sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval"},
	{allow, "getpriority ioprio_get getrlimit setrlimit getrusage times sysinfo uname getcpu getrandom"},
	// Put into a program by somebody who traces the machine: on some kernels
	// (6.11 to 6.13) it would end if it couldn't make them.
	{allow, "uretprobe uprobe"},

	// Signals and clocks. Whom a signal may reach is up to users, Landlock and
	// namespaces.
	{allow, "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal"},
	{allow, "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause restart_syscall"},
	{allow, "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer"},
	{allow, "timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime"},

	// Giving up rights: the forked child becomes the session's user, and adds
	// layers of its own.
	{allow, "getuid getgid geteuid getegid getresuid getresgid getgroups"},
	{allow, "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capget capset"},
	{allow, "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"},
}

// often are the calls that programs make most: they are decided first.
const often = "read write close openat fstat newfstatat lseek pread64 pwrite64 ioctl poll ppoll epoll_wait epoll_pwait " +
	"mmap munmap mprotect brk madvise futex sched_yield getpid gettid rt_sigaction rt_sigprocmask clock_nanosleep getrandom clone"
