package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// lowerMargin is by how many messages the longest queue must be shorter than its
	// new limit for that to be set without further ado: no queue grows so much in the
	// some milliseconds from the count to the change.
	lowerMargin = 500
	// heldMessages is the limit of messages of a stream that is held.
	heldMessages = 1
	// reopenTimeout bounds the attempt to open a stream again that was held.
	reopenTimeout = 5 * time.Second
)

// lower sets the limit of messages of each subject of a stream, by calling set with
// it. JetStream takes the oldest messages out of a subject that has more than its new
// limit, and what was accepted must not be lost: so the limit becomes no lower than
// the longest queue is. The rest is for the next gateway that starts.
func (b *Bus) lower(ctx context.Context, stream string, limit int64, set func(limit int64) error) error {
	s, err := b.JS.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return set(limit)
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", stream, err)
	}
	before := s.CachedInfo().Config
	if before.MaxMsgsPerSubject > 0 && before.MaxMsgsPerSubject <= limit {
		return set(limit)
	}
	count := func() (int64, error) {
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return 0, fmt.Errorf("count stream %s: %w", stream, err)
		}
		var longest uint64
		for _, n := range info.State.Subjects {
			longest = max(longest, n)
		}
		return int64(longest), nil
	}
	longest, err := count()
	if err != nil {
		return err
	}
	if longest+lowerMargin <= limit {
		return set(limit)
	}
	// Until the new limit is set nothing more is taken, so that no queue grows while
	// they are counted. Should this process die, the next that starts opens it.
	held := before
	held.Discard, held.MaxMsgs = jetstream.DiscardNew, heldMessages
	if before.MaxMsgs == heldMessages {
		before.MaxMsgs = -1 // another process holds it, or died holding it
	}
	if _, err = b.JS.UpdateStream(ctx, held); err != nil {
		return fmt.Errorf("hold stream %s: %w", stream, err)
	}
	if longest, err = count(); err == nil {
		err = set(max(limit, longest))
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenTimeout)
		defer cancel()
		if _, openErr := b.JS.UpdateStream(ctx, before); openErr != nil {
			err = fmt.Errorf("%w; and it takes nothing until this is tried again: %w", err, openErr)
		}
	}
	return err
}
