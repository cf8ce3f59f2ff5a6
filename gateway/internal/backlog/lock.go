package backlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// renewInterval is how often who holds the lock says so, and others look.
	renewInterval = time.Second
	// lease is how long a lock that is not renewed lasts.
	lease = 4 * time.Second
)

// lock is a key of the UPKEEP bucket that its holder writes again and again. Who
// sees it unchanged for the lease, by its own clock, takes it, by compare-and-set.
type lock struct {
	b             *bus.Bus
	value         holder
	renew, lease  time.Duration
	revision      uint64    // of the key, as this gateway wrote it last
	renewed       time.Time // when it began to write that
	seen          uint64    // the revision of another's
	seenSince     time.Time
	releaseWithin time.Duration
	tries         atomic.Int64 // looks at the lock, for tests
}

// holder is the key's value.
type holder struct {
	Gateway string `json:"gateway"`
	// Life tells the processes of a gateway apart.
	Life string `json:"life"`
}

func newLock(b *bus.Bus, gateway string, renew, lease time.Duration) *lock {
	return &lock{b: b, value: holder{gateway, protocol.NewID()}, renew: renew, lease: lease, releaseWithin: time.Second}
}

// acquire returns when the lock is this gateway's; an error is ctx's.
func (l *lock) acquire(ctx context.Context, log *slog.Logger) error {
	free := make(chan struct{}, 1)
	hints, err := l.b.NC.Subscribe(protocol.BacklogFree, func(*nats.Msg) {
		select {
		case free <- struct{}{}:
		default:
		}
	})
	if err != nil {
		log.Debug("who feeds the bulk queue is only looked at", "error", err)
	} else {
		defer hints.Unsubscribe()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-free:
		case <-timer.C:
			timer.Reset(l.renew)
		}
		got, err := l.try(ctx)
		if err != nil && ctx.Err() == nil {
			log.Debug("who feeds the bulk queue is not known", "error", err)
		}
		if got {
			return nil
		}
	}
}

// try takes the lock if it is free, or was not renewed for the lease.
func (l *lock) try(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	defer l.tries.Add(1)
	m, now, err := l.read(ctx)
	if err != nil {
		return false, err
	}
	if at := time.Now(); now == l.value {
		// Written, though this gateway was not told.
		l.revision, l.renewed = m.Sequence, at
	} else if now != (holder{}) {
		if l.seen != m.Sequence {
			l.seen, l.seenSince = m.Sequence, at
		}
		if at.Sub(l.seenSince) < l.lease {
			return false, nil
		}
	}
	return l.write(ctx, m.Sequence)
}

// read returns the key as the leader has it; a zero holder is a lock that is free.
func (l *lock) read(ctx context.Context) (m bus.Message, now holder, err error) {
	m, err = bus.Last(ctx, l.b.NC, bus.KeyStream(protocol.UpkeepBucket), bus.KeySubject(protocol.UpkeepBucket, protocol.FeederKey))
	switch {
	case errors.Is(err, bus.ErrNoMessage):
		return m, now, nil
	case err != nil:
		return m, now, fmt.Errorf("read lock of the backlog: %w", err)
	case m.Deleted():
		return m, now, nil
	}
	if err := json.Unmarshal(m.Data, &now); err != nil {
		return m, now, fmt.Errorf("read lock of the backlog: %w", err)
	}
	return m, now, nil
}

// write writes the lock if its revision is still the one given.
func (l *lock) write(ctx context.Context, revision uint64) (bool, error) {
	value, err := json.Marshal(l.value)
	if err != nil {
		return false, fmt.Errorf("encode lock of the backlog: %w", err)
	}
	at := time.Now()
	written, err := l.b.Upkeep.Update(ctx, protocol.FeederKey, value, revision)
	if otherFirst(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write lock of the backlog: %w", err)
	}
	l.revision, l.renewed = written, at
	return true, nil
}

func otherFirst(err error) bool {
	return bus.WrongRevision(err) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// hold renews the lock until it is lost or ctx is done.
func (l *lock) hold(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(l.renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		try, cancel := context.WithTimeout(ctx, l.renew)
		still, err := l.write(try, l.revision)
		if err == nil && !still {
			// Another's, or this gateway's own of which it was not told.
			still, err = l.mine(try)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Warn("lock of the backlog not renewed", "error", err)
			still = time.Since(l.renewed) < l.lease
		}
		if !still {
			log.Warn("another gateway feeds the bulk queue now, or may")
			l.revision = 0
			return
		}
	}
}

// mine reports whether the key still names this gateway.
func (l *lock) mine(ctx context.Context) (bool, error) {
	at := time.Now()
	m, now, err := l.read(ctx)
	if err != nil || now != l.value {
		return false, err
	}
	l.revision, l.renewed = m.Sequence, at
	return true, nil
}

// release gives the lock up, if this gateway has it, and says so.
func (l *lock) release() error {
	if l.revision == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.releaseWithin)
	defer cancel()
	err := l.b.Upkeep.Delete(ctx, protocol.FeederKey, jetstream.LastRevision(l.revision))
	if otherFirst(err) {
		// A renewal that was cut short may have been written.
		var mine bool
		if mine, err = l.mine(ctx); mine {
			err = l.b.Upkeep.Delete(ctx, protocol.FeederKey, jetstream.LastRevision(l.revision))
		}
	}
	l.revision = 0
	if err != nil {
		return fmt.Errorf("give up lock of the backlog: %w", err)
	}
	if err := l.b.NC.Publish(protocol.BacklogFree, nil); err != nil {
		return fmt.Errorf("say that the lock of the backlog is free: %w", err)
	}
	return nil
}
