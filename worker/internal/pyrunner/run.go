package pyrunner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Ending says who ended a child's process.
type Ending int

// How a child's process came to its end.
const (
	// EndedItself: it exited, or was killed by something other than us.
	EndedItself Ending = iota
	// EndedWall: its wall clock ran out.
	EndedWall
	// EndedOutput: it wrote more to stdout or stderr than may be.
	EndedOutput
	// EndedCancelled: the job's context was done.
	EndedCancelled
	// EndedProtocol: it sent something that is no frame.
	EndedProtocol
	// EndedStopped: the frame callback asked for it.
	EndedStopped
	// EndedGuard: the job's guard asked for it; Exit.Breach says why.
	EndedGuard
)

// Exit tells how a job's process ended, as the kernel has it.
type Exit struct {
	Status unix.WaitStatus
	// CPU is user and system time of the process and of the descendants it
	// waited for; PeakKB the peak resident memory, in KiB.
	CPU    time.Duration
	PeakKB int
	// Leftovers counts the descendants that had to be killed.
	Leftovers int
	// Ending says whether we ended it.
	Ending Ending
	// Breach is what the guard gave as its reason.
	Breach any
	// Wall is the time from the hand-over of the job to the end.
	Wall time.Duration
	// Stdout and Stderr are what went to the descriptors, up to Job.Keep each;
	// the flags tell that there was more.
	Stdout, Stderr                   []byte
	StdoutTruncated, StderrTruncated bool
}

// Job is one message for one child.
type Job struct {
	Message Message
	// Ruleset is a descriptor that the child gets with the message, for the
	// sandbox's enter(); 0 or less for none. It stays the caller's.
	Ruleset int
	// OnBlocked is called with the name of each call that was refused as one
	// that only a program makes which wants out. May be nil.
	OnBlocked func(call string)
	// Guard, if not nil, is called when the job is handed over and may from
	// then on, until the stop it returned has returned, call end from any
	// goroutine to have the process ended. server is the fork server's pid.
	Guard func(server int, end func(breach any)) (stop func())
	// Wall bounds the time from the hand-over, or from the last frame, to the
	// next frame or the end of the process.
	Wall time.Duration
	// Keep bounds what is kept of stdout and of stderr, Stop what may be
	// written to each at all, in bytes.
	Keep, Stop int
	// MaxFrame bounds a frame, in bytes.
	MaxFrame int
	// Prompt has frames read as they come. Otherwise they are read together
	// where that saves waking up for each, at most frameDelay late.
	Prompt bool
	// OnFrame is called for each frame, in order. It may return a message to
	// send to the child; Stop, to end the process. May be nil.
	OnFrame func(Frame) (reply Message, verdict Verdict)
}

// Verdict is what OnFrame wants next.
type Verdict int

// What may follow a frame.
const (
	// Continue lets the process go on.
	Continue Verdict = iota
	// Stop ends it.
	Stop
	// Protocol ends it because the frame makes no sense.
	Protocol
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

// interest is what is waited for at the channel.
func (r *run) interest() (events uint32) {
	if r.writing {
		events |= unix.EPOLLOUT
	}
	if r.next.IsZero() {
		events |= unix.EPOLLIN
	}
	return events
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

// flush sends what is to be sent, as far as there is room.
func (r *run) flush() {
	for len(r.send) > 0 {
		var rights []byte
		if r.ruleset > 0 {
			rights = unix.UnixRights(r.ruleset)
		}
		n, err := unix.SendmsgN(r.c.channel, r.send, rights, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			r.send, r.ruleset = r.send[n:], 0
			continue
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if !r.writing {
				r.writing = true
				if !r.watched {
					r.watchAll()
				}
				r.watch(r.interest())
			}
			return
		default: // the child is gone or closed its end; its exit will tell
			r.send = nil
		}
	}
	if r.writing {
		r.writing = false
		r.watch(r.interest())
	}
}

func (r *run) watch(events uint32) {
	if r.eof {
		return
	}
	if err := r.s.poller.modify(r.c.channel, events); err != nil {
		r.s.lose(err)
	}
}

// readChannel takes in frames.
func (r *run) readChannel() {
	for {
		n, err := unix.Read(r.c.channel, r.scratch[:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n == 0 {
			r.s.poller.remove(r.c.channel)
			r.eof = true
			return
		}
		if r.ending != EndedItself {
			continue // what it says now doesn't count
		}
		// The usual read is of whole frames, which need not be copied.
		data := r.scratch[:n]
		if len(r.in) > 0 {
			r.in = append(r.in, data...)
			data = r.in
		}
		rest := r.frames(data)
		r.in = append(r.in[:0], rest...)
		if n < len(r.scratch) {
			return
		}
	}
}

// frames handles the whole frames in data and returns what is left.
func (r *run) frames(data []byte) []byte {
	for {
		f, rest, ok, err := nextFrame(data, r.job.MaxFrame)
		if err != nil {
			r.end(EndedProtocol)
			return nil
		}
		if !ok {
			return data
		}
		data = rest
		if f.Kind == FrameFault {
			if f.Body, ok = bytes.CutPrefix(f.Body, r.job.Message.token()); !ok {
				r.end(EndedProtocol)
				return nil
			}
		}
		if r.ending == EndedItself {
			r.deadline, r.extended = time.Now().Add(r.job.Wall), false
		}
		if r.job.OnFrame == nil {
			continue
		}
		reply, next := r.job.OnFrame(f)
		if reply != nil {
			r.send = append(r.send, reply...)
			r.flush()
		}
		switch next {
		case Stop:
			r.end(EndedStopped)
			return nil
		case Protocol:
			r.end(EndedProtocol)
			return nil
		}
	}
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
