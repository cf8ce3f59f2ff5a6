package backlog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// move is a job on its way to the bulk queue. What moves need is fetched for
// several at once; they are published in their turn, by one goroutine, which
// doesn't wait for the stream's acknowledgements.
type move struct {
	*entry
	sent    *sent
	fetched chan fetched // gets one
}

// fetched is a job's message, or why there is none to be published.
type fetched struct {
	msg     *nats.Msg
	outcome string // "" if it is to be published
	err     error
}

// fetch gets a job's message, if the job is still wanted.
func (v *view) fetch(e *entry) fetched {
	f := v.feeder
	if !e.deadline.IsZero() && f.now().After(e.deadline) {
		return fetched{outcome: expired} // its record ends by itself, see package jobs
	}
	ctx, cancel := context.WithTimeout(v.ctx, opTimeout)
	defer cancel()
	unwanted := make(chan error, 1)
	go func() { unwanted <- v.unwanted(ctx, e) }()
	msg, err := v.message(ctx, e)
	if err := <-unwanted; err != nil {
		return fetched{outcome: outcomeOf(err), err: err}
	}
	return fetched{msg: msg, outcome: outcomeOf(err), err: err}
}

var (
	errGone  = errors.New("the job is not in the backlog any more")
	errEnded = errors.New("the job has ended")
)

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errGone):
		return gone
	case errors.Is(err, errEnded):
		return ended
	}
	return failed
}

// unwanted returns errEnded for a job that was cancelled, say. A worker would drop
// it, but say nothing, and it would take up room in the bulk queue until then.
func (v *view) unwanted(ctx context.Context, e *entry) error {
	if e.deadline.IsZero() {
		return nil
	}
	r, err := v.feeder.cfg.Records.Get(ctx, e.job)
	switch {
	case errors.Is(err, kept.ErrNone):
		return errEnded
	case err != nil:
		return err
	case r.State.Final():
		return errEnded
	}
	return nil
}

// message gets a job's message as it is to be published.
func (v *view) message(ctx context.Context, e *entry) (*nats.Msg, error) {
	b := v.feeder.cfg.Bus
	raw, err := b.Backlog.GetMsg(ctx, e.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		// A replica may not have it yet; the leader has.
		var m bus.Message
		m, err = bus.At(ctx, b.NC, protocol.BacklogStream, e.sequence)
		if errors.Is(err, bus.ErrNoMessage) {
			return nil, errGone
		}
		raw = &jetstream.RawStreamMsg{Header: m.Header, Data: m.Data}
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", e.job, err)
	}
	msg := &nats.Msg{Subject: protocol.BulkQueue, Header: nats.Header{}, Data: raw.Data}
	for name, values := range raw.Header {
		if name == jetstream.MsgIDHeader || !strings.HasPrefix(name, "Nats-") { // JetStream's own: where it was
			msg.Header[name] = values
		}
	}
	return msg, nil
}

// publish publishes what was chosen, in that order, until the view is
// over.
func (v *view) publish() {
	for {
		var m *move
		select {
		case <-v.ctx.Done():
			return
		case m = <-v.chosen:
		}
		got := <-m.fetched // its fetch ends with the view
		if got.outcome != "" {
			v.moving.Go(func() { v.end(m, got.outcome, got.err) })
			continue
		}
		ack, err := v.feeder.js.PublishMsgAsync(got.msg)
		v.moving.Go(func() {
			if err == nil {
				err = v.stored(m, ack)
			}
			if err != nil {
				v.end(m, failed, err)
				return
			}
			v.end(m, moved, nil)
		})
	}
}

// stored waits until a job is in the bulk queue.
func (v *view) stored(m *move, ack jetstream.PubAckFuture) error {
	select {
	case a := <-ack.Ok():
		v.mu.Lock()
		defer v.mu.Unlock()
		m.sent.sequence, m.sent.at = a.Sequence, v.feeder.now()
		return nil
	case err := <-ack.Err():
		return fmt.Errorf("queue job %s: %w", m.job, err)
	case <-v.ctx.Done():
		return v.ctx.Err()
	}
}

// end ends a move: the job goes out of the backlog, or is tried again after the
// next look.
func (v *view) end(m *move, outcome string, err error) {
	f := v.feeder
	if v.ctx.Err() == nil {
		f.moved.WithLabelValues(outcome).Inc()
		switch {
		case bus.QueueFull(err):
			f.cfg.Log.Debug("the bulk queue is full", "job", m.job)
		case outcome == failed:
			f.cfg.Log.Warn("asynchronous job not moved to the bulk queue; trying again", "job", m.job, "error", err)
		}
	}
	v.mu.Lock()
	if outcome != moved && v.sent[m.job] == m.sent {
		delete(v.sent, m.job)
	}
	again := outcome == failed
	if outcome == gone && !m.missed {
		// A server that was frozen or cut off may have said so.
		m.missed, again = true, true
	}
	if again {
		v.failed = append(v.failed, m.entry)
	}
	if outcome == failed {
		v.stopped = v.stopped || !errors.Is(err, nats.ErrMaxPayload) // that is the job's own fault
	}
	v.mu.Unlock()
	if outcome != failed && outcome != gone {
		f.cfg.Meter.Tick(f.now())
		v.remove(m)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !again {
		v.count(m.entry, -1)
	}
	v.moves--
	v.bytes -= m.bytes
	v.advance()
}

// remove takes a job out of the backlog. What is left is moved again by the next
// view, and dropped as a second message of the job.
func (v *view) remove(m *move) {
	ctx, cancel := context.WithTimeout(v.ctx, opTimeout)
	defer cancel()
	err := v.feeder.cfg.Bus.Backlog.DeleteMsg(ctx, m.sequence)
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) || errors.Is(err, context.Canceled) {
		return
	}
	v.feeder.cfg.Log.Warn("job left in the backlog", "job", m.job, "error", err)
}
