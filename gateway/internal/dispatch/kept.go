package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// storeTimeout bounds the queueing of one kept job.
	storeTimeout = 10 * time.Second
	// storeTries is how often its publication is tried; JetStream drops the
	// second of two that both arrived, by their message id.
	storeTries = 3
	// findTimeout bounds the search through one queue.
	findTimeout = 30 * time.Second
)

// ErrUnknown is in the chain of Store's error if the job may be queued all the same.
var ErrUnknown = errors.New("whether the job is queued is not known")

// Store queues a kept job, whose answer goes into its record; one for the bulk
// queue waits in the backlog for its caller's turn, see package backlog. The same
// message id is queued once within JetStream's window for duplicates. Errors are
// of package fault.
func (d *Dispatcher) Store(ctx context.Context, job Job, record protocol.Kept, messageID string) error {
	wire := protocol.Job{
		ID: record.Job, Kind: job.Kind, RequestID: job.RequestID, Session: job.Session, Epoch: job.Epoch, Kept: true,
		Reply: protocol.SettledSubject(record.Job), Enqueued: time.Now(), Deadline: record.Deadline,
	}
	queue, refused := job.Queue(), d.refused
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if queue == protocol.BulkQueue {
		queue = protocol.BacklogSubject(job.Caller)
		if err := d.share(ctx, &job, record.Job); err != nil {
			d.Ended(job.Kind, err)
			return err
		}
		refused = func(job *Job, err error) error { return d.lineFull(ctx, job, err) }
	}
	var err error
	for try := range storeTries {
		if try > 0 && !pause(ctx, leaderWait) {
			break
		}
		msg := &nats.Msg{Subject: queue, Header: nats.Header(wire.Header()), Data: job.Body}
		_, err = d.js.PublishMsg(ctx, msg, jetstream.WithMsgID(messageID), jetstream.WithRetryAttempts(leaderRetries))
		if err == nil {
			d.metrics.published.WithLabelValues(string(job.Kind)).Inc()
			return nil
		}
		if bus.QueueFull(err) {
			err = refused(&job, err)
			d.Ended(job.Kind, err)
			return err
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			return d.refused(&job, err)
		}
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		return d.refused(&job, err)
	}
	return fault.Unavailable("Whether the job was queued is not known; ask for it again in a moment", errors.Join(ErrUnknown, err))
}

// Cancel tells the worker that has a job, if one has, that nobody wants it.
func (d *Dispatcher) Cancel(job string) error {
	return d.cfg.NC.Publish(protocol.CancelSubject(job), nil)
}

// Find returns the body of a kept job that is in the queue of a worker, and its
// place in the stream; false if it isn't there.
func (d *Dispatcher) Find(ctx context.Context, worker, job string) (body []byte, sequence uint64, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	for next := uint64(1); ; {
		m, err := bus.Next(ctx, d.cfg.NC, protocol.JobsStream, protocol.WorkerQueue(worker), next)
		switch {
		case errors.Is(err, bus.ErrNoMessage):
			return nil, 0, false, nil
		case err != nil:
			return nil, 0, false, fmt.Errorf("look for job %s in the queue of worker %s: %w", job, worker, err)
		case m.Header.Get(protocol.HeaderJob) == job:
			return m.Data, m.Sequence, true, nil
		}
		next = m.Sequence + 1
	}
}

// Take takes a message out of the stream, and reports whether it was there still:
// then no worker has begun a command, nor will.
func (d *Dispatcher) Take(ctx context.Context, sequence uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := d.cfg.Jobs.DeleteMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return false, nil
	}
	return err == nil, err
}
