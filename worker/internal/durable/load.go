package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Load reads a session's journal. If there is none it returns an empty one, to
// which the first change is the base, and an error that is ErrNone.
func (s *Store) Load(ctx context.Context, session string) (*Journal, error) {
	begun := time.Now()
	j := &Journal{store: s, entries: map[string]Entry{}}
	j.id.Session = session
	subject := protocol.ManifestSubject(session)
	last, err := s.last(ctx, session)
	if errors.Is(err, bus.ErrNoMessage) {
		return j, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read journal of session %s: %w", session, err)
	}
	if last.Header.Get(headerBase) != "" {
		if err = j.take(ctx, last); err != nil {
			return nil, err
		}
	}
	for j.sequence < last.Sequence {
		m, err := s.next(ctx, subject, j.sequence+1)
		if errors.Is(err, bus.ErrNoMessage) { // removed meanwhile
			return nil, fmt.Errorf("read journal of session %s: %w", session, ErrFenced)
		}
		if err != nil {
			return nil, fmt.Errorf("read journal of session %s: %w", session, err)
		}
		if err := j.take(ctx, m); err != nil {
			return nil, err
		}
	}
	if !j.based {
		return j, ErrNone
	}
	s.Metrics.loaded(time.Since(begun))
	return j, nil
}

// last reads a journal's last message; that there is none is certain.
func (s *Store) last(ctx context.Context, session string) (bus.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return s.Bus.LastConfirmed(ctx, protocol.ManifestsStream, bus.ManifestsMarker, protocol.ManifestSubject(session), func(bus.Message) bool { return false })
}

func (s *Store) next(ctx context.Context, subject string, from uint64) (bus.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return bus.Next(ctx, s.Bus.NC, protocol.ManifestsStream, subject, from)
}

// take reads the next message of the journal.
func (j *Journal) take(ctx context.Context, raw bus.Message) error {
	fail := func(err error) error {
		return fmt.Errorf("message %d in the journal of session %s: %w", raw.Sequence, j.id.Session, err)
	}
	m, err := decodeMessage(raw.Data)
	if err != nil {
		return fail(err)
	}
	if m.Base || m.Gone {
		j.entries, j.operations, j.based = map[string]Entry{}, operations{forgotten: m.Forgotten}, m.Base
		j.changes, j.changeBytes, j.baseBytes, j.deadBytes = 0, 0, len(raw.Data), 0
	} else {
		if !j.based {
			return fail(errors.New("changes without a base"))
		}
		j.changes++
		j.changeBytes += len(raw.Data)
	}
	if len(m.Pieces) > 0 {
		if m.Set, err = j.store.readPieces(ctx, m); err != nil {
			return fail(err)
		}
	}
	for i := range m.Delete {
		j.drop(m.Delete[i].Path + string(m.Delete[i].RawPath))
	}
	for i := range m.Set {
		e, err := m.Set[i].entry()
		if err != nil {
			return fail(err)
		}
		j.put(e)
	}
	if m.Operations == nil && !m.Gone {
		j.operations.forget(raw.Time) // written by a worker that knew of none
	}
	for _, id := range m.Operations {
		j.operations.add(id, raw.Time)
	}
	j.last = Identity{Session: m.Session, Created: m.Created, Epoch: m.Epoch}
	j.worker, j.sequence, j.written = m.Worker, raw.Sequence, raw.Time
	return nil
}

func (s *Store) readPieces(ctx context.Context, m message) (set []wireEntry, err error) {
	data := make([]byte, 0, m.Size)
	for _, p := range m.Pieces {
		if len(p) != len(Digest{}) {
			return nil, fmt.Errorf("digest of %d bytes", len(p))
		}
		piece, err := s.GetBlob(ctx, Digest(p))
		if err != nil {
			return nil, err
		}
		data = append(data, piece...)
	}
	return set, json.Unmarshal(data, &set)
}
