package pyrunner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Run hands a job to a child and follows it until it has ended and nothing it
// started is left. An error means that the platform failed (ErrServerLost in
// its chain: start another server); whatever the submission did is in Exit.
// A done ctx ends the job. If the server was lost while it ended the child, as
// [Server.Lost] tells, Exit says why the child was to end.
func (s *Server) Run(ctx context.Context, job Job) (Exit, error) {
	c, err := s.take()
	if err != nil {
		return Exit{}, err
	}
	r := runs.Get().(*run)
	defer r.release()
	r.s, r.c, r.job = s, c, job
	defer s.forget(c)
	return r.run(ctx)
}

// run is the state of one job while it runs.
type run struct {
	s        *Server
	c        *child
	job      Job
	in       []byte // bytes of the channel that make no whole frame yet
	send     []byte // bytes not sent yet
	writing  bool   // whether the poller waits for room to send
	ruleset  int    // to be sent with the first byte, 0 or less if there is none
	ending   Ending
	breach   atomic.Value // of *breach; written by the guard
	deadline time.Time
	extended bool // the deadline, by what the processes waited for a processor
	// watched: the child's descriptors are in the poller. Most jobs end before
	// that pays: what they said is then read when the server says so.
	watched bool
	// next is when to watch, or when to look at the channel again; zero: it is watched.
	next     time.Time
	eof      bool // nothing comes from the channel any more
	out, err capture
	scratch  [64 << 10]byte
}

// frameDelay is how long frames and output may lie unread.
const frameDelay = 2 * time.Millisecond

// breach wraps what a guard gave, so that atomic.Value sees one type.
type breach struct{ reason any }

var runs = sync.Pool{New: func() any { return new(run) }}

func (r *run) release() {
	r.in = r.in[:0]
	if cap(r.in) > 1<<20 {
		r.in = nil
	}
	r.s, r.c, r.job, r.send, r.writing, r.ruleset, r.ending = nil, nil, Job{}, nil, false, 0, EndedItself
	r.watched, r.next, r.eof, r.extended = false, time.Time{}, false, false
	r.breach.Store((*breach)(nil))
	r.out, r.err = capture{}, capture{}
	runs.Put(r)
}

// capture keeps the beginning of a stream.
type capture struct {
	data  []byte
	total int
}

func (r *run) run(ctx context.Context) (Exit, error) {
	s, c := r.s, r.c
	start := time.Now()
	r.deadline = start.Add(r.job.Wall)
	r.send, r.ruleset = r.job.Message, r.job.Ruleset
	r.next = start.Add(frameDelay)
	if r.job.Prompt {
		r.watchAll()
	}
	if r.job.Guard != nil {
		guarded, end := context.WithCancel(ctx)
		defer end()
		ctx = guarded
		defer r.job.Guard(s.Pid(), func(reason any) {
			r.breach.Store(&breach{reason})
			end()
		})()
	}
	// A done context shows as a deadline that passed.
	stop := context.AfterFunc(ctx, s.poller.wake)
	defer stop()
	r.flush()
	for c.exit == nil && s.lost == nil {
		if r.ending != EndedItself {
			ctx = context.Background() // has been heard; what counts now is the kill's deadline
		}
		until := r.deadline
		if !r.next.IsZero() && r.next.Before(until) {
			until = r.next
		}
		events, err := s.poller.wait(ctx, until)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			r.look()
		}
		switch {
		case err == nil:
			for i := range events {
				r.event(int(events[i].Fd), events[i].Events)
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			s.lose(err)
		case r.ending != EndedItself && !time.Now().Before(r.deadline):
			s.lose(fmt.Errorf("child %d not gone %v after its kill", c.number, s.cfg.KillTimeout))
		case r.ending != EndedItself:
		case r.breached() != nil:
			r.end(EndedGuard)
		case ctx.Err() != nil:
			r.end(EndedCancelled)
		case !time.Now().Before(r.deadline):
			r.end(EndedWall)
		}
	}
	if s.lost != nil && r.ending == EndedItself {
		return Exit{}, s.lost
	}
	// Everything that could write is gone, so what is in the pipes is all. If
	// the server was lost while it ended the child, it is known what became of
	// the job all the same.
	r.readChannel()
	r.readStream(c.out, &r.out)
	r.readStream(c.err, &r.err)
	exit := Exit{Status: unix.WaitStatus(unix.SIGKILL)}
	if c.exit != nil {
		exit = *c.exit
	}
	exit.Ending = r.ending
	if b := r.breached(); b != nil {
		exit.Breach = b.reason
	}
	exit.Wall = time.Since(start)
	exit.Stdout, exit.StdoutTruncated = r.out.data, r.out.total > len(r.out.data)
	exit.Stderr, exit.StderrTruncated = r.err.data, r.err.total > len(r.err.data)
	return exit, nil
}

