package ownership

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *bus.Bus {
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
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 10})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Both ways to read must agree on everything, so every test runs with both.
func TestStore(t *testing.T) {
	b := open(t)
	for _, way := range []struct {
		name     string
		replicas int
	}{{"direct", 1}, {"leader", 3}} {
		for _, c := range []struct {
			name string
			test func(t *testing.T, session string, one, two *Store)
		}{
			{"life of a record", testLife},
			{"two gateways create at once", testRace},
			{"a remembered owner may be stale", testStale},
			{"changes are compare-and-set", testCompareAndSet},
			{"former owners", testFormer},
		} {
			t.Run(way.name+"/"+c.name, func(t *testing.T) {
				// Dots in an id are the part that a key must be made for.
				session := "s." + protocol.NewID() + "..x."
				c.test(t, session, New(b, way.replicas), New(b, way.replicas))
			})
		}
	}
}

func testLife(t *testing.T, session string, one, two *Store) {
	ctx := t.Context()
	if _, err := one.Lookup(ctx, session); !errors.Is(err, ErrNone) {
		t.Fatalf("look-up of a new session: %v, want ErrNone", err)
	}
	o, created, err := one.Create(ctx, session, "w1", false)
	if err != nil || !created || o.Worker != "w1" || o.Epoch != 1 || o.Created.IsZero() {
		t.Fatalf("create: %+v, %v, %v", o, created, err)
	}
	// What one gateway was told is written, the other sees at once.
	seen, err := two.Lookup(ctx, session)
	if err != nil || seen.Worker != "w1" || seen.Revision != o.Revision || seen.Cached {
		t.Fatalf("look-up through the other store: %+v, %v", seen, err)
	}
	if again, err := two.Recall(ctx, session); err != nil || !again.Cached || again.Worker != "w1" {
		t.Errorf("second look-up: %+v, %v; want it remembered", again, err)
	}
	if err := one.Remove(ctx, session, o); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Lookup(ctx, session); !errors.Is(err, ErrNone) {
		t.Errorf("look-up after removal: %v, want ErrNone", err)
	}
	if o, created, err := one.Create(ctx, session, "w2", false); err != nil || !created || o.Worker != "w2" {
		t.Errorf("create after removal: %+v, %v, %v", o, created, err)
	}
}

func testRace(t *testing.T, session string, one, two *Store) {
	var wg sync.WaitGroup
	owners := make([]Owner, 8)
	wins := make([]bool, len(owners))
	for i := range owners {
		wg.Go(func() {
			store := []*Store{one, two}[i%2]
			var err error
			if owners[i], wins[i], err = store.Create(t.Context(), session, fmt.Sprint("w", i), false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	won := 0
	for i := range owners {
		if wins[i] {
			won++
		}
		if owners[i].Worker != owners[0].Worker {
			t.Errorf("two owners: %s and %s", owners[i].Worker, owners[0].Worker)
		}
	}
	if won != 1 {
		t.Errorf("%d creations won, want 1", won)
	}
}

func testStale(t *testing.T, session string, one, two *Store) {
	ctx := t.Context()
	o, _, err := one.Create(ctx, session, "w1", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Replace(ctx, session, o, "w2", protocol.Former{}); err != nil {
		t.Fatal(err)
	}
	if stale, err := one.Recall(ctx, session); err != nil || stale.Worker != "w1" || !stale.Cached {
		t.Errorf("remembered: %+v, %v; want the remembered w1, marked as such", stale, err)
	}
	if fresh, err := one.Lookup(ctx, session); err != nil || fresh.Worker != "w2" || fresh.Epoch != 2 || fresh.Cached {
		t.Errorf("looked up: %+v, %v; want w2 of epoch 2", fresh, err)
	}
	if again, err := one.Recall(ctx, session); err != nil || again.Worker != "w2" {
		t.Errorf("remembered after that: %+v, %v; want w2", again, err)
	}
	if err := two.Remove(ctx, session, Owner{Revision: mustLookup(t, two, session).Revision}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Lookup(ctx, session); !errors.Is(err, ErrNone) {
		t.Errorf("looked up after removal: %v, want ErrNone", err)
	}
	if _, err := one.Recall(ctx, session); !errors.Is(err, ErrNone) {
		t.Errorf("remembered after that: %v, want ErrNone", err)
	}
}

func mustLookup(t *testing.T, s *Store, session string) Owner {
	t.Helper()
	o, err := s.Lookup(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func testCompareAndSet(t *testing.T, session string, one, two *Store) {
	ctx := t.Context()
	first, _, err := one.Create(ctx, session, "w1", false)
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.Replace(ctx, session, first, "w2", protocol.Former{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Replace(ctx, session, first, "w3", protocol.Former{}); !errors.Is(err, ErrLost) {
		t.Errorf("replacing an outdated record: %v, want ErrLost", err)
	}
	if err := one.Remove(ctx, session, first); !errors.Is(err, ErrLost) {
		t.Errorf("removing an outdated record: %v, want ErrLost", err)
	}
	if o, err := one.Lookup(ctx, session); err != nil || o.Revision != second.Revision {
		t.Errorf("after both: %+v, %v; want the second record", o, err)
	}
}

// The record names all who may serve the session still, each once.
func testFormer(t *testing.T, session string, one, two *Store) {
	o, _, err := one.Create(t.Context(), session, "w1", true)
	if err != nil {
		t.Fatal(err)
	}
	lost := func(worker string, seen uint64) protocol.Former {
		return protocol.Former{Worker: worker, Seen: seen, At: time.Unix(1_700_000_000, int64(seen)).UTC()}
	}
	for _, step := range []struct {
		worker string
		lost   protocol.Former
		want   []protocol.Former
	}{
		{"w2", lost("w1", 7), []protocol.Former{lost("w1", 7)}},
		{"w3", protocol.Former{}, []protocol.Former{lost("w1", 7), {Worker: "w2"}}},
		{"w1", lost("w3", 9), []protocol.Former{{Worker: "w2"}, lost("w3", 9)}}, // it knows what it has itself
		{"w2", lost("w1", 12), []protocol.Former{lost("w3", 9), lost("w1", 12)}},
		{"w2", lost("w2", 13), []protocol.Former{lost("w3", 9), lost("w1", 12)}},
	} {
		before := slices.Clone(o.Former)
		next, err := one.Replace(t.Context(), session, o, step.worker, step.lost)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(o.Former, before) {
			t.Errorf("the record before has %+v now", o.Former)
		}
		o = next
		read := mustLookup(t, two, session)
		if !slices.Equal(o.Former, step.want) || !slices.Equal(read.Former, step.want) {
			t.Errorf("to %s: %+v, stored %+v, want %+v", step.worker, o.Former, read.Former, step.want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := cache{max: 10}
	for i := range 1000 {
		c.put(fmt.Sprint(i), Owner{Revision: uint64(i)})
		if o, ok := c.get("0"); !ok || o.Revision != 0 { // in use all the time
			t.Fatalf("after %d more, the entry in use is gone", i)
		}
	}
	if n := len(c.young) + len(c.old); n > 20 {
		t.Errorf("%d entries remembered, want 20 at most", n)
	}
	if _, ok := c.get("500"); ok {
		t.Error("an entry nobody asked for is still remembered")
	}
	c.drop("0")
	if _, ok := c.get("0"); ok {
		t.Error("a dropped entry is still remembered")
	}
}
