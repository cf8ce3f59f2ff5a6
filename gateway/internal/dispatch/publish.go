package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

func (d *Dispatcher) publish(ctx context.Context, p *pending, job *Job, now time.Time) (protocol.Result, error) {
	deadline, _ := ctx.Deadline()
	wire := protocol.Job{
		ID: p.id, Kind: job.Kind, RequestID: job.RequestID, Session: job.Session, Epoch: job.Epoch,
		Reply: protocol.ReplySubject(d.cfg.Gateway, p.id), Enqueued: now, Deadline: deadline,
	}
	msg := &nats.Msg{Subject: p.queue, Header: nats.Header(wire.Header()), Data: job.Body}
	if job.Kind == protocol.Run {
		// The stream takes an id once, so the message can be sent again when
		// nobody knows whether it arrived.
		msg.Header.Set(jetstream.MsgIDHeader, p.id)
	}
	tries, doubt := leaderRetries, error(nil)
	for attempt := 0; ; attempt++ {
		// Without retries of its own the client is done with the body as soon
		// as this returns, and the body's memory can be used again.
		ack, err := d.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
		if err == nil {
			if attempt == 0 {
				d.metrics.published.WithLabelValues(string(job.Kind)).Inc()
			}
			var result protocol.Result
			result, err = d.await(ctx, p, ack)
			if errors.Is(err, errQueueAnew) {
				d.cfg.Log.Warn("job queued anew, since its deliveries were lost", "job", p.id, "request_id", job.RequestID)
				attempt--
				continue
			}
			if !again(p.kind, err) {
				return result, d.explain(job, err)
			}
			if inDoubt(err) {
				tries, doubt = doubtRetries, err
			}
		} else if doubt == nil {
			tries = 0 // there is no connection
		}
		if attempt >= tries || !pause(ctx, leaderWait) {
			if d.take(p.id) == nil {
				a := <-p.answer
				return a.result, a.err
			}
			if doubt != nil {
				err = doubt
			}
			return protocol.Result{}, d.refused(job, err)
		}
	}
}

// inDoubt reports whether a message went out, and nobody knows whether it was
// stored.
func inDoubt(err error) bool {
	return errors.Is(err, nats.ErrDisconnected) || errors.Is(err, jetstream.ErrAsyncPublishTimeout)
}

// again reports whether a job whose publication failed is to be published again:
// nothing was stored, or the stream knows the job if it was.
func again(kind protocol.Kind, err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || kind == protocol.Run && inDoubt(err)
}

// await waits for the answer to a published job. An error of the publication
// is returned as it is.
func (d *Dispatcher) await(ctx context.Context, p *pending, ack jetstream.PubAckFuture) (protocol.Result, error) {
	acked, refused := ack.Ok(), ack.Err()
	for {
		select {
		case a := <-p.answer:
			if a.abandon && !d.abandon(p, ack) && a.otherwise != nil {
				return a.result, a.otherwise
			}
			return a.result, a.err
		case <-p.anew:
			return protocol.Result{}, errQueueAnew
		case a := <-acked:
			p.at(a.Sequence)
			acked, refused = nil, nil
		case err := <-refused:
			if again(p.kind, err) {
				return protocol.Result{}, err
			}
			if d.take(p.id) == nil {
				a := <-p.answer // the ack was lost, the result was not
				return a.result, a.err
			}
			return protocol.Result{}, err
		case <-ctx.Done():
			if d.take(p.id) == nil {
				a := <-p.answer // the result was quicker
				return a.result, a.err
			}
			d.abandon(p, ack)
			return protocol.Result{}, context.Cause(ctx)
		}
	}
}

// abandon takes a job back that nobody waits for: out of the queue, so that no
// worker gets it (again), and from the worker that has it. True means that it
// was in the queue: nobody has begun a run that was, and nobody will.
func (d *Dispatcher) abandon(p *pending, ack jetstream.PubAckFuture) (taken bool) {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	if p.sequence.Load() == 0 {
		select {
		case a := <-ack.Ok():
			p.at(a.Sequence)
		case <-ack.Err():
		case <-ctx.Done():
		}
	}
	if seq := p.sequence.Load(); seq != 0 {
		err := d.cfg.Jobs.DeleteMsg(ctx, seq)
		if taken = err == nil; !taken { // or it is done already
			d.cfg.Log.Debug("job not taken back from the queue", "job", p.id, "error", err)
		}
	}
	if err := d.cfg.NC.Publish(protocol.CancelSubject(p.id), nil); err != nil {
		d.cfg.Log.Warn("job not cancelled", "job", p.id, "error", err)
	}
	return taken
}

// pause waits, or returns false when ctx ends first.
func pause(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
