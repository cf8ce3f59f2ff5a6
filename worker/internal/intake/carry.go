package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// run carries a job out, in a goroutine of its own.
func (in *Intake) run(ctx context.Context, f *flight) {
	defer func() {
		f.cancel(nil)
		in.cfg.Idle(f.slot)
		in.done <- f
	}()
	log := in.cfg.Log.With("job", f.job.ID, "request", f.job.RequestID, "kind", f.job.Kind, "session", f.job.Session)
	if f.job.Kept {
		if !in.begin(ctx, f, log) {
			return
		}
	} else if f.job.Kind == protocol.Run {
		// At most once: it is off the queue, for certain, before it begins.
		if err := in.claim(f); err != nil {
			log.Warn("run job not begun", "error", err)
			if errors.Is(err, errTakenBack) {
				in.reply(f.job, protocol.Result{Status: 503, Body: protocol.ErrorBody("The command was taken back before it began; it was not run")})
			}
			return
		}
		f.acked = true
	}
	if f.redelivered && !f.job.Kept && f.job.Kind == protocol.Evaluate {
		in.tell(f.job, protocol.News{Tries: 1})
	}
	begun := time.Now()
	result, err := in.handle(ctx, f)
	took := time.Since(begun)
	in.cfg.Metrics.seconds.WithLabelValues(string(f.job.Kind)).Observe(took.Seconds())
	switch cause := context.Cause(ctx); {
	case err == nil && f.job.Kept:
		in.finish(ctx, f, result, true, log)
	case err == nil:
		in.reply(f.job, result)
		in.ack(f, log)
		in.cfg.Metrics.ended(f.job.Kind, "answered")
		log.Debug("job done", "status", result.Status, "took", took)
	case errors.Is(cause, errCancelled):
		in.term(f, log)
		in.cfg.Metrics.ended(f.job.Kind, "cancelled")
		log.Info("job cancelled", "took", took)
	case f.acked:
		answer := in.cutShort(cause)
		if f.job.Kept {
			in.finish(ctx, f, answer, true, log)
		} else {
			in.reply(f.job, answer)
		}
		in.cfg.Metrics.ended(f.job.Kind, "failed")
		log.Log(ctx, level(cause), "run job failed", "error", err, "cause", cause)
	default:
		// Another worker may do better; after MaxDeliver tries the gateway says so.
		if errors.Is(cause, errStopping) {
			in.noTry(f, log)
		}
		if err := f.msg.Nak(); err != nil {
			log.Warn("hand back job", "error", err)
		}
		in.cfg.Metrics.ended(f.job.Kind, "handed_back")
		log.Warn("job handed back", "error", err, "cause", cause)
	}
}

// tell tells a job's gateway news of it.
func (in *Intake) tell(job protocol.Job, news protocol.News) *nats.Msg {
	m := &nats.Msg{Subject: job.Reply, Header: news.Header(job.ID)}
	if err := in.bus.NC.PublishMsg(m); err != nil {
		in.cfg.Log.Warn("tell news of a job", "job", job.ID, "news", news, "error", err)
	}
	return m
}

// noTry says that a job was begun here and is given back because the worker
// stops: rolling restarts must not use up what a job has of tries.
func (in *Intake) noTry(f *flight, log *slog.Logger) {
	if !f.job.Kept {
		in.tell(f.job, protocol.News{Tries: -1})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	if err := in.cfg.Keeper.GiveBack(ctx, f.record); err != nil {
		log.Warn("kept job given back counts as a try", "error", err)
	}
}

// handle calls the handler and turns a panic of ours into an error: a fault in
// one job must not end the others.
func (in *Intake) handle(ctx context.Context, f *flight) (r protocol.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			in.cfg.Log.Error("panic in job", "job", f.job.ID, "panic", p)
			err = fmt.Errorf("internal error")
		}
	}()
	return in.cfg.Handle(ctx, f.slot, f.job)
}

// cutShort is the answer of a command that began and did not end by itself.
func (in *Intake) cutShort(cause error) protocol.Result {
	if errors.Is(cause, errStopping) {
		return protocol.Result{Status: 502, Body: protocol.ErrorBody("Worker " + in.cfg.Worker + " was stopped while it ran the command, which may have run in part")}
	}
	return protocol.Result{Status: 500, Body: protocol.ErrorBody("The worker failed while it ran the command, which may have run in part: an internal error; its log has the details")}
}

// level is how serious it is that a command was cut short.
func level(cause error) slog.Level {
	if errors.Is(cause, errStopping) {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// reply publishes a result to the caller's gateway, before the ack: a result
// that was not sent is worth a second delivery, one sent twice is harmless.
func (in *Intake) reply(job protocol.Job, r protocol.Result) {
	r = in.bounded(r)
	r.Job, r.Worker = job.ID, in.cfg.Worker
	m := &nats.Msg{Subject: job.Reply, Header: r.Header(), Data: r.Body}
	in.sent.add(m, time.Now())
	if err := in.bus.NC.PublishMsg(m); err != nil {
		in.cfg.Log.Error("publish result", "job", job.ID, "request", job.RequestID, "bytes", len(r.Body), "error", err)
	}
}

// bounded returns a result that the queue carries.
func (in *Intake) bounded(r protocol.Result) protocol.Result {
	if most := int(in.bus.NC.MaxPayload()) - protocol.MessageOverheadBytes; len(r.Body) > most {
		r.Status, r.Body = 500, protocol.ErrorBody(fmt.Sprintf("the answer is %d bytes long, the queue carries %d", len(r.Body), most))
	}
	return r
}

func (in *Intake) ack(f *flight, log *slog.Logger) {
	if f.acked {
		return
	}
	if err := f.msg.Ack(); err != nil {
		log.Warn("ack job", "error", err)
	}
}

func (in *Intake) term(f *flight, log *slog.Logger) {
	if f.acked {
		return
	}
	if err := f.msg.Term(); err != nil {
		log.Warn("term job", "error", err)
	}
}
