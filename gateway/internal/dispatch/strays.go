package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// JetStream says once, in a plain message, that it will not deliver a job again;
// if the gateway that is told is cut off just then, the job stays in its queue and
// is never answered. So gateways look for such jobs: one that is in the stream,
// and behind what its consumer is done with.

const (
	// strayInterval is about how often a gateway looks. A job must be found twice:
	// one that was acknowledged just now is in the stream for a moment, too.
	strayInterval = 10 * time.Second
	// strayTimeout bounds one look.
	strayTimeout = 5 * time.Second
)

// watchStrays looks until the dispatcher is closed.
func (d *Dispatcher) watchStrays() {
	defer d.watching.Done()
	found := map[string]uint64{} // by consumer
	timer := time.NewTimer(d.strayInterval + rand.N(d.strayInterval/4))
	defer timer.Stop()
	for {
		select {
		case <-d.closing:
			return
		case <-timer.C:
		}
		for _, consumer := range []string{protocol.EvaluateConsumer, protocol.BulkConsumer} {
			sequence, err := d.stray(consumer)
			if err != nil {
				d.cfg.Log.Debug("queue not looked through", "consumer", consumer, "error", err)
				continue
			}
			if sequence != 0 && found[consumer] == sequence {
				d.handle(advisory{Sequence: sequence, Deliveries: protocol.MaxDeliver})
			}
			found[consumer] = sequence
		}
		timer.Reset(d.strayInterval + rand.N(d.strayInterval/4))
	}
}

// stray returns the first job of a consumer that it is done with, 0 if there is
// none.
func (d *Dispatcher) stray(consumer string) (sequence uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), strayTimeout)
	defer cancel()
	c, err := d.cfg.Jobs.Consumer(ctx, consumer)
	if err != nil {
		return 0, fmt.Errorf("look at consumer: %w", err)
	}
	info := c.CachedInfo() // of just now
	first, err := d.cfg.Jobs.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("look at queue: %w", err)
	case first.Sequence > info.AckFloor.Stream:
		return 0, nil
	}
	return first.Sequence, nil
}
