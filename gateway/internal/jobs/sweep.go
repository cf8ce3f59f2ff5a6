package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// sweepInterval is how often jobs are looked for that nobody will end. Every
	// gateway does it, at times of its own; the records see to it that each job
	// ends once.
	sweepInterval = 15 * time.Second
	// lostAfter is how long a worker must not have been seen before what it ran
	// counts as lost: a result may be on its way, and so may a heartbeat.
	lostAfter = time.Second
	// moveTime is longer than it takes to move a command from one queue to another.
	moveTime = 30 * time.Second
	// strayAfter is how long after its deadline a job that runs is given up; a
	// worker's own limits ended it long before.
	strayAfter = 10 * time.Minute
)

// WorkerLost says that a worker stopped, or is back as a new process. It does
// not block.
func (s *Service) WorkerLost() {
	select {
	case s.swept <- struct{}{}:
	default:
	}
}

// Run ends jobs that nobody else will, until ctx is done: those not begun by
// their deadline, and those lost with their worker.
func (s *Service) Run(ctx context.Context) {
	timer := time.NewTimer(rand.N(sweepInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.swept:
			timer.Reset(lostAfter / 10)
			continue
		case <-timer.C:
		}
		next := sweepInterval/2 + rand.N(sweepInterval)
		again, err := s.sweep(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("jobs not looked through", "error", err)
		}
		if again {
			next = lostAfter + lostAfter/10
		}
		timer.Reset(next)
	}
}

// sweep looks at every job once; again says that some are to be looked at anew
// when their worker has been away for long enough.
func (s *Service) sweep(ctx context.Context) (again bool, err error) {
	var open []kept.Record
	if err := s.cfg.Records.Each(ctx, func(r kept.Record) bool {
		if !r.State.Final() {
			open = append(open, r)
		}
		return true
	}); err != nil {
		return false, err
	}
	if len(open) == 0 {
		clear(s.missing)
		return false, nil
	}
	now := s.now()
	started := map[string]time.Time{}
	for _, h := range s.cfg.Workers() {
		started[h.Worker] = h.Started
		delete(s.missing, h.Worker)
	}
	for _, r := range open {
		result := s.fate(r, started, now)
		if result == nil {
			if r.State == protocol.KeptQueued && r.From != "" {
				if err := s.complete(ctx, r, now); err != nil {
					return again, fmt.Errorf("move job %s: %w", r.Job, err)
				}
			}
			continue
		}
		if _, live := started[worker(r)]; !live && result.Status != http.StatusGatewayTimeout {
			since, known := s.missing[worker(r)]
			if !known {
				s.missing[worker(r)] = now
			}
			if !known || now.Sub(since) < lostAfter {
				again = true
				continue
			}
		}
		ran := r.Kind == protocol.Run && r.State == protocol.KeptRunning
		if result.Status == http.StatusServiceUnavailable {
			var moved bool
			var err error
			if r.Kind == protocol.Run {
				moved, ran, err = s.moveRun(ctx, r)
			} else {
				moved, err = s.move(ctx, r)
			}
			if err != nil {
				return true, fmt.Errorf("move job %s: %w", r.Job, err)
			}
			if moved {
				continue
			}
			if ran {
				result = lostCommand(r.Owner)
			}
		}
		if err := s.cfg.Records.FinishUnchanged(ctx, r, *result, ran); err != nil {
			return again, fmt.Errorf("end job %s: %w", r.Job, err)
		}
		s.cfg.Log.Warn("job ended that its worker will not end", "job", r.Job, "worker", worker(r), "status", result.Status)
	}
	return again, nil
}

