package proctree

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// process names a process beyond the life of its pid.
type process struct {
	pid   int
	start uint64
}

// maxWatched bounds the descriptors that End has at a time.
const maxWatched = 64

// End ends root and everything beneath it, and returns how many descendants it
// killed. Root is stopped first: it need not work, and while nobody collects
// the dead they count against RLIMIT_NPROC, so that a fork bomb with such a
// limit starves. On return root is dead or dying, whatever the error; who
// started it has to wait for it. The dead beneath it go to the next subreaper
// or init; what comes to the calling process is collected here.
//
// The timeout bounds how long descendants may take to die; past it the error
// says how many live. Root being gone already is an error too.
func End(root int, timeout time.Duration) (killed int, err error) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	defer urge()()
	deadline := time.Now().Add(timeout)
	top, err := r.stat(root)
	if err != nil {
		return 0, fmt.Errorf("end process tree: %w", err)
	}
	fd, err := r.hold(top)
	if err != nil {
		return 0, fmt.Errorf("end process tree: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); err != nil {
		return 0, fmt.Errorf("stop process %d: %w", root, err)
	}
	e := ending{r: r, ended: map[process]bool{}}
	err = e.descendants(root, deadline)
	if kill := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); kill != nil && !gone(kill) {
		err = errors.Join(err, fmt.Errorf("kill process %d: %w", root, kill))
	}
	awaitEnd([]int{fd}, max(time.Until(deadline), 100*time.Millisecond))
	r.collect(e.ended)
	return len(e.ended), err
}

// ending is the state of one End.
type ending struct {
	r     *reader
	ended map[process]bool
	// Of the present walk: how many live, how many of those were met for the
	// first time, and pidfds of some.
	living, fresh int
	fds           []int
	refused       error
}

// kill ends a process as soon as a walk comes to it. Its children become root's,
// which a walk looks at last.
func (e *ending) kill(p stat) {
	if p.dead() {
		return
	}
	e.living++
	fd, err := e.r.hold(p)
	if err != nil {
		return // it died
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !gone(err) {
		e.refused = fmt.Errorf("kill process %d: %w", p.pid, err)
	} else if err == nil && !e.ended[process{p.pid, p.start}] {
		e.ended[process{p.pid, p.start}] = true
		e.fresh++
	}
	if len(e.fds) < maxWatched {
		e.fds = append(e.fds, fd)
	} else {
		unix.Close(fd)
	}
}

// descendants kills until two walks in a row find nothing alive: one can miss a
// process that gets another parent meanwhile.
func (e *ending) descendants(root int, deadline time.Time) error {
	e.r.found = e.kill
	defer func() { e.r.found = nil }()
	for clean := 0; clean < 2; {
		e.living, e.fresh, e.fds = 0, 0, e.fds[:0]
		_, _, err := e.r.walk(root)
		left := time.Until(deadline)
		switch {
		case gone(err): // killed by somebody else: its children are init's now
			clean, err = 2, nil
		case err != nil:
		case e.living == 0:
			clean++
		case left <= 0:
			err = fmt.Errorf("end process tree: %d descendants live, of %d that were killed", e.living, len(e.ended))
		default:
			clean = 0
			if e.fresh == 0 { // all are dying: otherwise there may be newer ones
				awaitEnd(e.fds, min(left, 20*time.Millisecond))
			}
		}
		for _, fd := range e.fds {
			unix.Close(fd)
		}
		if err != nil {
			return errors.Join(err, e.refused)
		}
	}
	return nil
}

// urge has this thread run before all others, where that is allowed: a fork bomb
// takes what time there is, the more with a session for each process. The
// goroutine stays on the thread until restore is called.
func urge() (restore func()) {
	runtime.LockOSThread()
	usual, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		first := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
		err = unix.SchedSetAttr(0, &first, 0)
	}
	if err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		if unix.SchedSetAttr(0, usual, 0) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with its goroutine
	}
}

// hold opens a pidfd of just this process.
func (r *reader) hold(p stat) (int, error) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	// The pid may have become another's between the look and the opening.
	if now, err := r.stat(p.pid); err != nil || now.start != p.start {
		unix.Close(fd)
		return -1, fmt.Errorf("open process %d: %w", p.pid, unix.ESRCH)
	}
	return fd, nil
}

// awaitEnd waits until all processes behind the descriptors ended, but not
// longer than a time.
func awaitEnd(fds []int, wait time.Duration) {
	deadline := time.Now().Add(wait)
	for _, fd := range fds {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			left := time.Until(deadline)
			if left <= 0 {
				return
			}
			if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != unix.EINTR {
				break
			}
		}
	}
}

// collect waits for those of the dead that came to this process, as init of a
// container or as a subreaper.
func (r *reader) collect(ended map[process]bool) {
	self := unix.Getpid()
	for p := range ended {
		if s, err := r.stat(p.pid); err == nil && s.start == p.start && s.ppid == self && s.dead() {
			unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}
