package pyrunner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// child is a forked process that has or will have a job, and our ends of its
// channel and pipes; -1 once closed.
type child struct {
	number            uint32 // children count from 1, in the order they were asked for
	channel, out, err int
	exit              *Exit
}

// Prefork asks for a child ahead of need, unless there is one.
func (s *Server) Prefork() error {
	if s.spare != nil || s.lost != nil {
		return s.lost
	}
	c, err := s.fork()
	s.spare = c
	return err
}

// take returns the spare child or a new one.
func (s *Server) take() (*child, error) {
	s.drainControl() // a spare that died meanwhile says so here
	if c := s.spare; c != nil {
		s.spare = nil
		if c.exit == nil {
			return c, nil
		}
		s.forget(c)
	}
	return s.fork()
}

// fork asks the server for a child. The answer is read later: messages on the
// channel wait for the child in the socket.
func (s *Server) fork() (*child, error) {
	if s.lost != nil {
		return nil, s.lost
	}
	channel, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fork: socketpair: %w", err)
	}
	c := &child{channel: channel[0], out: -1, err: -1}
	var out, errs [2]int
	if err = unix.Pipe2(out[:], unix.O_CLOEXEC); err == nil {
		c.out = out[0]
		if err = unix.Pipe2(errs[:], unix.O_CLOEXEC); err == nil {
			c.err = errs[0]
			rights := unix.UnixRights(channel[1], out[1], errs[1])
			err = sendmsg(s.ctl, []byte("F"), rights)
			unix.Close(errs[1])
		}
		unix.Close(out[1])
	}
	unix.Close(channel[1])
	if err != nil {
		c.close()
		return nil, s.lose(fmt.Errorf("fork: %w", err))
	}
	for _, fd := range [...]int{c.channel, c.out, c.err} {
		if err := unix.SetNonblock(fd, true); err != nil {
			c.close()
			return nil, s.lose(fmt.Errorf("fork: %w", err))
		}
	}
	s.asked++
	c.number = s.asked
	s.children[c.number] = c
	return c, nil
}

func sendmsg(fd int, p, oob []byte) error {
	for {
		err := unix.Sendmsg(fd, p, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// kill asks the server to end a child.
func (s *Server) kill(c *child) {
	if c.exit != nil {
		return
	}
	var m [5]byte
	m[0] = 'K'
	binary.LittleEndian.PutUint32(m[1:], c.number)
	if err := sendmsg(s.ctl, m[:], nil); err != nil {
		s.lose(fmt.Errorf("kill: %w", err))
	}
}

// drainControl takes in what the server said: which children ended.
func (s *Server) drainControl() {
	var buf [64]byte
	for s.lost == nil {
		n, err := unix.Read(s.ctl, buf[:])
		switch {
		case err == unix.EAGAIN:
			return
		case err == unix.EINTR:
		case err != nil:
			s.lose(fmt.Errorf("read control socket: %w", err))
		case n == 0:
			s.lose(errors.New("control socket closed"))
		default:
			s.control(buf[:n])
		}
	}
}

func (s *Server) control(m []byte) {
	switch {
	case m[0] == 'x' && len(m) == 33:
		le := binary.LittleEndian
		c := s.children[le.Uint32(m[1:])]
		if c == nil {
			return
		}
		c.exit = &Exit{
			Status:    unix.WaitStatus(le.Uint32(m[5:])),
			CPU:       time.Duration(le.Uint64(m[9:])+le.Uint64(m[17:])) * time.Microsecond,
			PeakKB:    int(le.Uint32(m[25:])),
			Leftovers: int(le.Uint32(m[29:])),
		}
	default:
		s.lose(fmt.Errorf("unexpected control message %q", m))
	}
}

// forget closes a child that ended or is not wanted.
func (s *Server) forget(c *child) {
	c.close()
	delete(s.children, c.number)
}

func (c *child) close() {
	for _, fd := range [...]*int{&c.channel, &c.out, &c.err} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
