package durable

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Sighting is a worker's entry in the bucket of heartbeats as it was found.
type Sighting struct {
	// Revision is the entry's; 0: there is none.
	Revision uint64
	// Written is when NATS stored it.
	Written time.Time
	// Left says that it is the deletion with which the worker said goodbye.
	Left bool
}

// Same reports whether two sightings are of one entry, or both of none.
func (s Sighting) Same(t Sighting) bool {
	return s.Revision == t.Revision && s.Written.Equal(t.Written)
}

// Sight reads a worker's entry from the bucket's leader.
func (s *Store) Sight(ctx context.Context, worker string) (Sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	m, err := bus.Last(ctx, s.Bus.NC, bus.KeyStream(protocol.WorkersBucket), heartbeatSubject(worker))
	if errors.Is(err, bus.ErrNoMessage) {
		return Sighting{}, nil
	}
	if err != nil {
		return Sighting{}, fmt.Errorf("read heartbeat of worker %s: %w", worker, err)
	}
	return Sighting{Revision: m.Sequence, Written: m.Time, Left: m.Deleted()}, nil
}

func heartbeatSubject(worker string) string { return bus.KeySubject(protocol.WorkersBucket, worker) }

// Unchanged reports whether what Sight found of a worker is still so, as most of
// the bucket's servers know: the leader that was asked may have been stopped, and
// not know that there is another. False may also mean that somebody else asks, or
// writes, at this moment.
func (s *Store) Unchanged(ctx context.Context, worker string, found Sighting) (bool, error) {
	if !s.Bus.Confirms() {
		return true, nil
	}
	return s.Bus.Confirm(ctx, bus.WorkersMarker, heartbeatSubject(worker), found.Revision)
}

// AskRelease asks a worker to let go of a session. It returns nil if the worker
// has done so, an error at once if NATS knows of no such worker, and one after
// patience if there is no answer.
func (s *Store) AskRelease(ctx context.Context, worker string, r protocol.Release, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode release of session %s: %w", r.Session, err)
	}
	reply, err := s.Bus.NC.RequestWithContext(ctx, protocol.ReleaseSubject(worker), body)
	if err == nil && !bytes.Equal(reply.Data, body) {
		err = fmt.Errorf("answer %.200q", reply.Data)
	}
	if err != nil {
		return fmt.Errorf("ask worker %s to let go of session %s: %w", worker, r.Session, err)
	}
	return nil
}

// Beat writes this worker's heartbeat. follows says that it follows last, this
// worker's heartbeat before: then the bucket has lost nothing in between.
func (s *Store) Beat(ctx context.Context, body []byte, last uint64) (revision uint64, follows bool, err error) {
	if last != 0 {
		revision, err = s.Bus.Workers.Update(ctx, s.Worker, body, last)
		if err == nil || !mismatch(err) {
			return revision, err == nil, err
		}
		// The one before was lost with its acknowledgement, or is there no more.
	}
	revision, err = s.Bus.Workers.Put(ctx, s.Worker, body)
	return revision, false, err
}

// Leave says that this worker, whose last heartbeat is given, is gone. It deletes
// none of a later life of the worker, should it be held up.
func (s *Store) Leave(ctx context.Context, last uint64) error {
	if last != 0 {
		err := s.Bus.Workers.Delete(ctx, s.Worker, jetstream.LastRevision(last))
		if err == nil || !mismatch(err) {
			return err
		}
	}
	// One of ours may have come that wasn't acknowledged.
	found, err := s.Sight(ctx, s.Worker)
	if err != nil || found.Revision == 0 || found.Left {
		return err
	}
	return s.Bus.Workers.Delete(ctx, s.Worker, jetstream.LastRevision(found.Revision))
}

func mismatch(err error) bool {
	return bus.WrongRevision(err) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}
