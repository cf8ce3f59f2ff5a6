package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Some results never come: the worker died while it ran a command, or a result
// was sent while this gateway was cut off. A job tells by whether it is still in
// the stream: an evaluate leaves it when its result was sent, a run when it was
// begun. What will get no result is answered here, before its deadline.

// checkTimeout bounds the look at one job in the stream.
const checkTimeout = 5 * time.Second

// WorkerLost says that what a worker was doing is lost; if restarted, it is
// back and goes on with what is in its queue. Jobs of the shared queue are not
// meant: JetStream gives them to another worker. It does not block.
func (d *Dispatcher) WorkerLost(worker string, restarted bool) {
	mine := func(kind protocol.Kind) func(*pending) bool {
		return func(p *pending) bool { return p.worker == worker && p.kind == kind }
	}
	forRuns := d.lostGrace
	if restarted {
		forRuns = d.restartGrace // it may have begun some of them anew
	}
	begun := func() error {
		return &fault.Error{
			Status: http.StatusBadGateway,
			Detail: fmt.Sprintf("Worker %s was lost while it ran the command, which may have run in part or in full", worker),
		}
	}
	check := func(p *pending, queued bool) *answer {
		switch {
		case queued && restarted:
			return nil
		case queued && p.movable && p.sequence.Load() != 0:
			return &answer{err: stranded(worker, p)}
		case queued:
			a := &answer{err: fault.Unavailable(fmt.Sprintf("Worker %s, which owns the session, was lost before it did the job; the job was taken back", worker), nil), abandon: true}
			if p.kind == protocol.Run {
				a.otherwise = begun() // the worker was not lost, and begins it now
			}
			return a
		case p.kind == protocol.Run:
			return &answer{err: begun()}
		}
		return resultLost()
	}
	d.recheck(d.lostGrace, mine(protocol.Evaluate), check)
	d.recheck(forRuns, mine(protocol.Run), check)
}

// Stranded is in the chain of Do's error for a movable job whose worker was lost:
// the job is in the worker's queue still. Make sure that the worker can't do it
// any more, then Withdraw it.
type Stranded struct {
	Worker   string
	job      string
	sequence uint64
}

func (s *Stranded) Error() string { return "the job is in the queue of a worker that was lost" }

func stranded(worker string, p *pending) error {
	return fault.Unavailable(fmt.Sprintf("Worker %s, which owns the session, was lost before it did the job; ask again", worker),
		&Stranded{Worker: worker, job: p.id, sequence: p.sequence.Load()})
}

// Withdraw takes a stranded job out of its queue. It returns true if the job was
// there still: then no worker has begun a run, nor will.
func (d *Dispatcher) Withdraw(ctx context.Context, s *Stranded) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	err := d.cfg.Jobs.DeleteMsg(ctx, s.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return false, nil
	}
	return err == nil, err
}

// Reconnected says that the connection to NATS was lost and is back: results
// sent in between did not arrive; workers are asked to send them again. It does
// not block.
func (d *Dispatcher) Reconnected() {
	for _, after := range askAgainAfter {
		time.AfterFunc(after, func() { d.askAgain(d.awaiting(0)) })
	}
	d.recheck(d.lostGrace, func(p *pending) bool { return p.kind == protocol.Evaluate }, func(_ *pending, queued bool) *answer {
		if queued {
			return nil
		}
		return resultLost()
	})
}

// askAgainAfter is when, after a connection was made anew, workers are asked to
// send their results again: a worker may be connecting too, and who listens to
// what spreads in a cluster of NATS servers only after that.
var askAgainAfter = []time.Duration{0, time.Second, 4 * time.Second}

func resultLost() *answer {
	return &answer{err: unknown(protocol.Evaluate, "The job's result was lost on its way", nil)}
}

// recheck gives the jobs that are pending now, and that which picks, a grace to
// be answered, then answers those that check has an answer for. queued tells
// whether the job is still in the stream, or nobody knows.
func (d *Dispatcher) recheck(grace time.Duration, which func(*pending) bool, check func(p *pending, queued bool) *answer) {
	var jobs []*pending
	d.mu.Lock()
	for _, p := range d.pending {
		if which(p) {
			jobs = append(jobs, p)
		}
	}
	d.mu.Unlock()
	if len(jobs) == 0 || !d.enter(nil) {
		return
	}
	go func() {
		defer d.busy.Done()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-d.closing:
			return
		}
		for _, p := range jobs {
			if !d.awaited(p.id) {
				continue
			}
			a := check(p, d.queued(p))
			if a != nil && d.take(p.id) != nil {
				p.answer <- *a
			}
		}
	}()
}

func (d *Dispatcher) awaited(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending[id] != nil
}

// queued reports whether the job is in the stream; true if that is not known.
func (d *Dispatcher) queued(p *pending) bool {
	seq := p.sequence.Load()
	if seq == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	_, err := bus.At(ctx, d.cfg.NC, protocol.JobsStream, seq)
	return !errors.Is(err, bus.ErrNoMessage)
}
