package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Record is a session's record in the SESSIONS bucket.
type Record struct {
	protocol.SessionRecord
	Session  string
	Revision uint64
	Written  time.Time
}

// Record reads a session's record from the bucket's leader; ErrNone if there is
// none, for certain: what is stored of a session without one is removed.
func (s *Store) Record(ctx context.Context, session string) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	r := Record{Session: session}
	m, err := s.Bus.LastConfirmed(ctx, bus.KeyStream(protocol.SessionsBucket), bus.SessionsMarker,
		bus.KeySubject(protocol.SessionsBucket, protocol.SessionKey(session)), bus.Message.Deleted)
	switch {
	case errors.Is(err, bus.ErrNoMessage), err == nil && m.Deleted():
		return r, ErrNone
	case err != nil:
		return r, fmt.Errorf("read record of session %s: %w", session, err)
	}
	if err := json.Unmarshal(m.Data, &r.SessionRecord); err != nil {
		return r, fmt.Errorf("read record of session %s: %w", session, err)
	}
	r.Revision, r.Written = m.Sequence, m.Time
	return r, nil
}

// MarkDurable says in a session's record that it is durable, unless the record
// has changed (ErrFenced).
func (s *Store) MarkDurable(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	r.Durable = true
	value, err := json.Marshal(r.SessionRecord)
	if err != nil {
		return fmt.Errorf("encode record of session %s: %w", r.Session, err)
	}
	if _, err := s.Bus.Sessions.Update(ctx, protocol.SessionKey(r.Session), value, r.Revision); err != nil {
		if bus.WrongRevision(err) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return ErrFenced
		}
		return fmt.Errorf("write record of session %s: %w", r.Session, err)
	}
	return nil
}

// Settle takes the former owners out of a session's record, which let go of it,
// unless the record has changed (ErrFenced). It returns the record's revision.
func (s *Store) Settle(ctx context.Context, r Record) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	r.Former = nil
	value, err := json.Marshal(r.SessionRecord)
	if err != nil {
		return 0, fmt.Errorf("encode record of session %s: %w", r.Session, err)
	}
	revision, err := s.Bus.Sessions.Update(ctx, protocol.SessionKey(r.Session), value, r.Revision)
	if err == nil {
		return revision, nil
	}
	if mismatch(err) {
		return 0, ErrFenced
	}
	return 0, fmt.Errorf("write record of session %s: %w", r.Session, err)
}

// RemoveRecord removes a session's record, unless it has changed (ErrFenced).
func (s *Store) RemoveRecord(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	options := []jetstream.KVDeleteOpt{jetstream.LastRevision(r.Revision)}
	if status, err := s.Bus.Sessions.Status(ctx); err == nil && status.LimitMarkerTTL() > 0 {
		// What is left of the key goes too, after a time.
		options = append(options, jetstream.PurgeTTL(bus.MarkerTTL))
	}
	err := s.Bus.Sessions.Purge(ctx, protocol.SessionKey(r.Session), options...)
	if bus.WrongRevision(err) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return ErrFenced
	}
	if err != nil {
		return fmt.Errorf("remove record of session %s: %w", r.Session, err)
	}
	return nil
}
