package durable

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

func TestOneCollector(t *testing.T) {
	b := newBus(t)
	one, two := newStore(t, b, "one", time.Hour), newStore(t, b, "two", time.Hour)
	ask := func(s *Store, lease time.Duration, want bool) {
		t.Helper()
		if got, err := s.Collects(t.Context(), lease); err != nil || got != want {
			t.Errorf("%s collects: %v, %v; want %v", s.Worker, got, err, want)
		}
	}
	ask(one, time.Hour, true)
	ask(two, time.Hour, false)
	ask(one, time.Hour, true)
	time.Sleep(2 * time.Millisecond)
	ask(two, time.Millisecond, true)
	ask(one, time.Hour, false)
}

// What is named stays, what isn't goes, in the second pass and after the grace.
func TestCollect(t *testing.T) {
	b := newBus(t)
	const grace = time.Second
	s := newStore(t, b, "w", grace)
	put := func(c byte) Entry {
		t.Helper()
		content, err := s.Put(t.Context(), bytes.NewReader(bytes.Repeat([]byte{c}, 10_000)))
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{Path: string(c), Mode: 0o644}
		e.SetContent(content)
		return e
	}
	c := s.NewCollector()
	// pass makes one as if it were made a grace after a time: however long it
	// takes, what was stored since is young.
	pass := func(after time.Time, want int) {
		t.Helper()
		c.now = func() time.Time { return after.Add(grace) }
		if _, removed, err := c.Collect(t.Context()); err != nil || removed != want {
			t.Errorf("%d removed, %v; want %d", removed, err, want)
		}
	}
	begun := time.Now()
	pass(begun, 0) // nothing is there at all
	kept, dropped, again := put('k'), put('d'), put('a')
	put('n') // never named
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{kept, dropped}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := j.Fork(Identity{Session: "fork", Created: 9, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if err := j.Stage(nil, []string{kept.Path, dropped.Path}).Wait(); err != nil {
		t.Fatal(err)
	}
	f := mustLoad(t, s, "fork")
	f.Begin(Identity{Session: "fork", Created: 9, Epoch: 1})
	if err := f.Stage(nil, []string{dropped.Path}).Wait(); err != nil {
		t.Fatal(err)
	}
	pass(begun, 0)
	pass(begun, 0)                          // all are younger than the grace
	time.Sleep(grace + 50*time.Millisecond) // so long that it is stored again
	later := time.Now()
	pass(later, 0) // the first time they are seen unnamed
	put('a')
	pass(later, 1) // 'n'; 'd' is named by changes still, 'a' is young again
	if _, err := s.GetBlob(t.Context(), again.Blobs[0]); err != nil {
		t.Error(err)
	}
	// New bases, which overtake the changes that named it.
	for _, j := range []*Journal{j, f} {
		j.mu.Lock()
		j.changes = maxChanges
		j.mu.Unlock()
		if err := j.Stage([]Entry{file("other", "")}, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	pass(time.Now(), 0)
	pass(time.Now(), 2) // 'd' and 'a'
	if _, err := s.GetBlob(t.Context(), kept.Blobs[0]); err != nil {
		t.Errorf("what a fork names: %v", err)
	}
	journals, _, err := c.Collect(t.Context())
	if got := slices.Sorted(maps.Keys(journals)); err != nil || !slices.Equal(got, []string{"fork", "s"}) {
		t.Errorf("journals %v, %v", got, err)
	}
}

// The pieces of a large base, and what it names, are named.
func TestCollectKeepsLargeBases(t *testing.T) {
	b := newBus(t)
	const grace = 50 * time.Millisecond
	s := newStore(t, b, "w", grace)
	j := begin(t, s, "s")
	var set []Entry
	for i := range 4000 {
		e := Entry{Path: fmt.Sprintf("%0100d", i), Mode: 0o644}
		c, err := s.Put(t.Context(), bytes.NewReader(bytes.Repeat([]byte{byte(i % 3)}, 5000)))
		if err != nil {
			t.Fatal(err)
		}
		e.SetContent(c)
		set = append(set, e)
	}
	if err := j.Stage(set, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * grace)
	c := s.NewCollector()
	for range 3 {
		if _, removed, err := c.Collect(t.Context()); err != nil || removed != 0 {
			t.Fatalf("%d removed, %v", removed, err)
		}
	}
	if got := mustLoad(t, s, "s"); len(got.Entries()) != len(set) {
		t.Errorf("%d entries", len(got.Entries()))
	}
}
