// Package ownership knows which worker owns which session: the SESSIONS
// bucket, read and written with compare-and-set, and a bounded cache of what
// was found there. It decides nothing; package routing does.
package ownership

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

const (
	// opTimeout bounds one read or write of the bucket.
	opTimeout = 5 * time.Second
	// CacheSize is about how many owners are remembered; older ones are
	// forgotten and looked up again.
	CacheSize = 64 << 10
)

// Owner is a session's record and where it was found.
type Owner struct {
	protocol.SessionRecord
	// Revision is the record's revision in the bucket, for compare-and-set.
	Revision uint64
	// Cached says that the record was remembered, not read: it may be stale.
	Cached bool
}

// ErrNone is returned for a session without an owner.
var ErrNone = errors.New("session has no owner")

// ErrLost is returned by Replace and Remove when the record is no longer the
// one given: somebody else wrote it in between, and nothing was changed.
var ErrLost = errors.New("session record has changed")

// Store reads and writes the bucket. Its methods may be called from any
// goroutine.
type Store struct {
	bus   *bus.Bus
	kv    jetstream.KeyValue
	cache cache
	// leader makes every read one of the stream's leader. A replica may not
	// have what another gateway was just told is written.
	leader bool
	now    func() time.Time
}

// New returns a store over the SESSIONS bucket of b, which has so many replicas.
func New(b *bus.Bus, replicas int) *Store {
	return &Store{bus: b, kv: b.Sessions, leader: replicas > 1, now: time.Now, cache: cache{max: CacheSize / 2}}
}

// Recall returns the session's owner as it is remembered, or else as Lookup does.
// A worker that is not the owner any more may still answer: that it knows no
// such session, or no such file. Before a caller is told so, look it up.
func (s *Store) Recall(ctx context.Context, session string) (Owner, error) {
	if o, ok := s.cache.get(session); ok {
		o.Cached = true
		return o, nil
	}
	return s.Lookup(ctx, session)
}

// Lookup reads the session's owner, or ErrNone. That a session has none is never
// remembered: it may get one through another gateway at any time.
func (s *Store) Lookup(ctx context.Context, session string) (Owner, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var value []byte
	var revision uint64
	var err error
	if s.leader {
		value, revision, err = s.readLeader(ctx, session)
	} else {
		value, revision, err = s.read(ctx, session)
	}
	if err != nil {
		s.cache.drop(session)
		return Owner{}, err
	}
	o := Owner{Revision: revision}
	if err := json.Unmarshal(value, &o.SessionRecord); err != nil {
		return Owner{}, fmt.Errorf("read record of session %s: %w", session, err)
	}
	s.cache.put(session, o)
	return o, nil
}

func (s *Store) read(ctx context.Context, session string) ([]byte, uint64, error) {
	e, err := s.kv.Get(ctx, protocol.SessionKey(session))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, ErrNone
	}
	if err != nil {
		return nil, 0, fmt.Errorf("look up session %s: %w", session, err)
	}
	return e.Value(), e.Revision(), nil
}

// Create makes worker the owner of a session that has none; durable says that
// the worker stores it. If somebody else was quicker, it returns their record
// and false.
func (s *Store) Create(ctx context.Context, session, worker string, durable bool) (o Owner, created bool, err error) {
	o.SessionRecord = protocol.SessionRecord{Worker: worker, Epoch: 1, Created: s.now().UTC(), Durable: durable}
	value, err := json.Marshal(o.SessionRecord)
	if err != nil {
		return Owner{}, false, fmt.Errorf("encode record of session %s: %w", session, err)
	}
	put, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	o.Revision, err = s.kv.Create(put, protocol.SessionKey(session), value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		o, err = s.Lookup(ctx, session)
		return o, false, err
	}
	if err != nil {
		return Owner{}, false, fmt.Errorf("create record of session %s: %w", session, err)
	}
	s.cache.put(session, o)
	return o, true, nil
}

// Replace makes worker the owner in place of old, one epoch later, unless the
// record has changed (ErrLost). lost is what is known of the old owner, which may
// be there still when the record changes, however late that is.
func (s *Store) Replace(ctx context.Context, session string, old Owner, worker string, lost protocol.Former) (Owner, error) {
	o := old
	o.Worker, o.Cached = worker, false
	o.Epoch++
	o.Former = former(old, worker, lost)
	value, err := json.Marshal(o.SessionRecord)
	if err != nil {
		return Owner{}, fmt.Errorf("encode record of session %s: %w", session, err)
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	s.cache.drop(session)
	o.Revision, err = s.kv.Update(ctx, protocol.SessionKey(session), value, old.Revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return Owner{}, ErrLost
	}
	if err != nil {
		return Owner{}, fmt.Errorf("change owner of session %s: %w", session, err)
	}
	s.cache.put(session, o)
	return o, nil
}

// former returns who may serve a session still when worker becomes its owner.
func former(old Owner, worker string, lost protocol.Former) []protocol.Former {
	var all []protocol.Former // another list: the old one is remembered
	for _, f := range old.Former {
		if f.Worker != worker && f.Worker != old.Worker {
			all = append(all, f)
		}
	}
	if old.Worker != worker {
		lost.Worker = old.Worker
		all = append(all, lost)
	}
	return all
}

// Remove deletes the record o, unless it has changed (ErrLost).
func (s *Store) Remove(ctx context.Context, session string, o Owner) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	s.cache.drop(session)
	err := s.kv.Purge(ctx, protocol.SessionKey(session), jetstream.LastRevision(o.Revision))
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return ErrLost
	}
	if err != nil {
		return fmt.Errorf("remove record of session %s: %w", session, err)
	}
	return nil
}
