package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
)

// A server with little room keeps fewer results, instead of none.
func TestResultsFitTheServer(t *testing.T) {
	url := serve(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 300 << 20, JetStreamMaxMemory: 64 << 20})
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 10, Retention: time.Hour, KeptBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Kept.CachedInfo().Config; got.MaxBytes != 256<<20 || got.MaxAge != time.Hour {
		t.Errorf("results may take %d bytes for %v", got.MaxBytes, got.MaxAge)
	}
	// A worker, which has no settings of its own, leaves them as they are.
	if b, err = bus.Ensure(t.Context(), nc, bus.Settings{}); err != nil || b.Kept.CachedInfo().Config.MaxAge != time.Hour {
		t.Errorf("after a worker: %+v %v", b.Kept.CachedInfo().Config, err)
	}
}
