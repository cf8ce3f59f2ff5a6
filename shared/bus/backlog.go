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
	return b.lower(ctx, protocol.BacklogStream, limit, func(limit int64) error {
		stream.MaxMsgsPerSubject = limit
		if b.Backlog, err = b.createBounded(ctx, stream, leastBacklogBytes); StoreFull(err) {
			// A server without so little to set aside still takes jobs, while it has room.
			stream.MaxBytes = -1
			b.Backlog, err = b.JS.CreateOrUpdateStream(ctx, stream)
		}
		if err != nil {
			return fmt.Errorf("create stream %s: %w", protocol.BacklogStream, err)
		}
		return nil
	})
}

// leastBacklogBytes is the smallest limit in bytes that the backlog gets.
const leastBacklogBytes = 16 << 20
