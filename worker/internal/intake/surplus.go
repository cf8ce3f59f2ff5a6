package intake

import (
	"context"
	"maps"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// due is when a waiting job is handed back; never, if only this worker may run it.
func (f *flight) due() (at time.Time, ever bool) {
	switch f.class {
	case shared:
		return f.since.Add(surplusWait), true
	case bulk:
		return f.since.Add(bulkWait), true
	}
	return time.Time{}, false
}

// nextHandBack is when the next waiting job is to be handed back; zero for never.
func (in *Intake) nextHandBack() (next time.Time) {
	for _, f := range in.waiting {
		if at, ever := f.due(); ever && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// handBack puts jobs of the shared queues that waited too long here at the ends
// of these, as new messages: a delivery that was no try must not count as one.
func (in *Intake) handBack(now time.Time) {
	still := in.waiting[:0]
	for _, f := range in.waiting {
		if at, ever := f.due(); !ever || now.Before(at) {
			still = append(still, f)
			continue
		}
		if f.job.Kept && f.redelivered {
			// A new message would look like a second one of a job that runs.
			f.msg.Nak()
			in.cfg.Metrics.ended(f.job.Kind, "surplus")
			delete(in.flights, f.job.ID)
			continue
		}
		again := &nats.Msg{Subject: protocol.EvaluateQueue, Header: maps.Clone(f.msg.Header), Data: f.msg.Data}
		if f.class == bulk {
			again.Subject = protocol.BulkQueue
		}
		again.Header.Del(nats.MsgIdHdr) // else it would be taken for a duplicate
		ctx, cancel := context.WithTimeout(context.Background(), handBackTimeout)
		ack, err := in.bus.JS.PublishMsg(ctx, again)
		cancel()
		if err != nil {
			in.cfg.Log.Warn("hand back surplus job", "job", f.job.ID, "error", err)
			f.msg.Nak()
		} else {
			f.msg.Ack()
			if !f.job.Kept {
				// Its gateway looks for it in the queue; the news is sent again when asked for.
				in.sent.add(in.tell(f.job, protocol.News{Sequence: ack.Sequence}), now)
			}
		}
		in.cfg.Metrics.ended(f.job.Kind, "surplus")
		delete(in.flights, f.job.ID)
	}
	in.waiting = still
}
