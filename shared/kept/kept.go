// Package kept reads and writes the records of kept jobs: asynchronous ones and
// those with an idempotency key. Gateways make and cancel them, workers begin
// and finish them, all by compare-and-set on the record, so that each of these
// happens once, whatever is delivered twice and whoever dies in between.
package kept

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// opTimeout bounds one read or write of a record.
const opTimeout = 5 * time.Second

// ErrNone is returned for a job without a record: unknown, or forgotten after
// its retention.
var ErrNone = errors.New("no record of the job")

// ErrChanged is returned when a record is no longer the one given: somebody else
// wrote it in between, and nothing was changed.
var ErrChanged = errors.New("record of the job has changed")

// Record is a record and where it was found.
type Record struct {
	protocol.Kept
	// Revision is its sequence in the stream, for compare-and-set.
	Revision uint64
}

// Store reads and writes records. Its methods may be called from any goroutine.
type Store struct {
	bus *bus.Bus
	nc  *nats.Conn
	js  jetstream.JetStream
}

// New returns a store over the stream of b.
func New(b *bus.Bus) *Store { return &Store{bus: b, nc: b.NC, js: b.JS} }

// Create writes the record of a new job, or returns ErrChanged if it has one.
func (s *Store) Create(ctx context.Context, k protocol.Kept) (Record, error) {
	return s.Put(ctx, Record{Kept: k})
}

// Put writes a record in place of the one that r was made from, and returns what
// is there now.
func (s *Store) Put(ctx context.Context, r Record) (Record, error) {
	header, err := r.Header()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: protocol.KeptSubject(r.Job), Header: header, Data: r.Body}
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(r.Revision))
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return r, ErrChanged
	case err != nil:
		return r, fmt.Errorf("write record of job %s: %w", r.Job, err)
	}
	r.Revision = ack.Sequence
	return r, nil
}

// Get returns a job's record, or ErrNone.
func (s *Store) Get(ctx context.Context, job string) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	// On what is said here depends whether a job is ever done.
	m, err := s.bus.LastConfirmed(ctx, protocol.KeptStream, bus.KeptMarker, protocol.KeptSubject(job), mayChange)
	switch {
	case errors.Is(err, bus.ErrNoMessage):
		return Record{}, ErrNone
	case err != nil:
		return Record{}, fmt.Errorf("read record of job %s: %w", job, err)
	}
	return parse(m)
}

// mayChange reports whether a record looks final and needn't be: a job that ended
// without being begun is queued again under its key.
func mayChange(m bus.Message) bool {
	r, err := parse(m)
	return err == nil && r.State == protocol.KeptDone && !r.Ran
}

func parse(m bus.Message) (Record, error) {
	k, err := protocol.ParseKept(m.Header, m.Data)
	return Record{Kept: k, Revision: m.Sequence}, err
}

// listWait is how long a list waits for the next record before it asks whether
// there is one, and listWaits how often it does so before it gives up.
const (
	listWait  = 2 * time.Second
	listWaits = 5
)

// listIdle is after how long the server forgets a list that nobody reads on.
const listIdle = 10 * time.Second

// Each calls yield with every record, without its answer, the one that changed
// longest ago first, until yield returns false.
func (s *Store) Each(ctx context.Context, yield func(Record) bool) error {
	info, err := s.bus.Kept.Info(ctx)
	if err != nil {
		return fmt.Errorf("list records of jobs: %w", err)
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := s.js.OrderedConsumer(ctx, protocol.KeptStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true, InactiveThreshold: listIdle,
	})
	if err != nil {
		return fmt.Errorf("list records of jobs: %w", err)
	}
	left := consumer.CachedInfo().NumPending
	if left == 0 {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1024), jetstream.PullHeartbeat(listWait))
	if err != nil {
		return fmt.Errorf("list records of jobs: %w", err)
	}
	defer messages.Stop()
	last, waits := uint64(0), 0 // the sequence that has come, and how often none did since
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(listWait))
		if errors.Is(err, nats.ErrTimeout) {
			if all, err := delivered(ctx, consumer, last); all {
				return nil // the rest changed meanwhile, and comes under a later sequence
			} else if waits++; waits == listWaits {
				return errors.Join(fmt.Errorf("list records of jobs: none came for %v", listWaits*listWait), err)
			}
			continue // the server is busy, or this process was
		}
		if err != nil {
			return fmt.Errorf("list records of jobs: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("list records of jobs: %w", err)
		}
		last, waits = meta.Sequence.Stream, 0
		k, err := protocol.ParseKept(msg.Headers(), nil)
		if err == nil && !yield(Record{Kept: k, Revision: meta.Sequence.Stream}) {
			return nil
		}
		if meta.NumPending == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// delivered reports whether the server has delivered all that a list is to have,
// the last of it with this sequence.
func delivered(ctx context.Context, c jetstream.Consumer, last uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	info, err := c.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("look at the list: %w", err)
	}
	return info.NumPending == 0 && info.Delivered.Stream <= last, nil
}
