package durable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
)

const (
	// publishPatience is how long JetStream may take to acknowledge a message
	// before it is sent again; it doubles each time.
	publishPatience = time.Second
	// publishPause is the time between attempts while there is no connection.
	publishPause = 100 * time.Millisecond
)

// publish writes a message of a journal whose last one is sequence.
//
// The message or its acknowledgement may be lost with a connection. It is sent
// again then: the journal takes it once, since it is to follow sequence, and what
// is there instead tells whether the first arrived. ErrDoubt if even that can't
// be found out before ctx ends.
func (s *Store) publish(ctx context.Context, msg *nats.Msg, sequence uint64) (*jetstream.PubAck, error) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(sequence, 10))
	doubt := error(nil)
	for patience := s.patience; ; {
		try, cancel := context.WithTimeout(ctx, patience)
		ack, err := s.Bus.JS.PublishMsg(try, msg)
		cancel()
		err = orDoubt(orFull(err))
		switch {
		case err == nil:
			return ack, nil
		case bus.WrongRevision(err) && doubt != nil:
			return s.settle(ctx, msg, sequence)
		case bus.WrongRevision(err):
			return nil, fmt.Errorf("%w: %w", ErrFenced, err)
		case errors.Is(err, ErrDoubt):
			doubt = err
			patience *= 2
		case doubt == nil:
			return nil, err
		default:
			select {
			case <-ctx.Done():
			case <-time.After(publishPause):
			}
		}
		if ctx.Err() != nil {
			return nil, doubt
		}
	}
}

// settle finds out whether a message that was to follow sequence is there.
func (s *Store) settle(ctx context.Context, msg *nats.Msg, sequence uint64) (*jetstream.PubAck, error) {
	next, err := s.next(ctx, msg.Subject, sequence+1)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDoubt, err)
	case bytes.Equal(next.Data, msg.Data):
	case next.Header.Get(headerBase) != "":
		// Of another owner, in place of what was before it: maybe this one.
		return nil, fmt.Errorf("%w: the journal has a new base", ErrDoubt)
	default:
		return nil, ErrFenced
	}
	return &jetstream.PubAck{Stream: s.Bus.Manifests.CachedInfo().Config.Name, Sequence: next.Sequence}, nil
}
