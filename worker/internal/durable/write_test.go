package durable

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A write that fails leaves nothing in doubt: no more can be written.
func TestFailedWrite(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	cfg := b.Manifests.CachedInfo().Config
	refuse := cfg
	refuse.MaxMsgSize = 10
	if _, err := b.JS.UpdateStream(t.Context(), refuse); err != nil {
		t.Fatal(err)
	}
	first := j.Stage([]Entry{file("a", "2")}, nil)
	if err := first.Wait(); err == nil || errors.Is(err, ErrFenced) {
		t.Errorf("error %v, want one that is not ErrFenced", err)
	}
	cfg.MaxMsgSize = -1
	if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := j.Stage([]Entry{file("b", "3")}, nil).Wait(); err == nil || j.Broken() == nil {
		t.Error("a change after one that may be lost was stored")
	}
	if e, _ := mustLoad(t, s, "s").Entry("a"); string(e.Inline) != "1" {
		t.Errorf("a is %q", e.Inline)
	}
}

// An acknowledgement that is lost leaves no doubt: the message is sent again, and
// what is there says that the first arrived. If somebody else has written
// meanwhile, it did not.
func TestLostAcknowledgement(t *testing.T) {
	b := newBus(t)
	mute := func(noAck bool) {
		t.Helper()
		cfg := b.Manifests.CachedInfo().Config
		cfg.NoAck = noAck
		if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, b, "w", time.Hour)
	s.patience = 20 * time.Millisecond
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	before := stored(t, b.Manifests)
	mute(true)
	done := make(chan error, 1)
	go func() { done <- j.Stage([]Entry{file("a", "2")}, nil).Wait() }()
	for stored(t, b.Manifests) == before {
		time.Sleep(time.Millisecond)
	}
	mute(false)
	if err := <-done; err != nil {
		t.Fatalf("stored, and its acknowledgement lost: %v", err)
	}
	if err := j.Stage([]Entry{file("b", "3")}, nil).Wait(); err != nil {
		t.Fatalf("the next one: %v", err)
	}
	if n := stored(t, b.Manifests); n != before+2 {
		t.Errorf("%d messages, want %d", n, before+2)
	}
	if e, _ := mustLoad(t, s, "s").Entry("a"); string(e.Inline) != "2" {
		t.Errorf("a is %q", e.Inline)
	}

	j.mu.Lock()
	j.sequence-- // as if another owner's message had come when this one's was lost
	j.mu.Unlock()
	msg := &nats.Msg{Subject: protocol.ManifestSubject("s"), Data: []byte("mine"), Header: nats.Header{}}
	if _, err := s.settle(t.Context(), msg, j.sequence); !errors.Is(err, ErrFenced) {
		t.Errorf("another's message is there: %v, want ErrFenced", err)
	}
	// Another's base has replaced what was before it: nobody knows.
	j = mustLoad(t, s, "s")
	j.Begin(Identity{Session: "s", Created: 7, Epoch: 2})
	lost := j.sequence
	for range 2 {
		j.changes = maxChanges
		if err := j.Claim().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.settle(t.Context(), msg, lost); !errors.Is(err, ErrDoubt) {
		t.Errorf("another's base is there: %v, want ErrDoubt", err)
	}
}
