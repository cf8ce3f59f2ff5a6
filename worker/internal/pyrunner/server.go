package pyrunner

import (
	"bytes"
	"context"
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

// Times after which a fork server that does not answer is given up. One that ended
// is noticed at once; one that imports numpy on a machine with hundreds of
// processes for two cores was seen to take more than 20 s.
const (
	DefaultStartTimeout = time.Minute
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
