package bus_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Jobs come while the limit of queues, or of callers' lines, is lowered: what was
// accepted is there afterwards, and more is taken when there is room.
func TestLimitIsLoweredUnderLoad(t *testing.T) {
	for subject, stream := range map[string]func(*bus.Bus) jetstream.Stream{
		protocol.BulkQueue:           func(b *bus.Bus) jetstream.Stream { return b.Jobs },
		protocol.BacklogSubject("a"): func(b *bus.Bus) jetstream.Stream { return b.Backlog },
	} {
		t.Run(subject, func(t *testing.T) {
			_, nc := connect(t, embeddednats.Config{})
			b := ensure(t, nc, bus.Settings{QueueLimit: 100_000})
			// A busy machine must leave nobody in doubt whether a job was accepted.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			js := b.JS // of its own: b becomes another
			lowered := make(chan struct{})
			var accepted atomic.Int64
			var sending sync.WaitGroup
			begun := make(chan struct{}, 100_000)
			for range 8 {
				sending.Go(func() {
					for {
						select {
						case <-lowered:
							return
						default:
						}
						if _, err := js.Publish(ctx, subject, nil); err == nil {
							accepted.Add(1)
							begun <- struct{}{}
						} else if !bus.QueueFull(err) {
							t.Error(err)
							return
						}
					}
				})
			}
			for range 100 {
				<-begun
			}
			b = ensure(t, nc, bus.Settings{QueueLimit: 10})
			limit := stream(b).CachedInfo().Config.MaxMsgsPerSubject
			close(lowered)
			sending.Wait()
			info, err := stream(b).Info(t.Context())
			if err != nil || int64(info.State.Msgs) != accepted.Load() || limit > accepted.Load() {
				t.Fatalf("%d jobs are there with a limit of %d, of %d that were accepted: %v", info.State.Msgs, limit, accepted.Load(), err)
			}
			if err := stream(b).Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
			b = ensure(t, nc, bus.Settings{QueueLimit: 10})
			for i := range 11 {
				if _, err := b.JS.Publish(t.Context(), subject, nil); (err == nil) != (i < 10) {
					t.Errorf("job %d of 10: %v", i+1, err)
				}
			}
		})
	}
}
