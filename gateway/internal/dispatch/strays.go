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
// is never answered. So gateways look for such jobs: one that is in the stream, and
// behind what its consumer is done with.

const (
	// strayInterval is about how often a gateway looks. A job must be found twice:
	// one that was acknowledged just now is in the stream for a moment, too.
	strayInterval = 5 * time.Second
	// maxStrayQueues is about how many queues are looked through at a time, if
	// more hold jobs any of them.
	maxStrayQueues = 100
	// strayTimeout bounds one question.
	strayTimeout = 5 * time.Second
)

// watchStrays looks until the dispatcher is closed.
func (d *Dispatcher) watchStrays() {
	defer d.watching.Done()
	found := map[string]uint64{} // by queue
	timer := time.NewTimer(d.strayInterval + rand.N(d.strayInterval/4))
	defer timer.Stop()
	for {
		select {
		case <-d.closing:
			return
		case <-timer.C:
		}
		queues, err := d.waiting()
		if err != nil {
			d.cfg.Log.Debug("queues not looked through", "error", err)
		}
		again := map[string]uint64{}
		for _, queue := range queues {
			sequence, err := d.stray(queue)
			if err != nil {
				d.cfg.Log.Debug("queue not looked through", "queue", queue, "error", err)
				again[queue] = found[queue]
				continue
			}
			if sequence != 0 && found[queue] == sequence {
				d.handle(advisory{Sequence: sequence, Deliveries: protocol.MaxDeliver})
			}
			again[queue] = sequence
		}
		if err == nil {
			found = again
		}
		timer.Reset(d.strayInterval + rand.N(d.strayInterval/4))
	}
}

// waiting returns queues that hold jobs, the shared ones and some of workers' own.
func (d *Dispatcher) waiting() (queues []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), strayTimeout)
	defer cancel()
	info, err := d.cfg.Jobs.Info(ctx, jetstream.WithSubjectFilter(protocol.JobsSubjects))
	if err != nil {
		return nil, fmt.Errorf("look at stream: %w", err)
	}
	for queue := range info.State.Subjects {
		shared := queue == protocol.EvaluateQueue || queue == protocol.BulkQueue
		if shared || len(queues) < maxStrayQueues {
			queues = append(queues, queue)
		}
	}
	return queues, nil
}

// stray returns the first job of a queue that its consumer is done with, 0 if
// there is none.
func (d *Dispatcher) stray(queue string) (sequence uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), strayTimeout)
	defer cancel()
	c, err := d.cfg.Jobs.Consumer(ctx, protocol.QueueConsumer(queue))
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
	}
	// The floor rises when later jobs are done; until then nothing else is out.
	done := info.AckFloor.Stream
	if info.NumAckPending == 0 {
		done = info.Delivered.Stream
	}
	if first.Sequence > done {
		return 0, nil
	}
	return first.Sequence, nil
}
