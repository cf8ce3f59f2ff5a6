package spawner

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// drowsy is how long the spawner waits for a job before it tells the Go runtime
// that it waits. A runtime that knows looks after its only processor at once,
// and has to be asked for it afterwards: that costs more than a short wait. One
// that doesn't know wakes its monitor a hundred times a second.
const drowsy = 50 * time.Millisecond

// wait waits until the worker asks for something or the job's process has ended.
func (s *server) wait() (asked, ended bool, err error) {
	fds := [2]unix.PollFd{{Fd: control, Events: unix.POLLIN}, {Fd: int32(s.pidfd), Events: unix.POLLIN}}
	n, timeout := uintptr(2), unix.Timespec{Sec: 1 << 30} // for ever
	if s.pid == 0 {
		n, timeout = 1, unix.NsecToTimespec(drowsy.Nanoseconds())
	}
	ready, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), n, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	for errno == unix.EINTR || errno == 0 && ready == 0 {
		ready, _, errno = syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), n, 0, 0, 0, 0)
	}
	if errno != 0 {
		return false, false, fmt.Errorf("poll: %w", errno)
	}
	return fds[0].Revents != 0, n == 2 && fds[1].Revents != 0, nil
}

// receive reads a message or a part of a stream, and up to len(fds) descriptors
// that came with it, which are close-on-exec. package unix would make garbage.
func receive(fd int, p []byte, fds []int) (n, rights int, err error) {
	var oob [8]uint64 // aligned as a Cmsghdr is
	head := (*unix.Cmsghdr)(unsafe.Pointer(&oob))
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	m := unix.Msghdr{Iov: &iov}
	m.SetIovlen(1)
	if len(fds) > 0 {
		m.Control = (*byte)(unsafe.Pointer(&oob))
		m.SetControllen(unix.CmsgSpace(4 * len(fds)))
	}
	for {
		r, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_CMSG_CLOEXEC)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, 0, errno
		}
		n = int(r)
		break
	}
	if m.Controllen < unix.SizeofCmsghdr || head.Level != unix.SOL_SOCKET || head.Type != unix.SCM_RIGHTS {
		return n, 0, nil
	}
	data := unsafe.Slice((*int32)(unsafe.Add(unsafe.Pointer(&oob), unix.CmsgLen(0))), (int(head.Len)-unix.CmsgLen(0))/4)
	for i, fd := range data {
		fds[i] = int(fd)
	}
	return n, len(data), nil
}

// send writes a message; nobody there to read it is an error, not a signal.
func send(fd int, p []byte) error {
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// plainSignals gives all signals their default action, as a command expects
// them. There is then no handler of the Go runtime's that could
// run in a child that shares our memory, so nothing has to be done about signals
// around its start but to unblock them. What the runtime wants of signals is to interrupt goroutines
// (SIGURG, whose default is to do nothing) and to describe a crash.
func plainSignals() error {
	var action [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags
	for signal := uintptr(1); signal <= 64; signal++ {
		if signal == uintptr(unix.SIGKILL) || signal == uintptr(unix.SIGSTOP) {
			continue
		}
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			return fmt.Errorf("reset signal %d: %w", signal, errno)
		}
	}
	return nil
}
