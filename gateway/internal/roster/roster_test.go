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

	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a roster that runs, with a clock of the test's own.
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
	g.now = func() time.Time { return time.Now().Add(time.Duration(g.skew.Load())) }
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
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestWorkersComeAndGo(t *testing.T) {
	g := start(t, func(kv jetstream.KeyValue) {
		beat(t, kv, protocol.Heartbeat{Worker: "b", Slots: 2})
	})
	if !g.Live("b") || !g.Any() {
		t.Fatal("a worker from before the start is not live")
	}
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Slots: 4})
	until(t, "a joins", func() bool { return g.Live("a") })
	if all := g.Heartbeats(); len(all) != 2 || all[0].Worker != "a" || all[1].Worker != "b" {
		t.Errorf("heartbeats %+v, want a and b in this order", all)
	}

	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Draining: true})
	beat(t, g.kv, protocol.Heartbeat{Worker: "b", Draining: true})
	until(t, "all drain", func() bool { return !g.Any() })
	if !g.Live("a") {
		t.Error("a worker that drains is not live")
	}

	if err := g.kv.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if l := <-g.lost; l != (Lost{Worker: "a"}) || g.Live("a") {
		t.Errorf("lost %+v, live %v; want a to have left", l, g.Live("a"))
	}
}

func TestOpenIsTriedAgain(t *testing.T) {
	g := start(t, func(kv jetstream.KeyValue) { beat(t, kv, protocol.Heartbeat{Worker: "a"}) })
	if n := g.opens.Load(); n != 2 || !g.Live("a") {
		t.Errorf("opened %d times, a live: %v; want a second attempt that finds a", n, g.Live("a"))
	}
}

func TestSilentWatchIsOpenedAnew(t *testing.T) {
	g := start(t, nil)
	g.skew.Store(int64(quietLimit + time.Second))
	until(t, "a second watch", func() bool { return g.opens.Load() == 2 })
}

func TestHeartbeatsThatStop(t *testing.T) {
	g := start(t, nil)
	beat(t, g.kv, protocol.Heartbeat{Worker: "a"})
	until(t, "a joins", func() bool { return g.Live("a") })
	g.skew.Store(int64(protocol.WorkerTTL))
	if g.Live("a") || g.Any() || len(g.Snapshot()) != 0 {
		t.Error("live although its last heartbeat is too old")
	}
	if l := <-g.lost; l != (Lost{Worker: "a"}) {
		t.Errorf("lost %+v, want a", l)
	}
	beat(t, g.kv, protocol.Heartbeat{Worker: "a"})
	until(t, "a is back", func() bool { return g.Live("a") })
}

func TestRestartIsALoss(t *testing.T) {
	g := start(t, nil)
	first := time.Now().UTC()
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Started: first})
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Started: first, Busy: 1})
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Started: first.Add(time.Second)})
	if l := <-g.lost; l != (Lost{Worker: "a", Restarted: true}) {
		t.Errorf("lost %+v, want a restart", l)
	}
	if len(g.lost) != 0 || !g.Live("a") {
		t.Error("a restarted worker is live, and lost once")
	}
}

func TestOldHeartbeatsAreNoLife(t *testing.T) {
	g := start(t, nil)
	g.beat("old", []byte(`{}`), entry{written: g.now().Add(-protocol.WorkerTTL)}, true)
	g.beat("ahead", []byte(`{}`), entry{written: g.now().Add(time.Hour)}, true)
	g.beat("late", []byte(`{}`), entry{written: g.now().Add(-time.Hour)}, false)
	g.beat("broken", []byte(`{`), entry{written: g.now()}, false)
	for worker, live := range map[string]bool{"old": false, "ahead": true, "late": true, "broken": false} {
		if g.Live(worker) != live {
			t.Errorf("%s: live %v, want %v", worker, !live, live)
		}
	}
}