// move queues a job that was lost with its worker, and was not begun or may begin
// again, at the worker that has its session now; false if none has.
func (s *Service) move(ctx context.Context, r kept.Record) (bool, error) {
	to, epoch, err := s.cfg.Router.Locate(ctx, r.Kind, r.Session)
	if err != nil || to == r.Owner {
		return false, nil // the session is where it was, or nowhere
	}
	body, sequence, ok, err := s.find(ctx, r)
	if err != nil || !ok {
		return false, err
	}
	begun, lost := r.State == protocol.KeptRunning, worker(r)
	if begun { // the record says it first
		r.From = r.Owner
	}
	r.State, r.Owner, r.Worker, r.Since, r.Ran = protocol.KeptQueued, to, "", time.Time{}, false
	r.Attempt++
	put := func() error {
		_, err := s.cfg.Records.Put(ctx, r)
		return err
	}
	steps := []func() error{
		func() error {
			return s.store(ctx, r, to, epoch, body)
		},
		put,
		func() error { return s.remove(ctx, sequence) },
	}
	if begun {
		// Its new message must not find it running.
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); errors.Is(err, kept.ErrChanged) {
			// Another gateway moved it, or its new message was begun already, or it
			// has ended: what is in the old queue is of no more use then.
			now, err := s.cfg.Records.Get(ctx, r.Job)
			if err == nil && (now.State.Final() || worker(now) != lost) {
				err = s.remove(ctx, sequence)
			}
			return true, err
		} else if err != nil {
			return false, err
		}
	}
	s.cfg.Log.Info("job moved with its session", "job", r.Job, "worker", lost, "now", to)
	return true, nil
}

// moveRun is move for a command that was not begun as its record says. It is taken
// out of its queue, from which its worker takes it before it begins it, and queued
// elsewhere after that: the command runs once even if what was recorded of it is
// lost. ran is true if it may have been begun.
func (s *Service) moveRun(ctx context.Context, r kept.Record) (moved, ran bool, err error) {
	body, sequence, ok, err := s.find(ctx, r)
	if err != nil || !ok {
		return false, !ok, err
	}
	to, epoch, err := s.cfg.Router.Locate(ctx, r.Kind, r.Session)
	if err != nil || to == r.Owner {
		return false, false, nil // the session is where it was, or nowhere
	}
	lost := r.Owner
	r.Owner, r.From = to, r.Owner
	r.Attempt++
	// The record says first who moves it: for a moment it is in no queue.
	if r, err = s.cfg.Records.Put(ctx, r); errors.Is(err, kept.ErrChanged) {
		return true, false, nil
	} else if err != nil {
		return false, false, err
	}
	s.cfg.Log.Info("job moved with its session", "job", r.Job, "worker", lost, "now", to)
	return true, false, s.shift(ctx, r, epoch, body, sequence)
}

// shift takes a command out of the queue where it was, and queues it at its owner.
func (s *Service) shift(ctx context.Context, r kept.Record, epoch uint64, body []byte, sequence uint64) error {
	switch taken, err := s.cfg.Dispatcher.Take(ctx, sequence); {
	case err != nil:
		return err // it is looked for again, see complete
	case !taken:
		return s.cfg.Records.FinishUnchanged(ctx, r, *lostCommand(r.From), true)
	}
	if err := s.store(ctx, r, r.Owner, epoch, body); err != nil {
		s.cfg.Log.Warn("command not queued at its session's worker", "job", r.Job, "worker", r.Owner, "error", err)
		return s.cfg.Records.FinishUnchanged(context.WithoutCancel(ctx), r, protocol.Result{
			Status: http.StatusServiceUnavailable, Body: protocol.ErrorBody("The command was not run: its worker was lost, and it could not be queued at another; ask again"),
		}, false)
	}
	return nil
}

func (s *Service) remove(ctx context.Context, sequence uint64) error {
	_, err := s.cfg.Dispatcher.Take(ctx, sequence)
	return err
}

func (s *Service) store(ctx context.Context, r kept.Record, to string, epoch uint64, body []byte) error {
	return s.cfg.Dispatcher.Store(ctx, dispatch.Job{
		Kind: r.Kind, RequestID: r.RequestID, Session: r.Session, Worker: to, Epoch: epoch, Bulk: true, Caller: r.Caller, Body: body,
	}, r.Kept, fmt.Sprint(r.Job, ".", r.Attempt))
}

