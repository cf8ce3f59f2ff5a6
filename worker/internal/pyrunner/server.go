package pyrunner

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config says how to start a fork server.
type Config struct {
	// Command starts the interpreter, inside the slot's part of the sandbox,
	// with the given arguments. It is called once a start.
	Command func(args ...string) *exec.Cmd
	// Native says that Command starts, without arguments, a program that speaks
	// the fork server's protocol itself; nothing of what follows about Python
	// is used.
	Native bool
	// Path is the sys.path of children.
	Path []string
	// Preload lists modules to import before the first fork.
	Preload []string
	// Limits are what children report by; those of the jobs should be the same.
	Limits Limits
	// SandboxSource is Python source that defines enter(confinement).
	SandboxSource string
	// StartTimeout bounds the start of the interpreter; 0 means DefaultStartTimeout.
	StartTimeout time.Duration
	// Confined says that signals of the server reach nothing but the processes
	// of its own slot.
	Confined bool
	// End ends the server, which is still running, and every process beneath
	// it, when it can't be asked to any more. nil means that killing the
	// server does.
	End func(server int) error
	// Blocked answers what waits at the listener that the launcher may send
	// ahead of the server's hello, and names it; "" for nothing.
	Blocked func(listener int) string
	// Delay says how long a process of the server has waited for a processor
	// since it began. A case is given so much more wall time, up to as much again
	// as it has: a machine that is busy must not make an answer late. nil: none.
	Delay func(server int) time.Duration
	// KillTimeout bounds how long the server may take to end a killed child and
	// all its descendants, before it is given up; 0 means DefaultKillTimeout.
	KillTimeout time.Duration
}

// Times after which a fork server that does not answer is given up.
const (
	DefaultStartTimeout = 20 * time.Second
	DefaultKillTimeout  = 600 * time.Millisecond
)

// ErrServerLost is in the chain of errors after which the fork server can't be
// used any more: it died or doesn't answer. Its slot starts a new one.
var ErrServerLost = errors.New("fork server lost")

// Server is a running fork server with, once asked, one spare child ahead of
// need. It serves one job at a time; its methods must not be called
// concurrently, Close excepted after the last job.
type Server struct {
	cfg    Config
	cmd    *exec.Cmd
	stderr *tailBuffer
	poller *poller
	ctl    int // our end of the control socket, in the poller
	// listener is a descriptor that the launcher sent, -1 for none; in the poller.
	listener int
	wait     chan struct{}
	children map[uint32]*child // by number
	asked    uint32            // for how many
	spare    *child
	lost     error
}

// child is a forked process that has or will have a job, and our ends of its
// channel and pipes; -1 once closed.
type child struct {
	number            uint32 // children count from 1, in the order they were asked for
	channel, out, err int
	exit              *Exit
}

// StartServer starts an interpreter and waits until it is ready to fork.
func StartServer(cfg Config) (*Server, error) {
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = DefaultStartTimeout
	}
	if cfg.KillTimeout == 0 {
		cfg.KillTimeout = DefaultKillTimeout
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start fork server: socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	s := &Server{cfg: cfg, ctl: pair[0], listener: -1, children: map[uint32]*child{}, wait: make(chan struct{}), stderr: &tailBuffer{}}
	if cfg.Native {
		s.cmd = cfg.Command()
	} else {
		// -I: no environment, no user site; -S: no site, its paths come with Path;
		// -B: no .pyc files; -E is part of -I.
		s.cmd = cfg.Command("-I", "-S", "-B", "-X", "utf8", "-c",
			`import sys; exec(compile(sys.stdin.buffer.read(), "<gradefleet fork server>", "exec"))`)
		s.cmd.Stdin = strings.NewReader(s.program())
	}
	s.cmd.Stderr = s.stderr
	s.cmd.ExtraFiles = append([]*os.File{theirs}, s.cmd.ExtraFiles...)
	err = s.cmd.Start()
	theirs.Close() // so that the server's end is the only one
	if err != nil {
		unix.Close(s.ctl)
		return nil, fmt.Errorf("start fork server: %w", err)
	}
	go func() {
		s.cmd.Wait() // the outcome shows as the end of the control socket
		close(s.wait)
	}()
	if err := s.ready(); err != nil {
		s.Close()
		return nil, fmt.Errorf("start fork server: %w%s", err, s.stderr.suffix())
	}
	return s, nil
}

