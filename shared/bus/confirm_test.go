package bus_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func open(t *testing.T) *bus.Bus {
	t.Helper()
	_, nc := connect(t, embeddednats.Config{})
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 10})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConfirm(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	key := func(name string) string { return bus.KeySubject(protocol.SessionsBucket, name) }
	revision, err := b.Sessions.Put(ctx, "a", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		sequence uint64
		want     bool
	}{
		{"a", revision, true}, {"a", revision - 1, false}, {"a", 0, false}, {"none", 0, true}, {"none", 1, false},
		{"a", revision, true}, // confirmations are no change
	} {
		if got, err := b.Confirm(ctx, bus.SessionsMarker, key(c.name), c.sequence); err != nil || got != c.want {
			t.Errorf("%s at %d: %v %v, want %v", c.name, c.sequence, got, err, c.want)
		}
	}
	for _, marker := range []struct {
		bus.Marker
		subject string
		stream  string
	}{
		{bus.ManifestsMarker, protocol.ManifestSubject("s"), protocol.ManifestsStream},
		{bus.KeptMarker, protocol.KeptSubject("j"), protocol.KeptStream},
		{bus.WorkersMarker, bus.KeySubject(protocol.WorkersBucket, "w"), bus.KeyStream(protocol.WorkersBucket)},
	} {
		for range 3 {
			if ok, err := b.Confirm(ctx, marker.Marker, marker.subject, 0); err != nil || !ok {
				t.Errorf("%s: %v %v", marker.subject, ok, err)
			}
		}
		s, err := b.JS.Stream(ctx, marker.stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n != 1 {
			t.Errorf("%s: %d confirmations are kept, want 1", marker.stream, n)
		}
	}
	// Who reads all keys sees no value.
	keys, err := b.Sessions.Keys(ctx)
	if err != nil || len(keys) != 1 || keys[0] != "a" {
		t.Errorf("keys %v %v, want a alone", keys, err)
	}
	if _, err := b.Workers.Keys(ctx); !errors.Is(err, jetstream.ErrNoKeysFound) {
		t.Errorf("workers: %v, want none", err)
	}
}

// What changes between the reading and its confirmation, as what a server that
// was frozen doesn't know of, is read again.
func TestLastConfirmed(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	subject := bus.KeySubject(protocol.SessionsBucket, "a")
	last := func(doubted func(bus.Message) bool) (bus.Message, error) {
		return b.LastSure(ctx, bus.KeyStream(protocol.SessionsBucket), bus.SessionsMarker, subject, doubted)
	}
	if _, err := last(bus.Message.Deleted); !errors.Is(err, bus.ErrNoMessage) {
		t.Errorf("of none: %v", err)
	}
	put := func(value string) {
		if _, err := b.Sessions.Put(context.Background(), "a", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	put("1")
	if m, err := last(bus.Message.Deleted); err != nil || string(m.Data) != "1" {
		t.Errorf("read %q %v, want 1", m.Data, err)
	}
	if m, err := last(func(m bus.Message) bool {
		if string(m.Data) == "1" {
			put("2")
		}
		return true
	}); err != nil || string(m.Data) != "2" {
		t.Errorf("read %q %v, want 2", m.Data, err)
	}
	if err := b.Sessions.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if m, err := last(bus.Message.Deleted); err != nil || !m.Deleted() {
		t.Errorf("read %+v %v, want a deletion", m, err)
	}
	if m, err := last(func(bus.Message) bool { put("3"); return true }); err == nil {
		t.Errorf("read %q of what never stays, want an error", m.Data)
	}
}

// Whoever comes while one asks is answered by the next, all together; nobody by one
// that asked before.
func TestConfirmsAreShared(t *testing.T) {
	var c bus.Confirms
	asked := 0
	ask := func() (bool, error) { asked++; return true, nil }
	var wg sync.WaitGroup
	const callers = 20
	in, out := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		c.Do("w", 1, func() (bool, error) { close(in); <-out; return ask() })
	})
	<-in
	for range callers {
		wg.Go(func() {
			if ok, err := c.Do("w", 1, ask); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	for c.Turns() < callers+2 { // they number themselves before they wait
		runtime.Gosched()
	}
	close(out)
	wg.Wait()
	if asked != 2 {
		t.Errorf("asked %d times for %d callers, want 2", asked, callers+1)
	}
	c.Do("w", 1, ask)
	if asked != 3 {
		t.Error("answered by what was asked before")
	}
	boom := errors.New("boom")
	for _, answer := range []struct {
		ok  bool
		err error
	}{{false, nil}, {false, boom}} {
		if ok, err := c.Do("w", 1, func() (bool, error) { return answer.ok, answer.err }); ok || !errors.Is(err, answer.err) {
			t.Errorf("%v, %v, want %v", ok, err, answer)
		}
	}
}
