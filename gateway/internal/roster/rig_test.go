package roster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a roster that runs, with a clock of the test's own, which stands: a busy
// machine makes no heartbeat old.
type rig struct {
	*Roster
	kv    jetstream.KeyValue
	skew  atomic.Int64 // added to the clock, in nanoseconds
	lost  chan Lost
	opens atomic.Int64
	// failFirst makes the first attempt to open the bucket fail.
	failFirst bool
}

func (g *rig) opened(n int64) error {
	if n == 1 && g.failFirst {
		return errors.New("not yet")
	}
	return nil
}

func start(t *testing.T, before func(kv jetstream.KeyValue)) *rig {
	t.Helper()
	return startWith(t, before, func(kv jetstream.KeyValue) jetstream.KeyValue { return kv })
}

// startWith starts one that sees its bucket as wrap makes it.
func startWith(t *testing.T, before func(kv jetstream.KeyValue), wrap func(jetstream.KeyValue) jetstream.KeyValue) *rig {
	t.Helper()
	begin := time.Now()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 10})
	if err != nil {
		t.Fatal(err)
	}
	// Nor does NATS' clock take heartbeats out.
	bucket, err := b.JS.Stream(t.Context(), bus.KeyStream(protocol.WorkersBucket))
	if err != nil {
		t.Fatal(err)
	}
	cfg := bucket.CachedInfo().Config
	cfg.MaxAge = 0
	if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(b.Workers)
	}
	g := &rig{kv: b.Workers, lost: make(chan Lost, 16), failFirst: t.Name() == "TestOpenIsTriedAgain"}
	g.Roster, err = New(Config{
		NC: nc,
		Open: func(context.Context) (jetstream.KeyValue, error) {
			return wrap(b.Workers), g.opened(g.opens.Add(1))
		},
		OnLost:     func(l Lost) { g.lost <- l },
		Log:        slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.now = func() time.Time { return begin.Add(time.Duration(g.skew.Load())) }
	g.ran = func() time.Time { return begin }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-g.Synced()
	return g
}

func beat(t *testing.T, kv jetstream.KeyValue, h protocol.Heartbeat) {
	t.Helper()
	value, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), h.Worker, value); err != nil {
		t.Fatal(err)
	}
}

// until waits for a change that another goroutine brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
