package roster

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

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
	until(t, "it is lost", func() bool { r.sweep(t.Context()); return len(r.workers) == 0 })
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
