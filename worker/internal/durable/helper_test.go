package durable

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
)

func newBus(t testing.TB) *bus.Bus {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(context.Background(), nc, bus.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newStore(t testing.TB, b *bus.Bus, worker string, grace time.Duration) *Store {
	t.Helper()
	s, err := New(Config{Bus: b, Worker: worker, Grace: grace, Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustLoad(t testing.TB, s *Store, session string) *Journal {
	t.Helper()
	j, err := s.Load(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// begin returns the journal of a new session.
func begin(t testing.TB, s *Store, session string) *Journal {
	t.Helper()
	j, err := s.Load(t.Context(), session)
	if !errors.Is(err, ErrNone) {
		t.Fatalf("load: %v, want ErrNone", err)
	}
	j.Begin(Identity{Session: session, Created: 7, Epoch: 1})
	return j
}

func file(path, content string) Entry {
	return Entry{Path: path, Mode: 0o644, MTime: 5, Size: int64(len(content)), Inline: []byte(content)}
}

func stored(t testing.TB, s jetstream.Stream) uint64 {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

// compare holds a journal's entries against others, contents by what they are.
func compare(t *testing.T, s *Store, j *Journal, want map[string]Entry) {
	t.Helper()
	got := j.Entries()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for _, e := range got {
		w := want[e.Path]
		a, b := content(t, s, e), content(t, s, w)
		e.Inline, e.Blobs, w.Inline, w.Blobs = nil, nil, nil, nil
		if !reflect.DeepEqual(e, w) || !bytes.Equal(a, b) {
			t.Fatalf("%q is %+v (%d bytes), want %+v (%d bytes)", e.Path, e, len(a), w, len(b))
		}
	}
}

func content(t *testing.T, s *Store, e Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Get(t.Context(), e.Content(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
