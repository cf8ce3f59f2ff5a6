package spawner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Program is what to start as a spawner: the worker's own binary.
const Program = "/proc/self/exe"

// name is the first argument by which the binary knows that it is one.
const name = "gradefleet-spawner"

// Args are the arguments to start [Program] with. confined says that its signals
// reach nothing but the processes of its slot.
func Args(confined bool) []string { return []string{name, strconv.FormatBool(confined)} }

// Environment is what the Go runtime of a spawner is to be told; no job gets it.
// The collector of garbage only runs when there is much: a job makes next to none.
// (In the environment, since package runtime/debug would have this package
// initialized behind most others.)
var Environment = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// A process with these arguments never reaches main: not in the worker, nor in
// the binary of a test. What is initialized after this package isn't.
func init() {
	if len(os.Args) != 3 || os.Args[0] != Program || os.Args[1] != name {
		return
	}
	err := run(os.Args[2] == "true")
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	unix.Exit(1)
}

const (
	control = 3 // the descriptor of the control socket
	// usualMessage is the size of the buffer for a job's message; a larger one is
	// let go after its job.
	usualMessage = 8 << 10
	// maxMessage bounds a message; the kernel takes commands of 128 KiB at most.
	maxMessage = 64 << 20
)

// server is the state of a spawner. It runs one job at a time.
type server struct {
	confined   bool
	childrenFD int
	base       []string // the environment that all jobs have
	linkedTo   string   // where the link for temporary files leads

	asked   uint32 // for how many children
	pid     int    // of the job's process, 0 if none
	pidfd   int
	channel int
	job     job
	plan    plan
	message []byte
	arena   []byte
}

func run(confined bool) error {
	if err := plainSignals(); err != nil {
		return err
	}
	unix.CloseOnExec(control)
	s := &server{confined: confined, base: slices.DeleteFunc(os.Environ(), ofRuntime), message: make([]byte, usualMessage)}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return fmt.Errorf("make /dev/null the input: %w", err)
	}
	unix.Close(null)
	if s.childrenFD, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the list of children: %w", err)
	}
	if err := send(control, []byte("H")); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	// Not on this goroutine: during initialization it is locked to its thread, and
	// each time the runtime interrupts it, as it does what has run for 10 ms,
	// another thread has to hand it the processor back. Amid a fork bomb that takes
	// a second.
	end := make(chan error)
	go func() { end <- s.serve() }()
	return <-end
}

// ofRuntime says whether a variable is one of Environment.
func ofRuntime(kv string) bool { return slices.Contains(Environment, kv) }

// serve does what the worker asks for until its end of the control socket is
// closed; then nothing may be left.
func (s *server) serve() error {
	for {
		asked, ended, err := s.wait()
		if err != nil {
			return err
		}
		if ended {
			if err := s.ended(); err != nil {
				return err
			}
		}
		if !asked {
			continue
		}
		var buf [64]byte
		var fds [3]int
		n, rights, err := receive(control, buf[:], fds[:])
		if err != nil {
			return fmt.Errorf("read control socket: %w", err)
		}
		switch {
		case n == 0:
			s.sweep()
			unix.Exit(0)
		case buf[0] == 'F' && rights == len(fds):
			if err := s.start(fds); err != nil {
				return err
			}
		case buf[0] == 'K' && n == 5:
			if s.pid != 0 && binary.LittleEndian.Uint32(buf[1:]) == s.asked {
				unix.Kill(s.pid, unix.SIGKILL)
			}
		default:
			return fmt.Errorf("unexpected control message %q with %d descriptors", buf[:n], rights)
		}
	}
}

