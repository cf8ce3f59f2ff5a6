package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InstallListener is Install for the calling thread only, with a policy that
// tells: it returns the descriptor of a [Listener]. From now on the calls that
// are told of wait for it, so somebody must be there to answer. The error is an
// [ErrUnavailable] where the kernel (before 5.0) or a listener further out
// doesn't let one be made; nothing was restricted then.
func (p Policy) InstallListener() (fd int, err error) {
	p.Tell = true
	result, err := p.install(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return -1, fmt.Errorf("%w: there is a listener already: %w", ErrUnavailable, err)
		}
		return -1, err
	}
	return int(result), nil
}

// CanListen says whether the kernel has listeners.
func CanListen() bool {
	var sizes [3]uint16 // struct seccomp_notif_sizes
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	return errno == 0 && uintptr(sizes[0]) >= unsafe.Sizeof(notice{}) && uintptr(sizes[1]) >= unsafe.Sizeof(reply{})
}

// notice is struct seccomp_notif of linux/seccomp.h, reply its answer.
type notice struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type reply struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// Refuse answers one call that waits at a listener's descriptor with EPERM, and
// returns its name. ok is false if none waits any more, since who made it is
// gone. The descriptor is readable when one waits; if none does, Refuse waits,
// also where the descriptor is not to block. An error that a poll tells of is none
// of the descriptor's: a signal interrupted the kernel when it looked.
func Refuse(fd int) (call string, ok bool) {
	var n notice
	if errno := notification(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errno != 0 {
		return "", false
	}
	r := reply{id: n.id, errno: -int32(unix.EPERM)}
	notification(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // ENOENT: it was killed meanwhile
	return nameOf(int(n.number)), true
}

// notification receives or sends one, again when a signal interrupted it: the
// kernel does so while another thread's is being made, with SA_RESTART or not,
// and Go's scheduler sends such signals. Without its answer a call waits for ever.
func notification(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != unix.EINTR {
			return errno
		}
	}
}

func nameOf(number int) string {
	if a, err := architectureOf(runtime.GOARCH); err == nil && number >= 0 && number < len(a.calls) && a.calls[number] != "" {
		return a.calls[number]
	}
	return fmt.Sprintf("call %d", number)
}