// look does what is due: watches the child's descriptors, or its channel again;
// and before a deadline is taken to have passed, reads what lies there.
func (r *run) look() {
	now := time.Now()
	if !r.next.IsZero() && !now.Before(r.next) {
		if !r.watched {
			r.watchAll()
		} else {
			r.next = time.Time{}
			r.watch(r.interest())
		}
	}
	if !now.Before(r.deadline) && r.ending == EndedItself {
		r.readChannel()
		if !now.Before(r.deadline) && !r.extended && r.s.cfg.Delay != nil {
			r.extended = true
			r.deadline = now.Add(min(r.s.cfg.Delay(r.s.Pid()), r.job.Wall))
		}
	}
}

// watchAll puts the child's descriptors into the poller.
func (r *run) watchAll() {
	r.watched, r.next = true, time.Time{}
	for _, fd := range [...]int{r.c.channel, r.c.out, r.c.err} {
		if err := r.s.poller.add(fd, unix.EPOLLIN); err != nil {
			r.s.lose(err)
		}
	}
}

// breached returns what the guard has found, or nil.
func (r *run) breached() *breach {
	b, _ := r.breach.Load().(*breach)
	return b
}

// event handles one ready descriptor.
func (r *run) event(fd int, events uint32) {
	switch fd {
	case r.s.ctl:
		r.s.drainControl()
	case r.s.listener:
		// An error only says that a signal interrupted the kernel when it looked
		// who waits; where nobody does, an answer would be waited for.
		if events&unix.EPOLLIN == 0 {
			return
		}
		r.readChannel() // the caller waits, so what it reported before is there
		if call := r.s.cfg.Blocked(fd); call != "" && r.job.OnBlocked != nil {
			r.job.OnBlocked(call)
		}
	case r.c.channel:
		if events&unix.EPOLLOUT != 0 {
			r.flush()
		}
		if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			r.readChannel()
			if !r.job.Prompt && events&unix.EPOLLHUP == 0 && r.c.exit == nil {
				r.next = time.Now().Add(frameDelay)
				r.watch(r.interest())
			}
		}
	case r.c.out:
		r.readStream(fd, &r.out)
	case r.c.err:
		r.readStream(fd, &r.err)
	default: // the spare child's, never added, or one that was closed meanwhile
		r.s.poller.remove(fd)
	}
}

// end asks for the end of the process, for the first reason that comes up.
func (r *run) end(why Ending) {
	if r.ending != EndedItself {
		return
	}
	r.ending = why
	r.deadline = time.Now().Add(r.s.cfg.KillTimeout)
	r.s.kill(r.c)
}

// readStream takes in what was printed, keeping the beginning.
func (r *run) readStream(fd int, c *capture) {
	for {
		n, err := unix.Read(fd, r.scratch[:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n == 0 {
			r.s.poller.remove(fd)
			return
		}
		c.total += n
		if room := r.job.Keep - len(c.data); room > 0 {
			c.data = append(c.data, r.scratch[:min(n, room)]...)
		}
		if c.total > r.job.Stop {
			r.end(EndedOutput)
		}
		if n < len(r.scratch) {
			return
		}
	}
}