func TestPlacedCountsUntilTheNextHeartbeat(t *testing.T) {
	g := start(t, nil)
	beat(t, g.kv, protocol.Heartbeat{Worker: "a"})
	until(t, "a joins", func() bool { return g.Live("a") })
	g.Placed("a")
	g.Placed("a")
	g.Placed("nobody")
	if s := g.Snapshot(); len(s) != 1 || s[0].Placed != 2 {
		t.Errorf("snapshot %+v, want 2 placed", s)
	}
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Sessions: 2})
	until(t, "the next heartbeat", func() bool { return g.Snapshot()[0].Sessions == 2 })
	s := g.Snapshot()
	if s[0].Placed != 0 {
		t.Errorf("%d placed after the heartbeat that knows of them, want 0", s[0].Placed)
	}
	if now := s[0].Recent; now <= 0 || now > 2 {
		t.Errorf("%v placed recently, want what is left of 2", now)
	}
	g.skew.Add(int64(2 * recentHalf))
	if later := g.Snapshot()[0].Recent; later <= 0 || later > 0.5 {
		t.Errorf("%v placed recently after twice the half time, want a quarter of 2 at most", later)
	}
}

// What a session's record says of a lost worker is the entry over which it was
// called lost; of one that isn't lost there is none.
func TestLostNamesTheLastEntry(t *testing.T) {
	g := start(t, nil)
	last := func() protocol.Former {
		e, err := g.kv.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return protocol.Former{Worker: "a", Seen: e.Revision(), At: e.Created()}
	}
	want := func(what string, want protocol.Former) {
		t.Helper()
		if got := g.Lost("a"); got.Worker != want.Worker || got.Seen != want.Seen || !got.At.Equal(want.At) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	want("never seen", protocol.Former{Worker: "a"})
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Busy: 1})
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Busy: 2})
	until(t, "both are seen", func() bool { h := g.Heartbeats(); return len(h) == 1 && h[0].Busy == 2 })
	want("live", protocol.Former{Worker: "a"})
	stopped := last()
	g.skew.Store(int64(protocol.WorkerTTL))
	<-g.lost
	want("its heartbeats stopped", stopped)

	beat(t, g.kv, protocol.Heartbeat{Worker: "a"})
	until(t, "a is back", func() bool { return g.Live("a") })
	want("back", protocol.Former{Worker: "a"})
	if err := g.kv.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	<-g.lost
	e, err := bus.Last(t.Context(), g.cfg.NC, bus.KeyStream(protocol.WorkersBucket), bus.KeySubject(protocol.WorkersBucket, "a"))
	if err != nil {
		t.Fatal(err)
	}
	got := g.Lost("a")
	if got.Seen != e.Sequence || !got.At.Equal(e.Time) || got.Seen <= stopped.Seen {
		t.Errorf("it left: %+v, want the deletion, %d of %v", got, e.Sequence, e.Time)
	}
}

// However old NATS' clock makes an entry that was there at the start: its lease may
// be as young as the watch that brought it.
func TestNobodyIsLostSoonerThanItsLease(t *testing.T) {
	nc := start(t, nil).cfg.NC
	r, err := New(Config{NC: nc, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	now := begin
	r.now = func() time.Time { return now }
	r.watchedFrom = begin
	now = begin.Add(protocol.WorkerTTL / 2) // the watch was slow
	r.beat("w", []byte(`{}`), entry{written: begin.Add(-time.Hour)}, true)
	now = begin.Add(protocol.WorkerTTL)
	if r.sweep(t.Context()); len(r.workers) != 1 {
		t.Error("lost before a lease of when its entry came can be over")
	}
	now = now.Add(protocol.WorkerTTL / 2)
	if r.sweep(t.Context()); len(r.workers) != 0 {
		t.Error("not lost; the test shows nothing")
	}
}

func TestAwaitLost(t *testing.T) {
	started := time.Now()
	g := start(t, func(kv jetstream.KeyValue) {
		beat(t, kv, protocol.Heartbeat{Worker: "a", Started: started, Durable: true})
	})
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if !g.Durable("a") || g.Lifetime("a").Err() != nil {
		t.Fatal("a is not live and storing")
	}
	if err := g.AwaitLost(soon(), "a"); err == nil {
		t.Error("a live worker is lost")
	}
	if err := g.AwaitLost(soon(), "never seen"); err == nil {
		t.Error("a worker is lost that may not have been seen yet")
	}
	if g.Lifetime("never seen").Err() == nil {
		t.Error("a worker that isn't known lives")
	}
	// It starts anew.
	life := g.Lifetime("a")
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Started: started.Add(time.Second)})
	<-life.Done()
	until(t, "a is live again", func() bool { return g.Lifetime("a").Err() == nil })
	if g.Durable("a") {
		t.Error("a stores still")
	}
	// It says goodbye: known at once.
	if err := g.kv.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	until(t, "a left", func() bool { return !g.Live("a") })
	if err := g.AwaitLost(soon(), "a"); err != nil {
		t.Errorf("a worker that left: %v", err)
	}
	g.skew.Add(int64(2 * protocol.WorkerTTL))
	if err := g.AwaitLost(soon(), "never seen"); err != nil {
		t.Errorf("a worker that was not seen for long: %v", err)
	}
}

