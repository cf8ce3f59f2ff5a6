package workcopy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A session goes on at another worker as it was when the last change was
// acknowledged, and the worker before can do nothing any more.
func TestSessionGoesOnElsewhere(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s.1", "a", 1, true)
	a.write("s.1", 1, "f", "one")
	a.write("s.1", 1, "deep/er/g", strings.Repeat("large ", 200_000))
	a.with("s.1", 1, func(h *Hold) error { return h.RenameFile(t.Context(), "f", "new/f") })
	a.write("s.1", 1, "f", "two")
	a.with("s.1", 1, func(h *Hold) error { return h.DeleteFile(t.Context(), "deep/er/g") })
	before := a.tree("s.1", 1)

	r.own("s.1", "b", 2, true)
	if after := b.tree("s.1", 2); after != before {
		t.Errorf("the session is\n%s, want\n%s", after, before)
	}
	b.write("s.1", 2, "f", "three")
	a.refused("s.1", 1, ErrElsewhere)
	a.refused("s.1", 2, ErrElsewhere)
	if _, ok := a.Sessions.Get("s.1"); ok {
		t.Error("the worker before has its copy still")
	}
	r.own("s.1", "a", 3, true)
	if got := a.read("s.1", 3, "f"); got != "three" {
		t.Errorf("back at the first worker: %q", got)
	}
	b.refused("s.1", 2, ErrElsewhere)
}

// One that knows nothing of its loss yet, because its heartbeats count.
func TestFencedWorkerCantWrite(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.Beat()()
	a.write("s", 1, "f", "one")
	h := a.use("s", 1)
	r.own("s", "b", 2, true)
	b.read("s", 2, "f") // no write is needed to shut the other out
	if err := h.WriteFile(t.Context(), "f", []byte("old")); !errors.Is(err, ErrElsewhere) {
		t.Errorf("write: %v, want ErrElsewhere", err)
	}
	if _, err := h.ReadFile("f"); !errors.Is(err, ErrElsewhere) {
		t.Errorf("read after that: %v, want ErrElsewhere", err)
	}
	if err := h.Save(t.Context()); !errors.Is(err, ErrElsewhere) {
		t.Errorf("save: %v, want ErrElsewhere", err)
	}
	h.Release()
	a.Close()
	if _, ok := a.Sessions.Get("s"); ok {
		t.Error("the fenced worker keeps its copy")
	}
	if got := b.read("s", 2, "f"); got != "one" {
		t.Errorf("f is %q", got)
	}
}

// A heartbeat that was held up on its way is a gap, however soon it was begun.
func TestHeartbeatHeldUpIsAGap(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	now := int64(time.Hour)
	a.clock = func() int64 { return now }
	a.Beat()()
	before, _ := a.lease()
	now += int64(protocol.WorkerTTL) - 1
	if _, holds := a.lease(); !holds {
		t.Error("the lease was over before its time")
	}
	written := a.Beat() // begun in time
	now += 2            // and there too late
	written()
	if after, holds := a.lease(); after == before || !holds {
		t.Errorf("lease %d, holds %v; want another than %d that holds", after, holds, before)
	}
}

// A worker whose heartbeats were missing looks before it serves.
func TestLapsedWorkerLooksBeforeItServes(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.Beat()()
	a.write("s", 1, "f", "one")
	r.own("s", "b", 2, true)
	b.write("s", 2, "f", "two")
	if got := a.read("s", 1, "f"); got != "one" {
		t.Fatalf("while its heartbeats count: %q; the test shows nothing", got)
	}
	a.beaten.Add(-int64(time.Hour)) // it was stopped for long
	a.refused("s", 1, ErrElsewhere)

	// It beats again before anybody asks it.
	r.own("t", "a", 1, true)
	a.Beat()()
	a.write("t", 1, "f", "one")
	r.own("t", "b", 2, true)
	b.write("t", 2, "f", "two")
	a.beaten.Add(-int64(time.Hour))
	a.Beat()()
	a.refused("t", 1, ErrElsewhere)

	// One that was not replaced goes on, and looks once.
	r.own("u", "a", 1, true)
	a.write("u", 1, "f", "one")
	a.beaten.Add(-int64(time.Hour))
	a.Beat()()
	if got := a.read("u", 1, "f"); got != "one" {
		t.Errorf("u: %q", got)
	}
}