// start receives a job and makes the process that does it.
func (s *server) start(fds [3]int) error {
	s.asked++
	if s.pid != 0 {
		return errors.New("asked for a second child")
	}
	var out, errs int
	s.channel, out, errs = fds[0], fds[1], fds[2]
	s.plan.out, s.plan.err, s.plan.ruleset = out, errs, -1
	defer func() {
		unix.Close(out)
		unix.Close(errs)
		if s.plan.ruleset >= 0 {
			unix.Close(s.plan.ruleset)
		}
	}()
	message, err := s.receiveJob()
	if err != nil {
		return err
	}
	if message == nil {
		return s.report(0, nil, remains{}) // not needed any more
	}
	if err := s.job.decode(message); err != nil {
		return err
	}
	if err := s.point(); err != nil {
		return s.fault("link /tmp", err)
	}
	if cap(s.arena) > usualMessage {
		s.arena = nil
	}
	s.arena = s.plan.prepare(&s.job, s.arena, s.base)
	s.plan.at, s.plan.failed = 0, 0
	pid, errno := s.plan.spawn()
	if errno != 0 {
		return s.fault("clone", unix.Errno(errno))
	}
	s.pid, s.pidfd = int(pid), int(s.plan.pidfd)
	if s.plan.failed == 0 {
		return nil
	}
	// It is gone: it failed before it became the command.
	wait4(s.pid, 0, nil)
	unix.Close(s.pidfd)
	s.pid = 0
	failed := s.plan.failed
	if s.plan.at == atExecve && (failed == unix.E2BIG || failed == unix.ENOMEM || failed == unix.EAGAIN) {
		// Too long a command, or limits too low for a shell.
		unix.Write(errs, fmt.Appendf(nil, "%s: %v\n", shell, failed)) // the worker's end is open until we report
		return s.report(notExecuted<<8, nil, remains{})
	}
	return s.fault(stepNames[s.plan.at], failed)
}

// notExecuted is a shell's exit status for a program that it can't execute.
const notExecuted = 126

// receiveJob reads the message of a job, with the ruleset that may come with it;
// nil if the worker has no job for the child after all.
func (s *server) receiveJob() ([]byte, error) {
	if cap(s.message) > usualMessage {
		s.message = make([]byte, usualMessage)
	}
	var fds [1]int
	n, rights, err := receive(s.channel, s.message, fds[:])
	if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	if rights > 0 {
		s.plan.ruleset = fds[0]
	}
	size := 4
	for {
		if n >= 4 {
			if size = 4 + int(binary.LittleEndian.Uint32(s.message)); size > maxMessage {
				return nil, fmt.Errorf("read job: %d bytes, at most %d", size, maxMessage)
			}
			if n == size {
				return s.message[4:size], nil
			}
		}
		if size > len(s.message) {
			s.message = append(s.message, make([]byte, size-len(s.message))...)
		}
		more, _, err := receive(s.channel, s.message[n:size], nil)
		if err != nil {
			return nil, fmt.Errorf("read job: %w", err)
		}
		if more == 0 {
			return nil, nil
		}
		n += more
	}
}

// point makes the link for temporary files lead to the session's, if it doesn't
// already. Nobody else can change it.
func (s *server) point() error {
	if s.job.link == nil || string(s.job.linkedTo) == s.linkedTo {
		return nil
	}
	link, target := string(s.job.link), string(s.job.linkedTo)
	s.linkedTo = ""
	if err := unix.Unlink(link); err != nil && err != unix.ENOENT {
		return err
	}
	if err := unix.Symlink(target, link); err != nil {
		return err
	}
	s.linkedTo = target
	return nil
}

// fault tells that the sandbox couldn't be entered, with the job's token, and
// that the job has ended. The channel never gets to a command, nor the token.
func (s *server) fault(what string, err error) error {
	const head = 4 + 1 + 4*6 // runner.py's FRAME
	body := append(append([]byte{}, s.job.token...), fmt.Sprintf("enter sandbox: %s: %v", what, err)...)
	frame := make([]byte, head, head+len(body))
	binary.LittleEndian.PutUint32(frame, uint32(head-4+len(body)))
	frame[4] = 'F'
	if err := send(s.channel, append(frame, body...)); err != nil {
		return fmt.Errorf("tell fault: %w", err)
	}
	return s.report(1<<8, nil, remains{})
}

// ended takes in the end of the job's process, and ends what is left of the job.
func (s *server) ended() error {
	var usage unix.Rusage
	_, status, err := wait4(s.pid, 0, &usage)
	if err != nil {
		return fmt.Errorf("wait for the job's process: %w", err)
	}
	unix.Close(s.pidfd)
	s.pid = 0
	return s.report(status, &usage, s.sweep())
}

// report tells that the job has ended, and nothing of it is left.
func (s *server) report(status unix.WaitStatus, usage *unix.Rusage, left remains) error {
	var m [33]byte
	le := binary.LittleEndian
	m[0] = 'x'
	le.PutUint32(m[1:], s.asked)
	le.PutUint32(m[5:], uint32(status))
	if usage != nil {
		left.user += micros(usage.Utime)
		left.system += micros(usage.Stime)
		le.PutUint32(m[25:], uint32(usage.Maxrss))
	}
	le.PutUint64(m[9:], left.user)
	le.PutUint64(m[17:], left.system)
	le.PutUint32(m[29:], left.killed)
	err := send(control, m[:])
	unix.Close(s.channel)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
