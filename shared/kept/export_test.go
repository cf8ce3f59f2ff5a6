package kept

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Slow makes every other record of a list come too late for who waits for it.
func (s *Store) Slow() { s.js = slow{s.js} }

type slow struct{ jetstream.JetStream }

type slowConsumer struct{ jetstream.Consumer }

type slowMessages struct {
	jetstream.MessagesContext
	turns int
}

func (s slow) OrderedConsumer(ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	c, err := s.JetStream.OrderedConsumer(ctx, stream, cfg)
	return slowConsumer{c}, err
}

func (c slowConsumer) Messages(opts ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	m, err := c.Consumer.Messages(opts...)
	return &slowMessages{MessagesContext: m}, err
}

func (m *slowMessages) Next(opts ...jetstream.NextOpt) (jetstream.Msg, error) {
	if m.turns++; m.turns%2 == 1 {
		return nil, nats.ErrTimeout
	}
	return m.MessagesContext.Next(opts...)
}
