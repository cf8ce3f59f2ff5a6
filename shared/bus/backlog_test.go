package bus_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ensure makes sure of the streams as a process with these settings does.
func ensure(t *testing.T, nc *nats.Conn, s bus.Settings) *bus.Bus {
	t.Helper()
	b, err := bus.Ensure(t.Context(), nc, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// backlogLimits are those of the stream, in one line.
type backlogLimits struct{ caller, all, bytes int64 }

func limitsOf(t *testing.T, b *bus.Bus) backlogLimits {
	t.Helper()
	info, err := b.Backlog.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return backlogLimits{info.Config.MaxMsgsPerSubject, info.Config.MaxMsgs, info.Config.MaxBytes}
}

// A gateway limits the backlog, and a worker leaves it as it is.
func TestBacklogLimits(t *testing.T) {
	_, nc := connect(t, embeddednats.Config{})
	const std = bus.DefaultBacklogBytes
	for _, c := range []struct {
		set  bus.Settings
		want backlogLimits
	}{
		{bus.Settings{}, backlogLimits{bus.DefaultQueueLimit, bus.BacklogShares * bus.DefaultQueueLimit, std}},
		{bus.Settings{QueueLimit: 10}, backlogLimits{10, 100, std}},
		{bus.Settings{}, backlogLimits{10, 100, std}},
		{bus.Settings{QueueLimit: 20, BacklogLimit: 30, BacklogBytes: 5 << 20}, backlogLimits{20, 30, 5 << 20}},
	} {
		if got := limitsOf(t, ensure(t, nc, c.set)); got != c.want {
			t.Errorf("with %+v the backlog's limits are %+v, want %+v", c.set, got, c.want)
		}
	}
}

// store stores jobs of a caller, and returns which limit refused the last.
func store(t *testing.T, b *bus.Bus, caller string, jobs, bytes int) bus.Limit {
	t.Helper()
	for i := range jobs {
		if _, err := b.JS.Publish(t.Context(), protocol.BacklogSubject(caller), make([]byte, bytes)); err != nil {
			if !bus.QueueFull(err) {
				t.Fatalf("job %d of %s: %v", i, caller, err)
			}
			return bus.LimitOf(err)
		}
	}
	return bus.NoLimit
}

// One caller at his limit leaves room for others; all together have one, too.
func TestBacklogLimitIsPerCaller(t *testing.T) {
	_, nc := connect(t, embeddednats.Config{})
	b := ensure(t, nc, bus.Settings{QueueLimit: 3, BacklogLimit: 8, BacklogBytes: 1 << 20})
	for _, c := range []struct {
		caller      string
		jobs, bytes int
		want        bus.Limit
	}{
		{"a", 3, 1, bus.NoLimit},
		{"a", 1, 1, bus.SubjectLimit},
		{"b", 3, 1, bus.NoLimit},
		{"c", 1, 1 << 20, bus.ByteLimit},
		{"c", 2, 1, bus.NoLimit},
		{"d", 1, 1, bus.StreamLimit},
	} {
		if got := store(t, b, c.caller, c.jobs, c.bytes); got != c.want {
			t.Errorf("%d jobs of %s with %d bytes: limit %d, want %d", c.jobs, c.caller, c.bytes, got, c.want)
		}
	}
	if got := bus.LimitOf(nats.ErrTimeout); got != bus.NoLimit {
		t.Errorf("limit %d of another error", got)
	}
}

// The backlog of a version that had one limit for all callers is taken over, and
// no job in it is lost; nor is one when the limit is lowered. The version before
// can have it back.
func TestBacklogOfBefore(t *testing.T) {
	_, nc := connect(t, embeddednats.Config{})
	b := ensure(t, nc, bus.Settings{QueueLimit: 20})
	old := b.Backlog.CachedInfo().Config
	old.MaxMsgs, old.MaxMsgsPerSubject, old.DiscardNewPerSubject, old.MaxBytes = 20, 0, false, 0
	if err := b.JS.DeleteStream(t.Context(), protocol.BacklogStream); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.Backlog, err = b.JS.CreateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	holds := func(want uint64) {
		t.Helper()
		info, err := b.Backlog.Info(t.Context())
		if err != nil || info.State.Msgs != want {
			t.Fatalf("the backlog holds %d jobs, want %d: %v", info.State.Msgs, want, err)
		}
	}
	store(t, b, "a", 15, 1)
	store(t, b, "b", 5, 1)
	b = ensure(t, nc, bus.Settings{QueueLimit: 20})
	holds(20)
	if got := limitsOf(t, b); got.caller != 20 || got.all != 200 {
		t.Errorf("limits %+v after the upgrade", got)
	}
	b = ensure(t, nc, bus.Settings{QueueLimit: 7}) // fewer than a has
	holds(20)
	if got := limitsOf(t, b); got.caller != 15 || got.all != 70 {
		t.Errorf("limits %+v, want no fewer than a caller has", got)
	}
	if got := store(t, b, "a", 1, 1); got != bus.SubjectLimit {
		t.Errorf("limit %d for who has more than the limit", got)
	}
	if err := b.Backlog.Purge(t.Context(), jetstream.WithPurgeSubject(protocol.BacklogSubject("a")), jetstream.WithPurgeKeep(6)); err != nil {
		t.Fatal(err)
	}
	if got := limitsOf(t, ensure(t, nc, bus.Settings{QueueLimit: 7})); got.caller != 7 {
		t.Errorf("limits %+v when nobody has more any longer", got)
	}
	if _, err := b.JS.CreateOrUpdateStream(t.Context(), old); err != nil {
		t.Errorf("the version before doesn't get the stream back: %v", err)
	}
	holds(11)
}

// A server with little room sets less aside for the backlog.
func TestBacklogFitsTheServer(t *testing.T) {
	for _, c := range []struct {
		room, want int64
	}{{400 << 20, 128 << 20}, {260 << 20, -1}} {
		nc, err := nats.Connect(serve(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: c.room, JetStreamMaxMemory: 64 << 20}))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if got := limitsOf(t, ensure(t, nc, bus.Settings{QueueLimit: 10})); got.bytes != c.want {
			t.Errorf("with room for %d bytes the backlog gets %d, want %d", c.room, got.bytes, c.want)
		}
	}
}
