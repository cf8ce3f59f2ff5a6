package roster

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

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
	for busy := range 2 {
		beat(t, g.kv, protocol.Heartbeat{Worker: "a", Started: first, Busy: busy})
		// The bucket keeps the last only: the next could come before this was seen.
		until(t, "the heartbeat is seen", func() bool {
			h := g.Heartbeats()
			return len(h) == 1 && h[0].Busy == busy
		})
	}
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
	until(t, "it is lost", func() bool { r.sweep(t.Context()); return len(r.workers) == 0 })
}

// A gateway that stood still heard nothing meanwhile, and nor did workers beat that
// stood still with it: that time doesn't count.
func TestNobodyIsLostWhileTheGatewayStoodStill(t *testing.T) {
	r, err := New(Config{NC: start(t, nil).cfg.NC, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	now := begin
	r.now, r.ran = func() time.Time { return now }, func() time.Time { return now }
	r.watchedFrom, r.heard, r.looked = begin, begin, begin
	r.beat("w", []byte(`{}`), entry{written: begin}, false)
	const still = 3 * protocol.WorkerTTL
	now = begin.Add(still)
	if r.look(t.Context()); !r.Live("w") || !r.heard.Equal(now) {
		t.Errorf("live %v, last heard of %v ago: the time counts in which nobody listened", r.Live("w"), now.Sub(r.heard))
	}
	until(t, "it is lost, since it doesn't beat", func() bool {
		now = now.Add(sweepInterval)
		r.look(t.Context())
		return len(r.workers) == 0
	})
	if after := now.Sub(begin.Add(still)); after < protocol.WorkerTTL {
		t.Errorf("lost after %v, want %v", after, protocol.WorkerTTL)
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
