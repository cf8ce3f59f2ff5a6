package intake

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// flight is one delivered job until it is acknowledged.
type flight struct {
	msg    *nats.Msg
	job    protocol.Job
	class  class
	record kept.Record // of a kept job, once it runs
	// redelivered says that an earlier delivery was lost or handed back.
	redelivered bool
	since       time.Time
	slot        int
	cancel      context.CancelCauseFunc // nil while it waits
	acked       bool
}

// accept takes in a delivered job.
func (in *Intake) accept(ctx context.Context, m *nats.Msg, c class) {
	job, err := protocol.ParseJob(m.Header, m.Data)
	log := in.cfg.Log.With("job", job.ID, "request", job.RequestID, "kind", job.Kind)
	now := time.Now()
	switch {
	case err != nil:
		log.Error("malformed job", "error", err)
		if job.Reply != "" {
			in.reply(job, protocol.Result{Status: 500, Body: protocol.ErrorBody("the fleet's processes don't speak the same version: " + err.Error())})
		}
		m.Term()
		return
	case in.draining:
		m.Nak()
		return
	case now.After(job.Deadline):
		log.Info("job past its deadline dropped", "deadline", job.Deadline)
		in.cfg.Metrics.ended(job.Kind, "expired")
		m.Term()
		return
	case in.flights[job.ID] != nil:
		if again := in.flights[job.ID]; job.Kept && sequence(again.msg) != sequence(m) {
			m.Term() // a second message of the same job
		}
		return // delivered again although it is here: its beats were late
	}
	meta, err := m.Metadata()
	redelivered := err == nil && meta.NumDelivered > 1
	if redelivered {
		in.cfg.Metrics.again.WithLabelValues(string(job.Kind)).Inc()
	}
	if _, gone := in.cancelled[job.ID]; gone {
		delete(in.cancelled, job.ID)
		in.cfg.Metrics.ended(job.Kind, "cancelled")
		m.Term()
		return
	}
	f := &flight{msg: m, job: job, class: c, redelivered: redelivered, since: now, slot: -1}
	in.flights[job.ID] = f
	if len(in.free) == 0 {
		in.waiting = append(in.waiting, f)
		in.recall()
		return
	}
	in.start(ctx, f)
}

// sequence is a message's in the stream.
func sequence(m *nats.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}

// start gives a job a slot.
func (in *Intake) start(ctx context.Context, f *flight) {
	last := len(in.free) - 1
	f.slot, in.free = in.free[last], in.free[:last]
	ctx, f.cancel = context.WithCancelCause(ctx)
	in.cfg.Metrics.busy.Inc()
	in.busy.Add(1)
	in.cfg.Metrics.wait.WithLabelValues(string(f.job.Kind)).Observe(time.Since(f.job.Enqueued).Seconds())
	go in.run(ctx, f)
}

// finished takes a slot back.
func (in *Intake) finished(ctx context.Context, f *flight) {
	delete(in.flights, f.job.ID)
	in.freed(ctx, f.slot)
}

// freed gives a slot to the job that waits longest of the first class there is.
func (in *Intake) freed(ctx context.Context, slot int) {
	in.free = append(in.free, slot)
	in.cfg.Metrics.busy.Dec()
	in.busy.Add(-1)
	if len(in.waiting) == 0 {
		return
	}
	at := 0
	for i, w := range in.waiting {
		if w.class < in.waiting[at].class {
			at = i
		}
	}
	next := in.waiting[at]
	in.waiting = append(in.waiting[:at], in.waiting[at+1:]...)
	in.start(ctx, next)
}

// cancelJob ends a job that nobody waits for.
func (in *Intake) cancelJob(id string) {
	f := in.flights[id]
	switch {
	case f == nil:
		if len(in.cancelled) < maxCancelled {
			in.cancelled[id] = time.Now().Add(cancelMemory)
		}
	case f.cancel != nil:
		f.cancel(errCancelled)
	default:
		for i, w := range in.waiting {
			if w == f {
				in.waiting = append(in.waiting[:i], in.waiting[i+1:]...)
				break
			}
		}
		delete(in.flights, id)
		f.msg.Term()
		in.cfg.Metrics.ended(f.job.Kind, "cancelled")
	}
}
