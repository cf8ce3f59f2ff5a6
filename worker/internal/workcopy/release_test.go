package workcopy

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

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
