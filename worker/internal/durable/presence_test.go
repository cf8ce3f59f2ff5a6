package durable

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// mustBeat writes a heartbeat after last.
func mustBeat(t *testing.T, s *Store, last uint64, follows bool) uint64 {
	t.Helper()
	revision, followed, err := s.Beat(t.Context(), []byte("{}"), last)
	if err != nil || followed != follows {
		t.Fatalf("heartbeat after %d: follows %v, %v; want %v", last, followed, err, follows)
	}
	return revision
}

func mustSight(t *testing.T, s *Store, worker string) Sighting {
	t.Helper()
	found, err := s.Sight(t.Context(), worker)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A heartbeat is written in any case, and says whether it follows the one before.
func TestHeartbeatsFollow(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Minute)
	first := mustBeat(t, s, 0, false)
	second := mustBeat(t, s, first, true)
	if found := mustSight(t, s, "w"); found.Revision != second || found.Left || time.Since(found.Written).Abs() > time.Hour {
		t.Errorf("found %+v, want revision %d", found, second)
	}
	third := mustBeat(t, s, first, false) // the second was not acknowledged
	if found := mustSight(t, s, "w"); found.Revision != third {
		t.Errorf("found %+v, want revision %d", found, third)
	}
	stream, err := b.JS.Stream(t.Context(), bus.KeyStream(protocol.WorkersBucket))
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	mustBeat(t, s, third, false)
	if found := mustSight(t, s, "nobody"); found != (Sighting{}) {
		t.Errorf("nobody: %+v", found)
	}
}

// A goodbye that was held up doesn't end a later life.
func TestLeave(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Minute)
	if err := s.Leave(t.Context(), 0); err != nil {
		t.Errorf("without a heartbeat: %v", err)
	}
	first := mustBeat(t, s, 0, false)
	later := mustBeat(t, s, first, true)
	if err := s.Leave(t.Context(), first); err != nil { // the later one was not acknowledged
		t.Error(err)
	}
	if found := mustSight(t, s, "w"); !found.Left || found.Revision <= later {
		t.Errorf("found %+v, want a deletion after %d", found, later)
	}
	if err := s.Leave(t.Context(), later); err != nil {
		t.Errorf("twice: %v", err)
	}
	last := mustBeat(t, s, 0, false)
	if live, err := s.LiveWorkers(t.Context()); err != nil || !live["w"] {
		t.Errorf("back: %v, %v", live, err)
	}
	sent := make(chan *nats.Msg, 1)
	sub, err := b.NC.ChanSubscribe(heartbeatSubject("w"), sent)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := s.Leave(t.Context(), last); err != nil {
		t.Error(err)
	}
	if want := (<-sent).Header.Get(jetstream.ExpectedLastSubjSeqHeader); want != strconv.FormatUint(last, 10) {
		t.Errorf("the goodbye may follow %q, want %d alone", want, last)
	}
}

// What was found is confirmed by a write that nobody takes for a worker.
func TestUnchanged(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Minute)
	other := newStore(t, b, "other", time.Minute)
	confirm := func(revision uint64, want bool) {
		t.Helper()
		if ok, err := b.Confirm(t.Context(), bus.WorkersMarker, heartbeatSubject("other"), revision); err != nil || ok != want {
			t.Errorf("revision %d: %v, %v, want %v", revision, ok, err, want)
		}
	}
	confirm(0, true)
	confirm(1, false)
	first := mustBeat(t, other, 0, false)
	confirm(0, false)
	confirm(first, true)
	second := mustBeat(t, other, first, true)
	confirm(first, false)
	if err := other.Leave(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	confirm(second, false)
	confirm(mustSight(t, s, "other").Revision, true)
	if live, err := s.LiveWorkers(t.Context()); err != nil || len(live) != 0 {
		t.Errorf("workers %v, %v, want none", live, err)
	}
	if protocol.CheckWorkerID(protocol.ConfirmToken) == nil {
		t.Error("a worker may have the key's name")
	}
	// Of one server alone there is nobody to ask.
	if ok, err := s.Unchanged(t.Context(), "other", Sighting{Revision: 1}); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestAskRelease(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Minute)
	r := protocol.Release{Session: "s", Epoch: 2, Created: time.Unix(1, 2)}
	if err := s.AskRelease(t.Context(), "nobody", r, time.Minute); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("nobody: %v, want ErrNoResponders", err)
	}
	for worker, c := range map[string]struct {
		answer func(*nats.Msg)
		ok     bool
	}{
		"silent":  {func(*nats.Msg) {}, false},
		"other":   {func(m *nats.Msg) { m.Respond([]byte("no")) }, false},
		"letsGo":  {func(m *nats.Msg) { m.Respond(m.Data) }, true},
		"nothing": {func(m *nats.Msg) { m.Respond(nil) }, false},
	} {
		sub, err := b.NC.Subscribe(protocol.ReleaseSubject(worker), c.answer)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		patience := 10 * time.Second
		if worker == "silent" {
			patience = time.Millisecond
		}
		if err := s.AskRelease(t.Context(), worker, r, patience); (err == nil) != c.ok {
			t.Errorf("%s: %v", worker, err)
		}
	}
}
