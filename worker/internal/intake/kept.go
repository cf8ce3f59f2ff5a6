package intake

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// begin marks a kept job as running here; false means that it must not run, or
// can't now, and was dealt with.
func (in *Intake) begin(ctx context.Context, f *flight, log *slog.Logger) bool {
	r, err := in.cfg.Keeper.Begin(ctx, f.job, in.cfg.Worker, f.redelivered)
	switch {
	case errors.Is(err, kept.ErrUnwanted) && r.State == protocol.KeptRunning && r.Worker == in.cfg.Worker:
		// A command that an earlier process of this worker began, and died of.
		f.record = r
		in.finish(ctx, f, protocol.Result{Status: 502, Body: protocol.ErrorBody("Worker " + in.cfg.Worker +
			" was lost while it ran the command, which may have run in part or in full")}, true, log)
		return false
	case errors.Is(err, kept.ErrUnwanted), errors.Is(err, kept.ErrNone):
		in.term(f, log)
		in.cfg.Metrics.ended(f.job.Kind, "unwanted")
		return false
	case err != nil:
		log.Warn("kept job not begun", "error", err)
		if err := f.msg.NakWithDelay(beginPause); err != nil {
			log.Warn("hand back job", "error", err)
		}
		in.cfg.Metrics.ended(f.job.Kind, "handed_back")
		return false
	}
	f.record = r
	if f.job.Kind == protocol.Run {
		// The record says that it has begun, so that no second delivery runs it. And
		// it is off the queue, so that nobody moves it who doesn't know the record as
		// it is: two streams would have to forget what they acknowledged.
		if err := in.claim(f); err != nil {
			log.Warn("kept run job not begun", "error", err)
			in.finish(ctx, f, protocol.Result{Status: 503, Body: protocol.ErrorBody("The command was taken back before it began; it was not run")}, false, log)
			return false
		}
		f.acked = true
	}
	return true
}

// finish writes a kept job's answer into its record and acknowledges the job.
// While the record can't be written the job is kept by its beats; in the end it
// goes back to the queue, if it may run again.
func (in *Intake) finish(ctx context.Context, f *flight, result protocol.Result, ran bool, log *slog.Logger) {
	result = in.bounded(result)
	if result.Status == protocol.StatusMisdirected {
		result, ran = protocol.Result{Status: 503, Body: protocol.ErrorBody("The session is moving to another worker; ask again")}, false
	}
	begun := time.Now()
	for {
		// What was done is to be told even if the worker is stopping.
		err := in.cfg.Keeper.Finish(context.WithoutCancel(ctx), f.record, result, ran)
		if err == nil {
			in.ack(f, log)
			in.cfg.Metrics.ended(f.job.Kind, "answered")
			log.Debug("kept job done", "status", result.Status)
			return
		}
		log.Warn("answer of a kept job not written", "error", err)
		took := time.Since(begun) + finishPause
		if took > finishWait || ctx.Err() != nil && (f.job.Kind == protocol.Evaluate || took > finishLast) {
			break
		}
		time.Sleep(finishPause)
	}
	if !f.acked {
		if err := f.msg.Nak(); err != nil {
			log.Warn("hand back job", "error", err)
		}
	}
	in.cfg.Metrics.ended(f.job.Kind, "failed")
}
