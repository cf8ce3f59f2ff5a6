package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is in the chain of errors that say that this kernel, or what
// the worker runs in, has no seccomp filters, or that this package has none for
// the machine. Nothing was restricted.
var ErrUnavailable = errors.New("seccomp unavailable")

// Install puts the filter on all threads of this process and on all they fork
// or execute from now on, for good. The caller has set no_new_privs, on its
// thread at least, and has not yet lost it by changing to another thread
// (runtime.LockOSThread). After an error no filter was added.
//
// It may be called again: what counts is what all filters allow.
func (p Policy) Install() error {
	p.Tell = false
	_, err := p.install(unix.SECCOMP_FILTER_FLAG_TSYNC)
	return err
}

func (p Policy) install(flags uintptr) (result uintptr, err error) {
	filter, err := p.Filter(runtime.GOARCH)
	if err != nil {
		return 0, err
	}
	// A filter could be had without, by root. Then a set-user-id program would
	// run with more rights than it expects to be refused things.
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("seccomp: ask for no_new_privs: %w", err)
	}
	if set != 1 {
		return 0, errors.New("seccomp: no_new_privs is not set on this thread: set it before the filter")
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	result, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL:
		// Without the call, without filters, or under an emulator.
		return 0, fmt.Errorf("%w: install filter: %w", ErrUnavailable, errno)
	case errno != 0:
		return 0, fmt.Errorf("seccomp: install filter: %w", errno)
	case flags == unix.SECCOMP_FILTER_FLAG_TSYNC && result != 0:
		return 0, fmt.Errorf("seccomp: install filter: thread %d has a filter of its own", result)
	}
	return result, nil
}