// A gateway whose connection was made anew has heard nothing for a while: that
// says nothing of the workers until it watches again.
func TestNobodyIsLostOverAnOldWatch(t *testing.T) {
	nc := start(t, nil).cfg.NC
	r, err := New(Config{NC: nc, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	r.workers["w"] = &worker{Worker: placement.Worker{Heartbeat: &protocol.Heartbeat{Worker: "w"}, Seen: time.Now().Add(-time.Hour)}, end: func() {}}
	r.reconnects = nc.Stats().Reconnects + 1 // another connection than the watch's
	r.sweep(t.Context())
	if len(r.workers) != 1 {
		t.Error("lost by a watch that was of another connection")
	}
	r.reconnects--
	r.sweep(t.Context())
	if len(r.workers) != 0 {
		t.Error("not lost; the test shows nothing")
	}
}

// deaf is a bucket of which a watch says nothing any more after a time, as when the
// server that serves it is stopped.
type deaf struct {
	jetstream.KeyValue
	quiet *atomic.Bool
}

type deafWatch struct {
	jetstream.KeyWatcher
	updates chan jetstream.KeyValueEntry
}

func (w deafWatch) Updates() <-chan jetstream.KeyValueEntry { return w.updates }

func (d deaf) WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w, err := d.KeyValue.WatchAll(ctx, opts...)
	if err != nil {
		return nil, err
	}
	out := deafWatch{w, make(chan jetstream.KeyValueEntry)}
	go func() {
		defer close(out.updates)
		for e := range w.Updates() {
			if d.quiet.Load() {
				continue
			}
			select {
			case out.updates <- e:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}

// A watch that falls silent while workers beat is opened anew, and nobody is lost.
func TestNobodyIsLostByASilentWatch(t *testing.T) {
	quiet := new(atomic.Bool)
	g := startWith(t, nil, func(kv jetstream.KeyValue) jetstream.KeyValue { return deaf{kv, quiet} })
	for _, worker := range []string{"a", "b"} {
		beat(t, g.kv, protocol.Heartbeat{Worker: worker})
		until(t, "it joins", func() bool { return g.Live(worker) })
	}
	quiet.Store(true)
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Busy: 1})
	g.skew.Store(int64(protocol.WorkerTTL))
	if l := <-g.lost; l != (Lost{Worker: "b"}) {
		t.Errorf("lost %+v, want b, which has not beaten since", l)
	}
	until(t, "a counts again", func() bool { return g.Live("a") })
	until(t, "the watch is opened anew", func() bool { return g.opens.Load() == 2 })
	if len(g.lost) != 0 {
		t.Errorf("lost %+v", <-g.lost)
	}
	g.skew.Store(0) // else what a watch finds at its beginning is too old
	quiet.Store(false)
	beat(t, g.kv, protocol.Heartbeat{Worker: "a", Busy: 2})
	until(t, "it is heard", func() bool {
		for _, h := range g.Heartbeats() {
			if h.Worker == "a" && h.Busy == 2 {
				return true
			}
		}
		return false
	})
}
