package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ensureBacklog creates or updates the stream of asynchronous jobs that wait for
// their callers' turns.
func (b *Bus) ensureBacklog(ctx context.Context, limit int64, replicas int) (err error) {
	stream := jetstream.StreamConfig{
		Name:        protocol.BacklogStream,
		Description: "asynchronous jobs that wait for their callers' turns",
		Subjects:    []string{protocol.BacklogSubjects},
		Storage:     jetstream.FileStorage,
		// Full, it refuses the newest job, so that the gateway can say 429. There is
		// no limit for each subject: to lower that one would remove jobs.
		Discard:     jetstream.DiscardNew,
		MaxMsgs:     limit,
		MaxAge:      protocol.JobMaxAge,
		MaxMsgSize:  protocol.MaxMessageBytes,
		Replicas:    replicas,
		AllowDirect: true,
		Duplicates:  2 * time.Minute,
	}
	if limit > 0 {
		b.Backlog, err = b.JS.CreateOrUpdateStream(ctx, stream)
	} else if b.Backlog, err = b.JS.Stream(ctx, protocol.BacklogStream); errors.Is(err, jetstream.ErrStreamNotFound) {
		stream.MaxMsgs = DefaultQueueLimit
		b.Backlog, err = b.JS.CreateOrUpdateStream(ctx, stream)
	}
	if err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.BacklogStream, err)
	}
	return nil
}
