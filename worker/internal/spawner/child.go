package spawner

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vfork makes a process that shares this one's memory and this thread's stack;
// the thread goes on when the process has executed a program or is gone. In
// assembly, for each architecture.
func vfork(trap, flags, stack, pidfd uintptr) (pid, errno uintptr)

const vforkFlags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | uintptr(unix.SIGCHLD)

// step is what a child does on its way to the shell.
type step uint8

const (
	atUnblock step = iota
	atSetsid
	atSetgroups
	atSetresgid
	atSetrlimit
	atSetresuid
	atChdir
	atLandlock
	atDup
	atExecve
)

var stepNames = [...]string{
	"rt_sigprocmask", "setsid", "setgroups", "setresgid", "setrlimit", "setresuid", "chdir", "landlock_restrict_self", "dup", "execve",
}

// maxLimits is how many resources a job may have limits of.
const maxLimits = 8

type resourceLimit struct {
	resource uintptr
	limit    unix.Rlimit
}

// plan is all that a child needs, in forms that it can hand to the kernel as
// they are, and what it leaves for us to read: it shares this memory.
type plan struct {
	uid, gid uintptr
	users    bool // whether to become them
	limits   [maxLimits]resourceLimit
	nlimits  int
	work     *byte // C strings, as those of argv and envv
	ruleset  int   // -1 for none
	out, err int
	path     *byte
	argv     []*byte
	envv     []*byte
	blocked  uint64 // signals: none

	pidfd int32
	// at is the child's last step, and failed what the kernel said to it, 0 if
	// the program was executed.
	at     step
	failed syscall.Errno
}

// spawn makes the child. What signals do is right already: see [plainSignals].
//
// From vfork to execve no Go runtime may be touched: no allocation, no growth of
// the stack, no call of anything but the raw system calls, which are assembly.
// As forkAndExecInChild1 of the standard library's package syscall, whose rules
// these are.
//
// The kernel makes the process dumpable again when it executes a program that
// its user may read, so unlike enter.py the child needn't, which would make this
// process so.
//
//go:noinline
//go:norace
//go:nocheckptr
func (p *plan) spawn() (pid, errno uintptr) {
	var (
		i     int
		err1  syscall.Errno
		limit *resourceLimit
	)
	pid, errno = vfork(syscall.SYS_CLONE, vforkFlags, 0, uintptr(unsafe.Pointer(&p.pidfd)))
	if errno != 0 || pid != 0 {
		return // at once: the frames beneath were the child's
	}

	p.at = atUnblock
	if _, _, err1 = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&p.blocked)), 0, 8, 0, 0); err1 != 0 {
		goto fail
	}
	p.at = atSetsid
	if _, _, err1 = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0); err1 != 0 {
		goto fail
	}
	if p.users {
		p.at = atSetgroups
		if _, _, err1 = syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); err1 != 0 {
			goto fail
		}
		p.at = atSetresgid
		if _, _, err1 = syscall.RawSyscall(syscall.SYS_SETRESGID, p.gid, p.gid, p.gid); err1 != 0 {
			goto fail
		}
	}
	p.at = atSetrlimit
	for i = 0; i < p.nlimits; i++ {
		limit = &p.limits[i]
		if _, _, err1 = syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, limit.resource, uintptr(unsafe.Pointer(&limit.limit)), 0, 0, 0); err1 != 0 {
			goto fail
		}
	}
	if p.users {
		// After the limits, so that raising a hard limit back is refused.
		p.at = atSetresuid
		if _, _, err1 = syscall.RawSyscall(syscall.SYS_SETRESUID, p.uid, p.uid, p.uid); err1 != 0 {
			goto fail
		}
	}
	p.at = atChdir
	if _, _, err1 = syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(p.work)), 0, 0); err1 != 0 {
		goto fail
	}
	if p.ruleset >= 0 {
		p.at = atLandlock
		_, _, err1 = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(p.ruleset), unix.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF, 0)
		if err1 == syscall.EINVAL { // a kernel before ABI 7 has no flags
			_, _, err1 = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(p.ruleset), 0, 0)
		}
		if err1 != 0 {
			goto fail
		}
	}
	p.at = atDup // stdin is ours, /dev/null
	if _, _, err1 = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(p.out), 1, 0); err1 != 0 {
		goto fail
	}
	if _, _, err1 = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(p.err), 2, 0); err1 != 0 {
		goto fail
	}
	// All others are close-on-exec; this makes sure of it, from Linux 5.9 on.
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, 1<<31-1, 0)
	p.at = atExecve
	_, _, err1 = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
		uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envv[0])))
fail:
	p.failed = err1
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// endUser has a child become a user and kill every process of that user at once.
// One after the other, a fork bomb makes new ones as fast; kill(-1) leaves none a
// chance to fork.
//
//go:noinline
//go:norace
func endUser(uid uintptr, pidfd *int32) (pid, errno uintptr) {
	var err1 syscall.Errno
	pid, errno = vfork(syscall.SYS_CLONE, vforkFlags, 0, uintptr(unsafe.Pointer(pidfd)))
	if errno != 0 || pid != 0 {
		return
	}
	if _, _, err1 = syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); err1 == 0 {
		syscall.RawSyscall(syscall.SYS_KILL, ^uintptr(0), uintptr(syscall.SIGKILL), 0)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
