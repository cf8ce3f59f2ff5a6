package proctree

import (
	"errors"
	"fmt"
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
	ended := map[process]bool{}
	err = r.endDescendants(root, deadline, ended)
	if kill := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); kill != nil && !gone(kill) {
		err = errors.Join(err, fmt.Errorf("kill process %d: %w", root, kill))
	}
	awaitEnd([]int{fd}, max(time.Until(deadline), 100*time.Millisecond))
	r.collect(ended)
	return len(ended), err
}

// endDescendants kills until two looks in a row find nothing alive: one look
// can miss a process that gets another parent meanwhile.
func (r *reader) endDescendants(root int, deadline time.Time, ended map[process]bool) error {
	var refused error
	fds := make([]int, 0, maxWatched)
	for clean := 0; clean < 2; {
		_, procs, err := r.walk(root)
		if gone(err) {
			return nil // killed by somebody else: its children are init's now
		}
		if err != nil {
			return err
		}
		living, fresh := 0, 0
		for _, p := range procs {
			if p.dead() {
				continue
			}
			living++
			fd, err := r.hold(p)
			if err != nil {
				continue // it died
			}
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !gone(err) {
				refused = fmt.Errorf("kill process %d: %w", p.pid, err)
			} else if err == nil && !ended[process{p.pid, p.start}] {
				ended[process{p.pid, p.start}] = true
				fresh++
			}
			if len(fds) < maxWatched {
				fds = append(fds, fd)
			} else {
				unix.Close(fd)
			}
		}
		if living > 0 {
			clean = 0
		} else {
			clean++
		}
		left := time.Until(deadline)
		if living > 0 && left <= 0 {
			err = fmt.Errorf("end process tree: %d descendants live, of %d that were killed", living, len(ended))
		} else if living > 0 && fresh == 0 {
			// All are dying: wait for that. Otherwise there may be newer ones.
			awaitEnd(fds, min(left, 20*time.Millisecond))
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		fds = fds[:0]
		if err != nil {
			return errors.Join(err, refused)
		}
	}
	return nil
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