// program is the whole Python source of the server and its children.
func (s *Server) program() string {
	var b strings.Builder
	b.WriteString(s.cfg.SandboxSource)
	b.WriteString(runnerSource)
	b.WriteString(forkserverSource)
	b.WriteString("\nmain(")
	list := func(items []string) {
		b.WriteByte('[')
		for _, it := range items {
			b.WriteString(strconv.QuoteToASCII(it))
			b.WriteString(", ")
		}
		b.WriteByte(']')
	}
	list(s.cfg.Path)
	b.WriteString(", ")
	list(s.cfg.Preload)
	l := s.cfg.Limits
	confined := "False"
	if s.cfg.Confined {
		confined = "True"
	}
	fmt.Fprintf(&b, ", (%d, %d, %d, %d), %s)\n", l.Result, l.Text, l.Keep, l.Stop, confined)
	return b.String()
}

// ready waits for the server's hello.
func (s *Server) ready() error {
	var err error
	if s.poller, err = newPoller(); err != nil {
		return err
	}
	if err := unix.SetNonblock(s.ctl, true); err != nil {
		return err
	}
	if err := s.poller.add(s.ctl, unix.EPOLLIN); err != nil {
		return err
	}
	deadline := time.Now().Add(s.cfg.StartTimeout)
	var buf, oob [64]byte
	for {
		n, rights, _, _, err := unix.Recvmsg(s.ctl, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EAGAIN:
			if _, err := s.poller.wait(context.Background(), deadline); err != nil && !time.Now().Before(deadline) {
				return fmt.Errorf("wait %v for the interpreter: %w", s.cfg.StartTimeout, err)
			}
		case err != nil:
			return fmt.Errorf("read control socket: %w", err)
		case n == 0:
			<-s.wait // so that what it printed is all there
			return fmt.Errorf("the interpreter ended: %w", ErrServerLost)
		case buf[0] == 'L':
			if err := s.listen(oob[:rights]); err != nil {
				return err
			}
		case buf[0] == 'H':
			return nil
		}
	}
}

// listen takes in the launcher's listener.
func (s *Server) listen(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("take in listener: %d control messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("take in listener: %d descriptors: %v", len(fds), err)
	}
	s.listener = fds[0]
	if err := unix.SetNonblock(s.listener, true); err != nil {
		return fmt.Errorf("take in listener: %w", err)
	}
	return s.poller.add(s.listener, unix.EPOLLIN)
}

// Pid is the process id of the server itself.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

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

// lose marks the server as unusable, once, and returns the error to report.
func (s *Server) lose(cause error) error {
	if s.lost == nil {
		s.lost = fmt.Errorf("%w: %w%s", ErrServerLost, cause, s.stderr.suffix())
	}
	return s.lost
}

// Lost returns why the server can't be used any more, or nil.
func (s *Server) Lost() error { return s.lost }

// Close ends the server and its children, and waits for it.
func (s *Server) Close() (err error) {
	patience := s.cfg.KillTimeout
	if s.lost != nil {
		patience = 0 // it had its time
	}
	s.lose(errors.New("closed"))
	unix.Close(s.ctl) // the server kills its children and ends
	select {
	case <-s.wait:
	case <-time.After(patience):
		if s.cfg.End != nil {
			err = s.cfg.End(s.Pid())
		}
		s.cmd.Process.Kill()
		<-s.wait
	}
	if s.listener >= 0 {
		unix.Close(s.listener)
		s.listener = -1
	}
	for _, c := range s.children {
		c.close()
	}
	if s.poller != nil {
		err = errors.Join(err, s.poller.close())
	}
	return err
}

// tailBuffer keeps the last bytes that the interpreter wrote to stderr: an
// import error or a traceback of our own.
type tailBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const tailBytes = 4096

var _ io.Writer = (*tailBuffer)(nil)

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() < tailBytes {
		t.b.Write(p[:min(len(p), tailBytes-t.b.Len())])
	}
	return len(p), nil
}

func (t *tailBuffer) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(t.b.String()); s != "" {
		return ": " + s
	}
	return ""
}
