package workcopy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// replace records another owner, as a gateway does.
func (r *rig) replace(id, worker string, epoch uint64, former ...protocol.Former) {
	r.t.Helper()
	r.own(id, worker, epoch, true)
	record := r.record(id)
	record.Former = former
	value, err := json.Marshal(record)
	if err == nil {
		_, err = r.bus.Sessions.Put(r.t.Context(), protocol.SessionKey(id), value)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) record(id string) (record protocol.SessionRecord) {
	r.t.Helper()
	e, err := r.bus.Sessions.Get(r.t.Context(), protocol.SessionKey(id))
	if err == nil {
		err = json.Unmarshal(e.Value(), &record)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// beat writes a worker's heartbeat, and returns what a gateway says of the worker
// that has seen no other since.
func (w *worker) beat() protocol.Former {
	w.t.Helper()
	if err := w.Heartbeat(w.t.Context(), []byte("{}")); err != nil {
		w.t.Fatal(err)
	}
	return w.seen()
}

func (w *worker) seen() protocol.Former {
	w.t.Helper()
	s, err := w.Store.Sight(w.t.Context(), w.Worker)
	if err != nil {
		w.t.Fatal(err)
	}
	return protocol.Former{Worker: w.Worker, Seen: s.Revision, At: s.Written}
}

// listen answers who asks the worker to let go, and counts that.
func (w *worker) listen(answer bool) *atomic.Int64 {
	w.t.Helper()
	asked := new(atomic.Int64)
	nc := w.Store.Bus.NC
	sub, err := nc.Subscribe(protocol.ReleaseSubject(w.Worker), func(msg *nats.Msg) {
		asked.Add(1)
		var r protocol.Release
		if !answer || json.Unmarshal(msg.Data, &r) != nil {
			return
		}
		w.LetGo(r)
		msg.Respond(msg.Data)
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { sub.Unsubscribe() })
	return asked
}

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

// neverWaits fails the test if the worker waits.
func (w *worker) neverWaits() {
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

// A worker that read the record before, and is still loading the session, must not
// begin to serve it after it has let go.
func TestLetGoOfALoadUnderWay(t *testing.T) {
	r := newRig(t)
	a, z := r.worker("a"), r.worker("z")
	a.beat()
	r.own("s", "z", 1, true)
	z.write("s", 1, "f", "one")
	r.own("s", "a", 2, true)
	claimed := make(chan *nats.Msg, 8)
	sub, err := r.bus.NC.ChanSubscribe(protocol.ManifestSubject("s"), claimed)
	if err == nil {
		err = r.bus.NC.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	c := a.get("s")
	c.order.Lock() // the load stops when it has claimed the journal
	done := make(chan error, 1)
	go func() {
		h, err := a.Acquire(t.Context(), "s", 2, false)
		if err == nil {
			h.Release()
		}
		done <- err
	}()
	<-claimed
	a.LetGo(protocol.Release{Session: "s", Epoch: 3, Created: r.record("s").Created})
	c.order.Unlock()
	if err := <-done; !errors.Is(err, ErrElsewhere) {
		t.Errorf("the load under way: %v, want ErrElsewhere", err)
	}
	a.put(c)
	// As if the record were read from a server that doesn't know the new one.
	before := r.messages()
	a.refused("s", 2, ErrElsewhere)
	if n := r.messages() - before; n != 0 {
		t.Error("it claimed the journal")
	}
	if _, ok := a.Sessions.Get("s"); ok {
		t.Error("a copy is left")
	}
	// Of a later session with that id nothing is over.
	record := r.record("s")
	record.Created = record.Created.Add(time.Hour)
	value, err := json.Marshal(record)
	if err == nil {
		_, err = r.bus.Sessions.Put(t.Context(), protocol.SessionKey("s"), value)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("s", 2, "f", "another")
}

// What is in use when a worker lets go may end; what comes then is refused at once.
func TestLetGoOfACopyInUse(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	a.beat()
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	h := a.use("s", 1)
	release := protocol.Release{Session: "s", Epoch: 2, Created: r.record("s").Created}
	release.Epoch = 1
	a.LetGo(release)
	a.use("s", 1).Release() // its own epoch isn't over
	release.Epoch = 2
	a.LetGo(release)
	a.refused("s", 1, ErrElsewhere) // with the hold still there
	if data, err := h.Session.ReadFile("f"); err != nil || string(data) != "one" {
		t.Errorf("read under way: %q, %v", data, err)
	}
	if err := h.WriteFile(t.Context(), "f", []byte("two")); !errors.Is(err, ErrElsewhere) {
		t.Errorf("write: %v, want ErrElsewhere", err)
	}
	h.Release()
	a.Close()
	if _, ok := a.Sessions.Get("s"); ok {
		t.Error("the copy is kept")
	}
	if n := len(a.copies); n != 0 {
		t.Errorf("%d copies in memory", n)
	}
}

// Where nothing is stored the directory stays, and isn't served.
func TestLetGoWithoutStorage(t *testing.T) {
	r := newRig(t)
	a := r.start("a", r.dir(), false)
	for _, id := range []string{"loaded", "not"} {
		r.own(id, "a", 1, false)
		a.write(id, 1, "f", "one")
	}
	delete(a.copies, "not")
	for _, id := range []string{"loaded", "not"} {
		a.LetGo(protocol.Release{Session: id, Epoch: 2, Created: r.record(id).Created})
		a.refused(id, 1, ErrElsewhere)
		if _, ok := a.Sessions.Get(id); !ok {
			t.Errorf("%s: the directory is gone", id)
		}
		if got := a.read(id, 2, "f"); got != "one" {
			t.Errorf("%s: a later epoch reads %q", id, got)
		}
	}
}

func TestEndedIsBounded(t *testing.T) {
	var e ended
	for i := range 3 * maxEnded {
		e.add(fmt.Sprint(i), life{1, 5})
	}
	if n := len(e.young) + len(e.old); n > 2*maxEnded {
		t.Errorf("%d sessions remembered", n)
	}
	last := fmt.Sprint(3*maxEnded - 1)
	for _, c := range []struct {
		created int64
		epoch   uint64
		over    bool
	}{{1, 4, true}, {1, 5, false}, {2, 4, false}, {anyCreated, 4, true}} {
		if got := e.covers(last, c.created, c.epoch); got != c.over {
			t.Errorf("created %d, epoch %d: over %v", c.created, c.epoch, got)
		}
	}
	e.add(last, life{1, 3})
	e.add(last, life{0, 9})
	if e.covers(last, 1, 5) || !e.covers(last, 1, 4) {
		t.Error("a release that was held up counts")
	}
	e.forget(last)
	if e.covers(last, 1, 4) {
		t.Error("not forgotten")
	}
}
