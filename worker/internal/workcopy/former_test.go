package workcopy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// waits replaces a worker's clock: waiting makes it go on, and nothing else. It
// returns how long the worker has waited. then may be nil; it is called after
// each wait.
func (w *worker) waits(then func(waited time.Duration)) *atomic.Int64 {
	waited := new(atomic.Int64)
	w.clock = func() int64 { return int64(time.Hour) + waited.Load() }
	w.pause = func(ctx context.Context, d time.Duration) error {
		waited.Add(int64(d))
		if then != nil {
			then(time.Duration(waited.Load()))
		}
		return ctx.Err()
	}
	w.askTimeout = time.Millisecond
	return waited
}

// neverWaits fails the test if the worker waits, but for an answer.
func (w *worker) neverWaits() {
	w.askTimeout = releaseTimeout
	w.pause = func(ctx context.Context, _ time.Duration) error {
		w.t.Error("waited")
		return pause(ctx, lookPause)
	}
}

// A gateway that was held up takes a session from a worker that is there and beats,
// which knows nothing of that. Another gateway still asks that worker.
func TestFormerOwnerLetsGo(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	asked := a.listen(true)
	b.neverWaits()
	r.own("s", "a", 1, true)
	r.own("new", "a", 1, true)
	stale := a.beat()
	a.beat()
	b.beat()
	a.write("s", 1, "f", "one")
	if got := a.read("s", 1, "f"); got != "one" {
		t.Fatalf("f is %q", got)
	}
	a.use("new", 1).Release() // a session of which nothing is stored
	r.replace("s", "b", 2, stale)
	r.replace("new", "b", 2, stale)
	b.write("s", 2, "f", "two")
	b.write("new", 2, "f", "two")
	a.refused("s", 1, ErrElsewhere)
	a.refused("new", 1, ErrElsewhere)
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want once for each session", n)
	}
	if got := b.read("s", 2, "f") + b.read("new", 2, "f"); got != "twotwo" {
		t.Errorf("the new owner reads %q", got)
	}
	if record := r.record("s"); record.Former != nil || record.Worker != "b" || record.Epoch != 2 || !record.Durable {
		t.Errorf("record %+v, want it without former owners", record)
	}
	a.Close()
	for _, id := range []string{"s", "new"} {
		if _, ok := a.Sessions.Get(id); ok {
			t.Errorf("the former owner keeps its copy of %s", id)
		}
	}
	// The former owner becomes the owner again.
	r.replace("s", "a", 3, b.seen())
	if got := a.read("s", 3, "f"); got != "two" {
		t.Errorf("back at the first worker: %q", got)
	}
}

// A worker that is gone is not asked, and not waited for.
func TestFormerOwnerIsGone(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	asked := a.listen(false)
	b.neverWaits()
	b.beat()
	for id, gone := range map[string]func() protocol.Former{
		"stopped": a.seen,
		"left": func() protocol.Former {
			if err := a.Leave(t.Context()); err != nil {
				t.Error(err)
			}
			return a.seen()
		},
		"left, and the gateway didn't see it": func() protocol.Former {
			seen := a.seen()
			if err := a.Leave(t.Context()); err != nil {
				t.Error(err)
			}
			return seen
		},
	} {
		t.Run(id, func(t *testing.T) {
			id = fmt.Sprint("s", len(id))
			r.own(id, "a", 1, true)
			a.beat()
			a.write(id, 1, "f", "one")
			r.replace(id, "b", 2, gone())
			b.write(id, 2, "g", "two")
			if got := b.read(id, 2, "f") + b.read(id, 2, "g"); got != "onetwo" {
				t.Errorf("read %q", got)
			}
			if former := r.record(id).Former; former != nil {
				t.Errorf("former owners %+v are left", former)
			}
		})
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}
}

