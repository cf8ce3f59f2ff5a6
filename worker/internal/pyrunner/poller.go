package pyrunner

import (
	"context"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for several descriptors in one goroutine, without holding a
// thread: an epoll set that itself waits in the Go runtime's poller. A blocking
// poll call would keep a processor until the runtime notices, which costs up to
// milliseconds when slots are as many as cores.
type poller struct {
	file   *os.File
	raw    syscall.RawConn
	fd     int
	events [8]unix.EpollEvent
	armed  time.Time // the deadline set on file
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *poller) add(fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (p *poller) modify(fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (p *poller) remove(fd int) {
	unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

// wait returns the descriptors that are ready, or os.ErrDeadlineExceeded when
// the deadline passed, ctx is done, or for no reason at all: the caller looks.
func (p *poller) wait(ctx context.Context, deadline time.Time) ([]unix.EpollEvent, error) {
	// Setting a timer costs more than letting one fire in vain: it is moved
	// only when it would be late.
	if p.armed.IsZero() || deadline.Before(p.armed) {
		if err := p.arm(ctx, deadline); err != nil {
			return nil, err
		}
	}
	var n int
	var werr error
	err := p.raw.Read(func(fd uintptr) bool {
		for {
			n, werr = unix.EpollWait(int(fd), p.events[:], 0)
			if werr != unix.EINTR {
				return n != 0 || werr != nil
			}
		}
	})
	if err != nil {
		p.armed = time.Time{} // it fired
		return nil, err
	}
	return p.events[:n], os.NewSyscallError("epoll_wait", werr)
}

// arm sets the timer. wake sets it too, from another goroutine, but only after
// ctx is done: looking at ctx afterwards makes sure that no wake is lost.
func (p *poller) arm(ctx context.Context, deadline time.Time) error {
	if err := p.file.SetReadDeadline(deadline); err != nil {
		return err
	}
	p.armed = deadline
	if ctx.Err() != nil {
		p.armed = time.Time{}
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wake ends a wait whose ctx is done.
func (p *poller) wake() { p.file.SetReadDeadline(time.Unix(1, 0)) }

func (p *poller) close() error { return p.file.Close() }
