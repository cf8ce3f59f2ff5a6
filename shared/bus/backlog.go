package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// BacklogShares is for how many callers at their limit the backlog has room,
	// unless its own limit is set.
	BacklogShares = 10
	// DefaultBacklogBytes is what the backlog may take up, bytes, unless that is set.
	DefaultBacklogBytes = 1 << 30
)

// ensureBacklog creates or updates the stream of asynchronous jobs that wait for
// their callers' turns.
func (b *Bus) ensureBacklog(ctx context.Context, s Settings, replicas int) (err error) {
	limit := s.QueueLimit
	if limit <= 0 {
		if b.Backlog, err = b.JS.Stream(ctx, protocol.BacklogStream); err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("look at stream %s: %w", protocol.BacklogStream, err)
		}
		limit = DefaultQueueLimit
	}
	stream := jetstream.StreamConfig{
		Name:        protocol.BacklogStream,
		Description: "asynchronous jobs that wait for their callers' turns",
		Subjects:    []string{protocol.BacklogSubjects},
		Storage:     jetstream.FileStorage,
		// Full, it refuses the newest job, so that the gateway can say 429. Each
		// caller is a subject and has a limit for himself, so that one who floods
		// leaves room for others.
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgs:              cmp.Or(s.BacklogLimit, BacklogShares*limit),
		MaxBytes:             cmp.Or(s.BacklogBytes, DefaultBacklogBytes),
		MaxAge:               protocol.JobMaxAge,
		MaxMsgSize:           protocol.MaxMessageBytes,
		Replicas:             replicas,
		AllowDirect:          true,
		Duplicates:           2 * time.Minute,
	}
	if stream.MaxMsgsPerSubject, err = b.callerLimit(ctx, limit); err != nil {
		return err
	}
	if b.Backlog, err = b.createBounded(ctx, stream, leastBacklogBytes); StoreFull(err) {
		// A server without so little to set aside still takes jobs, while it has room.
		stream.MaxBytes = -1
		b.Backlog, err = b.JS.CreateOrUpdateStream(ctx, stream)
	}
	if err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.BacklogStream, err)
	}
	return nil
}

// leastBacklogBytes is the smallest limit in bytes that the backlog gets.
const leastBacklogBytes = 16 << 20

// callerLimit is how far the limit for each caller can be lowered now. JetStream
// takes the oldest messages out of a subject that has more than its new limit, and
// what was accepted must not be lost: so it gets no lower than the longest line
// is. The rest is for the next gateway that starts.
func (b *Bus) callerLimit(ctx context.Context, limit int64) (int64, error) {
	s, err := b.JS.Stream(ctx, protocol.BacklogStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return limit, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at stream %s: %w", protocol.BacklogStream, err)
	}
	cfg := s.CachedInfo().Config
	if cfg.MaxMsgsPerSubject > 0 && cfg.MaxMsgsPerSubject <= limit {
		return limit, nil
	}
	// Until the new limits are set nothing more is taken, so that no line grows
	// while they are counted. Who dies in between is started again.
	cfg.MaxMsgs = 1
	if s, err = b.JS.UpdateStream(ctx, cfg); err != nil {
		return 0, fmt.Errorf("hold stream %s: %w", protocol.BacklogStream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(protocol.BacklogSubjects))
	if err != nil {
		return 0, fmt.Errorf("count stream %s: %w", protocol.BacklogStream, err)
	}
	for _, n := range info.State.Subjects {
		limit = max(limit, int64(n))
	}
	return limit, nil
}
