package workcopy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

func (w *worker) sweeper(ttl time.Duration) *sweeper {
	return &sweeper{Manager: w.Manager, cfg: SweepConfig{Interval: time.Nanosecond, TTL: ttl}, every: time.Hour, collector: w.Store.NewCollector()}
}

func (s *sweeper) mustPass(t *testing.T) {
	t.Helper()
	if err := s.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// beat says that a worker is there.
func (r *rig) beat(worker string) {
	r.t.Helper()
	if _, err := r.bus.Workers.Put(r.t.Context(), worker, []byte("{}")); err != nil {
		r.t.Fatal(err)
	}
}

func (w *worker) gone(id string) bool {
	w.t.Helper()
	_, err := w.Store.Record(w.t.Context(), id)
	_, jerr := w.Store.Load(w.t.Context(), id)
	_, here := w.Sessions.Get(id)
	return errors.Is(err, durable.ErrNone) && errors.Is(jerr, durable.ErrNone) && !here
}

// An idle session goes with everything of it, one in use doesn't.
func TestIdleSessionsGo(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	for _, id := range []string{"idle", "used", "held", "fork"} {
		r.own(id, "a", 1, true)
		if id != "fork" {
			a.write(id, 1, "f", "x")
		}
	}
	a.with("used", 1, func(h *Hold) error { return h.Fork(t.Context(), "fork", 1) }) // never used itself
	const ttl = 200 * time.Millisecond
	h := a.use("held", 1)
	time.Sleep(ttl + 50*time.Millisecond)
	a.skew.Add(int64(time.Hour)) // however long the sweep takes to come
	a.read("used", 1, "f")
	a.skew.Add(-int64(time.Hour))
	a.sweeper(ttl).mustPass(t)
	for id, want := range map[string]bool{"idle": true, "used": false, "held": false, "fork": true} {
		if got := a.gone(id); got != want {
			t.Errorf("%s: gone %v, want %v", id, got, want)
		}
	}
	h.Release()
	a.read("held", 1, "f")
	a.refused("idle", 1, ErrElsewhere) // the gateway makes it anew
	r.own("idle", "a", 1, true)
	if got := a.tree("idle", 1); got != "" {
		t.Errorf("the new session of that id has\n%s", got)
	}
	a.sweeper(0).mustPass(t)
	if a.gone("used") {
		t.Error("a session went although there is no time to live")
	}
}

// Requests that come while a session is being removed are served, or find it
// gone; never is something acknowledged and lost.
func TestRequestsWhileASessionExpires(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	s := a.sweeper(time.Nanosecond)
	refused := 0
	for range 40 {
		r.own("s", "a", 1, true)
		a.write("s", 1, "f", "x")
		var wg sync.WaitGroup
		wg.Go(func() { s.pass(context.Background()) })
		time.Sleep(300 * time.Microsecond)
		h, err := a.Acquire(t.Context(), "s", 1, true)
		if err != nil {
			if refused++; !errors.Is(err, ErrElsewhere) {
				t.Errorf("acquire: %v", err)
			}
			wg.Wait()
			continue
		}
		if err := h.WriteFile(t.Context(), "g", []byte("y")); err != nil {
			t.Errorf("write: %v", err)
		}
		if data, err := h.ReadFile("f"); err != nil || string(data) != "x" {
			t.Errorf("f is %q, %v", data, err)
		}
		wg.Wait()
		h.Release()
	}
	t.Logf("%d of 40 came too late", refused)
}

// Sessions whose owner is gone for good go too, those of one that is there don't.
func TestIdleSessionsOfLostWorkersGo(t *testing.T) {
	r := newRig(t)
	a, b, c := r.worker("a"), r.worker("b"), r.worker("c")
	r.beat("a")
	r.beat("b")
	r.own("lost", "c", 1, true)
	r.own("live", "b", 1, true)
	c.write("lost", 1, "f", "x")
	b.write("live", 1, "f", "x")
	const ttl = 150 * time.Millisecond
	a.sweeper(time.Hour).mustPass(t)
	if c.gone("lost") {
		t.Fatal("gone before its time")
	}
	time.Sleep(ttl)
	b.sweeper(time.Hour).mustPass(t) // not the collector: a is
	s := a.sweeper(ttl)
	s.mustPass(t)
	c.Sessions.Remove("lost") // with the worker
	if !c.gone("lost") || b.gone("live") {
		t.Errorf("lost: gone %v, want true; live: gone %v, want false", c.gone("lost"), b.gone("live"))
	}
}

// Directories of sessions that others own go, those of this worker don't.
func TestStraysGo(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	for _, id := range []string{"mine", "theirs", "held", "none"} {
		r.own(id, "a", 1, true)
		a.write(id, 1, "f", "x")
	}
	r.own("theirs", "b", 2, true)
	h := a.use("held", 1)
	r.own("held", "b", 2, true)
	rec, err := a.Store.Record(t.Context(), "none")
	if err == nil {
		err = a.Store.RemoveRecord(t.Context(), rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := a.sweeper(time.Hour)
	s.mustPass(t)
	if _, here := a.Sessions.Get("held"); !here {
		t.Error("a session was removed while it is used")
	}
	h.Release()
	a.stop()
	a2 := r.start("a", a.dir, true)
	s = a2.sweeper(time.Hour)
	s.mustPass(t)
	for id, want := range map[string]bool{"mine": true, "theirs": false, "held": false, "none": true} {
		if _, here := a2.Sessions.Get(id); here != want {
			t.Errorf("%s: here %v, want %v", id, here, want)
		}
	}
	s = a2.sweeper(time.Nanosecond)
	s.mustPass(t)
	if _, here := a2.Sessions.Get("none"); here {
		t.Error("a directory without a record stays for ever")
	}
}

// From a write to the removal of the last blob.
func TestBlobsGoWithTheirSessions(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	r.own("t", "a", 1, true)
	a.write("s", 1, "f", strings.Repeat("only s has it", 1000))
	a.write("t", 1, "f", strings.Repeat("both have it", 1000))
	a.write("s", 1, "g", strings.Repeat("both have it", 1000))
	blobs := func() uint64 {
		info, err := r.bus.Blobs.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
	if n := blobs(); n != 2 {
		t.Fatalf("%d blobs, want 2", n)
	}
	rec, err := a.Store.Record(t.Context(), "s")
	if err == nil {
		err = a.expire(t.Context(), rec, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(testGrace)
	s := a.sweeper(0)
	s.mustPass(t)
	s.mustPass(t)
	if n := blobs(); n != 1 {
		t.Errorf("%d blobs, want the one that t has", n)
	}
	// A journal whose record was lost on the way goes, and what it names.
	if err := r.bus.Sessions.Purge(t.Context(), protocol.SessionKey("t")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.mustPass(t)
	}
	if n := blobs(); n != 0 {
		t.Errorf("%d blobs are left of a session without a record", n)
	}
}

// What is not used for long takes no memory, and is there when it is used again.
func TestParking(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	s := a.sweeper(0)
	s.park(t.Context())
	if len(a.copies) != 1 {
		t.Fatal("a session was parked that was just used")
	}
	a.skew.Add(int64(-2 * parkTime))
	a.copies["s"].sess.Touch()
	s.park(t.Context())
	if len(a.copies) != 0 {
		t.Error("a session was not parked that nobody uses")
	}
	if got := a.read("s", 1, "f"); got != "one" {
		t.Errorf("f is %q", got)
	}
}

func TestSettled(t *testing.T) {
	at := time.Unix(1000, 0)
	for age, want := range map[time.Duration]bool{0: false, 10 * time.Millisecond: false, time.Second: true, -time.Second: false} {
		l := look{session.Stamp{CTime: at.Add(-age).UnixNano()}, at}
		if l.settled() != want {
			t.Errorf("changed %v before it was looked at: settled %v, want %v", age, l.settled(), want)
		}
	}
}