// find returns the message of a job that is in the queue of a worker: its owner's,
// or that from which a gateway was moving it when it was lost.
func (s *Service) find(ctx context.Context, r kept.Record) (body []byte, sequence uint64, ok bool, err error) {
	body, sequence, ok, err = s.cfg.Dispatcher.Find(ctx, r.Owner, r.Job)
	if err == nil && !ok && r.From != "" {
		body, sequence, ok, err = s.cfg.Dispatcher.Find(ctx, r.From, r.Job)
	}
	return body, sequence, ok, err
}

// complete moves a job whose record says already that it was moved, if it wasn't.
func (s *Service) complete(ctx context.Context, r kept.Record, now time.Time) error {
	body, sequence, ok, err := s.cfg.Dispatcher.Find(ctx, r.From, r.Job)
	if err != nil {
		return err
	}
	if !ok {
		if r.Kind == protocol.Run {
			return s.missed(ctx, r, now)
		}
		return nil
	}
	to, epoch, err := s.cfg.Router.Locate(ctx, r.Kind, r.Session)
	if err != nil || to != r.Owner {
		return nil // its owner is being lost, too: then it is moved from there
	}
	if r.Kind == protocol.Run {
		return s.shift(ctx, r, epoch, body, sequence)
	}
	// What is there already is dropped by its message id, or by the record.
	if err := s.store(ctx, r, to, epoch, body); err != nil {
		return err
	}
	return s.remove(ctx, sequence)
}

// missed ends a command that is in no queue for longer than it takes to move it:
// who took it out was lost.
func (s *Service) missed(ctx context.Context, r kept.Record, now time.Time) error {
	key := "job " + r.Job
	_, _, ok, err := s.cfg.Dispatcher.Find(ctx, r.Owner, r.Job)
	if err != nil || ok {
		delete(s.missing, key)
		return err
	}
	since, known := s.missing[key]
	if !known {
		s.missing[key] = now
	}
	if !known || now.Sub(since) < moveTime {
		return nil
	}
	delete(s.missing, key)
	return s.cfg.Records.FinishUnchanged(ctx, r, *lostCommand(r.From), true)
}

// worker is the one that has, or must have, the job.
func worker(r kept.Record) string {
	if r.State == protocol.KeptRunning {
		return r.Worker
	}
	return r.Owner
}

// fate is the answer to a job that no worker will give one; nil if one will.
func (s *Service) fate(r kept.Record, started map[string]time.Time, now time.Time) *protocol.Result {
	begun, live := started[worker(r)]
	failed := func(status int, detail string) *protocol.Result {
		return &protocol.Result{Status: status, Body: protocol.ErrorBody(detail)}
	}
	switch {
	case r.State == protocol.KeptQueued && now.After(r.Deadline.Add(expireGrace)):
		return failed(http.StatusGatewayTimeout, "The job was not begun before its deadline, and is not going to be")
	case r.State == protocol.KeptRunning && now.After(r.Deadline.Add(strayAfter)):
		return failed(http.StatusGatewayTimeout, "The job was not done long after its deadline; it was given up")
	case r.State == protocol.KeptQueued && r.Owner != "" && !live:
		return failed(http.StatusServiceUnavailable, fmt.Sprintf("Worker %s, which owns the session, was lost before it began the job", r.Owner))
	case r.State != protocol.KeptRunning:
		return nil
	case r.Kind == protocol.Run && (!live || r.Since.Before(begun)):
		return lostCommand(r.Worker)
	case r.Kind == protocol.Evaluate && r.Owner != "" && !live:
		return failed(http.StatusServiceUnavailable, fmt.Sprintf("Worker %s, which owns the session, was lost while it did the job; ask again", r.Worker))
	}
	return nil
}

func lostCommand(worker string) *protocol.Result {
	return &protocol.Result{Status: http.StatusBadGateway, Body: protocol.ErrorBody(
		fmt.Sprintf("Worker %s was lost while it ran the command, which may have run in part or in full", worker))}
}