// One that may be there and doesn't answer is waited for until its lease is over,
// from the last heartbeat on that it wrote meanwhile.
func TestFormerOwnerIsSilent(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen bool          // stopped, not gone
		beats  time.Duration // until then it writes heartbeats
	}{{"stopped", true, 0}, {"gone", false, 0}, {"stopped after a while", true, 3 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.worker("a"), r.worker("b")
			if c.listen {
				a.listen(false)
			}
			r.own("s", "a", 1, true)
			stale := a.beat()
			a.beat()
			a.write("s", 1, "f", "one")
			waited := b.waits(func(waited time.Duration) {
				if waited <= c.beats {
					a.beat()
				}
			})
			r.replace("s", "b", 2, stale)
			b.write("s", 2, "f", "two")
			if got, want := time.Duration(waited.Load()), c.beats+protocol.WorkerTTL; got < want || got > want+2*lookPause {
				t.Errorf("served after %v, want %v", got, want)
			}
		})
	}
}

// One that goes on beating and doesn't answer, an older version say, is never
// passed over; who asks is told so.
func TestFormerOwnerHolds(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	stale := a.beat()
	a.write("s", 1, "f", "one")
	ctx, cancel := context.WithCancel(t.Context())
	b.waits(func(waited time.Duration) {
		a.beat()
		if waited > 2*protocol.WorkerTTL {
			cancel()
		}
	})
	a.beat()
	r.replace("s", "b", 2, stale)
	if _, err := b.Acquire(ctx, "s", 2, true); !errors.Is(err, ErrHeld) {
		t.Errorf("%v, want ErrHeld", err)
	}
	if former := r.record("s").Former; len(former) != 1 {
		t.Errorf("former owners %+v, want that one", former)
	}
	// It is started anew, as a version that answers.
	b.waits(nil)
	a.listen(true)
	if got := b.read("s", 2, "f"); got != "one" {
		t.Errorf("f is %q", got)
	}
}

// Without an entry a worker is gone, unless NATS has lost it.
func TestFormerOwnerHasNoEntry(t *testing.T) {
	r := newRig(t)
	b := r.worker("b")
	var before int64
	const later = 2 * time.Second
	waited := b.waits(func(waited time.Duration) {
		if waited-time.Duration(before) == later {
			b.beat()
		}
	})
	b.beat()
	waited.Add(int64(time.Minute))
	b.beat() // follows the first: nothing was lost for a minute
	before = waited.Load()
	r.replace("s", "b", 2, protocol.Former{Worker: "a", Seen: 7})
	b.write("s", 2, "f", "two")
	if n := waited.Load() - before; n != 0 {
		t.Errorf("waited for %v", time.Duration(n))
	}

	stream, err := r.bus.JS.Stream(t.Context(), bus.KeyStream(protocol.WorkersBucket))
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	before = waited.Load()
	r.replace("t", "b", 2, protocol.Former{Worker: "a", Seen: 7})
	b.write("t", 2, "f", "two")
	if got, want := time.Duration(waited.Load()-before), later+protocol.WorkerTTL; got < want || got > want+2*lookPause {
		t.Errorf("served %v after NATS lost the heartbeats, want %v: the first heartbeat since and a lease", got, want)
	}
}

// A revision alone says nothing: a bucket that was lost counts anew.
func TestFormerOwnerHasTheRevisionOfAnotherEntry(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	asked := a.listen(true)
	r.own("s", "a", 1, true)
	seen := a.beat()
	a.write("s", 1, "f", "one")
	seen.At = seen.At.Add(-time.Minute)
	r.replace("s", "b", 2, seen)
	b.write("s", 2, "f", "two")
	a.refused("s", 1, ErrElsewhere)
	if asked.Load() != 1 {
		t.Error("not asked")
	}
}

// All that may serve the session still are asked, and this worker not itself.
func TestSeveralFormerOwners(t *testing.T) {
	r := newRig(t)
	a, b, c := r.worker("a"), r.worker("b"), r.worker("c")
	askedA, askedC := a.listen(true), c.listen(true)
	b.neverWaits()
	for _, w := range []*worker{a, b, c} {
		w.beat()
	}
	r.replace("s", "b", 4, protocol.Former{Worker: "a"}, protocol.Former{Worker: "b"}, protocol.Former{Worker: "c"})
	b.write("s", 4, "f", "x")
	if askedA.Load() != 1 || askedC.Load() != 1 {
		t.Errorf("asked %d and %d times", askedA.Load(), askedC.Load())
	}
}
