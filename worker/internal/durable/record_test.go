package durable

import (
	"errors"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestRecords(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	if _, err := s.Record(t.Context(), "a.b"); !errors.Is(err, ErrNone) {
		t.Fatalf("no record: %v", err)
	}
	if _, err := b.Sessions.Put(t.Context(), protocol.SessionKey("a.b"), []byte(`{"worker":"w","epoch":3}`)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Record(t.Context(), "a.b")
	if err != nil || r.Worker != "w" || r.Epoch != 3 || r.Durable {
		t.Fatalf("record %+v, %v", r, err)
	}
	if err := s.MarkDurable(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkDurable(t.Context(), r); !errors.Is(err, ErrFenced) {
		t.Errorf("with an old revision: %v, want ErrFenced", err)
	}
	if err := s.RemoveRecord(t.Context(), r); !errors.Is(err, ErrFenced) {
		t.Errorf("removed with an old revision: %v, want ErrFenced", err)
	}
	all, err := s.Records(t.Context())
	if err != nil || len(all) != 1 || !all["a.b"].Durable {
		t.Fatalf("records %+v, %v", all, err)
	}
	if err := s.RemoveRecord(t.Context(), all["a.b"]); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Records(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("records %+v, %v", all, err)
	}
	// What is left of the key goes by itself.
	left, err := bus.Last(t.Context(), b.NC, bus.KeyStream(protocol.SessionsBucket), bus.KeySubject(protocol.SessionsBucket, "a=b"))
	if err != nil || !left.Deleted() || left.Header.Get("Nats-TTL") != bus.MarkerTTL.String() {
		t.Errorf("left of the record: %v, %v", left.Header, err)
	}
	// The id can be used again.
	if _, err := b.Sessions.Create(t.Context(), "a=b", []byte(`{}`)); err != nil {
		t.Error(err)
	}
}
