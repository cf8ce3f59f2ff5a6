package kept

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ErrUnwanted is returned by Begin for a job that must not be begun: it has
// ended, was cancelled or forgotten, or is a command that may have run already.
var ErrUnwanted = errors.New("job is not to be begun")

// maxRaces is how often a change is tried when others change the record
// meanwhile. A job changes a handful of times in its life.
const maxRaces = 10

// Begin marks a job as running on a worker. An evaluate begins again if its
// message was delivered again, since an earlier delivery was lost; a command
// begins once. A message that is a second one of the same job begins nothing.
func (s *Store) Begin(ctx context.Context, job protocol.Job, worker string, redelivered bool) (Record, error) {
	return s.change(ctx, job.ID, func(r *Record) error {
		switch {
		case r.State.Final():
			return ErrUnwanted
		case r.State == protocol.KeptRunning && (job.Kind == protocol.Run || !redelivered):
			return ErrUnwanted
		}
		r.State, r.Worker, r.Since, r.Ran = protocol.KeptRunning, worker, time.Now().UTC(), true
		r.Tries++
		return nil
	})
}

// GiveBack says that a worker that began a job, as r tells, did not finish it
// because it stops: that was no try, and it is queued again. If others changed the record meanwhile
// nothing happens.
func (s *Store) GiveBack(ctx context.Context, r Record) error {
	r.Tries--
	r.queued()
	if _, err := s.Put(ctx, r); err != nil && !errors.Is(err, ErrChanged) {
		return err
	}
	return nil
}

// queued says that nobody runs the job.
func (r *Record) queued() {
	r.State, r.Worker, r.Since, r.Ran = protocol.KeptQueued, "", time.Time{}, false
}

// Requeue makes a job queued whose deliveries are used up, so that it can begin
// in another message; false if it is to be given up, since it has ended or workers
// began it protocol.MaxDeliver times. What was lost on the way to a worker, or with
// one that could not write the record, was no try.
func (s *Store) Requeue(ctx context.Context, job string) (bool, error) {
	_, err := s.change(ctx, job, func(r *Record) error {
		tries := r.Tries
		if tries == 0 && r.State == protocol.KeptRunning {
			tries = protocol.MaxDeliver // its worker doesn't count
		}
		if r.State.Final() || r.State == protocol.KeptRunning && r.Kind == protocol.Run || tries >= protocol.MaxDeliver {
			return ErrUnwanted
		}
		r.queued()
		return nil
	})
	if errors.Is(err, ErrUnwanted) || errors.Is(err, ErrNone) {
		return false, nil
	}
	return err == nil, err
}

// Finish gives a job its answer, unless it has ended already: the first answer
// counts. r is what Begin returned, or only a Job if the record is to be read.
func (s *Store) Finish(ctx context.Context, r Record, result protocol.Result, ran bool) error {
	end := func(r *Record) error {
		if r.State.Final() {
			return ErrUnwanted
		}
		r.State, r.Finished, r.Status, r.Body, r.Ran = protocol.KeptDone, time.Now().UTC(), result.Status, result.Body, ran
		return nil
	}
	if r.Revision != 0 {
		if end(&r) != nil {
			return nil
		}
		err := s.end(ctx, r)
		if !errors.Is(err, ErrChanged) {
			return err
		}
	}
	_, err := s.change(ctx, r.Job, end)
	if errors.Is(err, ErrUnwanted) || errors.Is(err, ErrNone) {
		return nil
	}
	return err
}

// FinishUnchanged is Finish for a job that is still as r says; otherwise nothing
// happens: whoever changed it knows better.
func (s *Store) FinishUnchanged(ctx context.Context, r Record, result protocol.Result, ran bool) error {
	if r.State.Final() {
		return nil
	}
	r.State, r.Finished, r.Status, r.Body, r.Ran = protocol.KeptDone, time.Now().UTC(), result.Status, result.Body, ran
	if err := s.end(ctx, r); err != nil && !errors.Is(err, ErrChanged) {
		return err
	}
	return nil
}

// Cancel ends a job that nobody wants any more. A job that has ended is
// ErrUnwanted, and is returned. Who runs it must be told besides.
func (s *Store) Cancel(ctx context.Context, job string) (Record, error) {
	return s.change(ctx, job, func(r *Record) error {
		if r.State.Final() {
			return ErrUnwanted
		}
		r.State, r.Finished = protocol.KeptCancelled, time.Now().UTC()
		return nil
	})
}

// Expire answers a job that was not begun before its deadline with a 504; others
// are ErrUnwanted.
func (s *Store) Expire(ctx context.Context, job string, now time.Time) (Record, error) {
	return s.change(ctx, job, func(r *Record) error {
		if r.State != protocol.KeptQueued || now.Before(r.Deadline) {
			return ErrUnwanted
		}
		r.State, r.Finished, r.Status, r.Ran = protocol.KeptDone, now.UTC(), http.StatusGatewayTimeout, false
		r.Body = protocol.ErrorBody("The job was not begun before its deadline, and is not going to be")
		return nil
	})
}

// change reads a record, lets to change it, and writes it, again if others were
// quicker. On an error of to the record as it is is returned with it.
func (s *Store) change(ctx context.Context, job string, to func(*Record) error) (Record, error) {
	for range maxRaces {
		r, err := s.Get(ctx, job)
		if err != nil {
			return r, err
		}
		before := r
		if err := to(&r); err != nil {
			return before, err
		}
		if r.State.Final() {
			err = s.end(ctx, r)
		} else {
			r, err = s.Put(ctx, r)
		}
		if !errors.Is(err, ErrChanged) {
			return r, err
		}
	}
	return Record{}, fmt.Errorf("write record of job %s: %w, %d times in a row", job, ErrChanged, maxRaces)
}

// end writes a final record and says so. The webhook is queued before: who
// delivers it waits for the record, and a webhook can't be forgotten in between.
func (s *Store) end(ctx context.Context, r Record) error {
	if r.Webhook != "" {
		hook := &nats.Msg{Subject: protocol.HookSubject(r.Job)}
		if _, err := s.js.PublishMsg(ctx, hook, jetstream.WithMsgID(fmt.Sprint(r.Job, ".", r.Attempt))); err != nil {
			return fmt.Errorf("queue webhook of job %s: %w", r.Job, err)
		}
	}
	if _, err := s.Put(ctx, r); err != nil {
		return err
	}
	_ = s.nc.Publish(protocol.SettledSubject(r.Job), nil) // only a hint: who waits also looks now and then
	return nil
}
