package durable

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Config of a Store.
type Config struct {
	Bus *bus.Bus
	// Worker is this worker's id.
	Worker string
	// Grace is how long a blob stays that no journal names. A blob that this
	// worker stored within half of it isn't stored again.
	Grace time.Duration
	// Durable says that sessions will be stored; otherwise only records are
	// read and removed.
	Durable bool
	Metrics *Metrics
}

// Store reads and writes what is stored of sessions. Its methods may be called
// from any goroutine.
type Store struct {
	Config
	recent recent
	// patience is publishPatience; tests shorten it.
	patience time.Duration
}

// opTimeout bounds one read or write of JetStream.
const opTimeout = 5 * time.Second

// New returns a store; the error says what the NATS server lacks.
func New(cfg Config) (*Store, error) {
	if most := bus.MaxPayload(cfg.Bus.NC); cfg.Durable && most < protocol.BlobBytes+protocol.MessageOverheadBytes {
		return nil, fmt.Errorf("durable sessions need a NATS server whose max_payload is %d bytes or more, this one's is %d; raise it, or set durability to local",
			protocol.BlobBytes+protocol.MessageOverheadBytes, most)
	}
	if cfg.Grace <= 0 {
		return nil, fmt.Errorf("the grace of blobs is %v, want a time above 0", cfg.Grace)
	}
	return &Store{Config: cfg, recent: recent{turn: cfg.Grace / 6}, patience: publishPatience}, nil
}

// PutBlob stores a piece of at most protocol.BlobBytes and returns its digest;
// data isn't used afterwards.
func (s *Store) PutBlob(ctx context.Context, data []byte) (Digest, error) {
	d := Digest(sha256.Sum256(data))
	if s.recent.has(d, time.Now()) {
		return d, nil
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	_, err := s.Bus.JS.PublishMsg(ctx, &nats.Msg{Subject: protocol.BlobSubject(hex.EncodeToString(d[:])), Data: data})
	if err != nil {
		return d, fmt.Errorf("store content: %w", orFull(err))
	}
	s.Metrics.put(blobPut, len(data), time.Since(begun))
	s.recent.add(d, begun)
	return d, nil
}

// GetBlob returns a piece. The error wraps ErrMissing if it isn't stored.
func (s *Store) GetBlob(ctx context.Context, d Digest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	subject := protocol.BlobSubject(hex.EncodeToString(d[:]))
	m, err := s.Bus.Blobs.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		// The replica that was asked may not have it yet.
		last, lerr := bus.Last(ctx, s.Bus.NC, protocol.BlobsStream, subject)
		if errors.Is(lerr, bus.ErrNoMessage) {
			return nil, fmt.Errorf("content %x: %w", d[:8], ErrMissing)
		}
		err, m = lerr, &jetstream.RawStreamMsg{Data: last.Data}
	}
	if err != nil {
		return nil, fmt.Errorf("read content %x: %w", d[:8], err)
	}
	if Digest(sha256.Sum256(m.Data)) != d {
		return nil, fmt.Errorf("content %x: what is stored has another digest", d[:8])
	}
	return m.Data, nil
}

// Errors of this package, to be told apart with errors.Is.
var (
	// ErrNone: nothing is stored of the session.
	ErrNone = errors.New("nothing is stored of the session")
	// ErrFenced: somebody else has written to the journal; nothing was changed.
	ErrFenced = errors.New("the session's journal was written by another owner")
	// ErrMissing: a blob that a journal names isn't there.
	ErrMissing = errors.New("it is not stored")
	// ErrFull: JetStream has no room for it.
	ErrFull = errors.New("JetStream has no room left")
	// ErrDoubt: it was sent to JetStream, and nobody knows whether it was stored.
	ErrDoubt = errors.New("it may be stored or not")
)

// orDoubt adds ErrDoubt to an error that means it: there was no answer.
func orDoubt(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrDisconnected) {
		return fmt.Errorf("%w: %w", ErrDoubt, err)
	}
	return err
}

// orFull adds ErrFull to an error that means it.
func orFull(err error) error {
	if err != nil && bus.StoreFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// gone reports whether a message wasn't deleted since it isn't there.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful)
}

// recent remembers what this worker stored not long ago, in two generations: for
// three turns at most, which is half the grace.
type recent struct {
	turn time.Duration // a generation's age

	mu         sync.Mutex
	young, old map[Digest]struct{}
	since      time.Time // when young began
}

// maxRecent bounds each generation, in digests of 32 bytes.
const maxRecent = 100_000

func (r *recent) rotate(now time.Time) {
	switch age := now.Sub(r.since); {
	case age >= 2*r.turn:
		r.young, r.old, r.since = nil, nil, now
	case age >= r.turn, len(r.young) >= maxRecent:
		r.young, r.old, r.since = nil, r.young, now
	}
	if r.young == nil {
		r.young = map[Digest]struct{}{}
	}
}

// has reports whether d was added within a turn or so; never after three.
func (r *recent) has(d Digest, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rotate(now)
	if _, ok := r.young[d]; ok {
		return true
	}
	_, ok := r.old[d]
	return ok
}

func (r *recent) add(d Digest, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rotate(now)
	r.young[d] = struct{}{}
}
