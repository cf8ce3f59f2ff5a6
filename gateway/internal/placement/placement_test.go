package placement

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// worker is one with 4 slots and a roomy disk, changed by change.
func worker(id string, change func(*Worker)) Worker {
	w := Worker{Heartbeat: &protocol.Heartbeat{Worker: id, Slots: 4, FreeBytes: 10 << 30}, Seen: now}
	if change != nil {
		change(&w)
	}
	return w
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers []Worker
		want    string // "" for none
	}{
		{"nobody", nil, ""},
		{"only one", []Worker{worker("a", nil)}, "a"},
		{"the last heartbeat is too old", []Worker{worker("a", func(w *Worker) { w.Seen = now.Add(-protocol.WorkerTTL) })}, ""},
		{"just recent enough", []Worker{worker("a", func(w *Worker) { w.Seen = now.Add(-protocol.WorkerTTL + 1) })}, "a"},
		{"draining", []Worker{worker("a", func(w *Worker) { w.Draining = true })}, ""},
		{"most free slots", []Worker{worker("a", func(w *Worker) { w.Busy = 2 }), worker("b", func(w *Worker) { w.Busy = 1 })}, "b"},
		{"free slots before sessions", []Worker{
			worker("a", func(w *Worker) { w.Busy = 1 }), worker("b", func(w *Worker) { w.Sessions = 500 })}, "b"},
		{"fewest sessions", []Worker{
			worker("a", func(w *Worker) { w.Sessions = 3 }), worker("b", func(w *Worker) { w.Sessions = 2 })}, "b"},
		{"most free bytes", []Worker{worker("a", nil), worker("b", func(w *Worker) { w.FreeBytes++ })}, "b"},
		{"a full disk comes last", []Worker{
			worker("a", func(w *Worker) { w.FreeBytes = MinFreeBytes - 1 }), worker("b", func(w *Worker) { w.Busy = 4 })}, "b"},
		{"a full disk is better than none", []Worker{worker("a", func(w *Worker) { w.FreeBytes = 0 })}, "a"},
		{"a busy worker is better than none", []Worker{worker("a", func(w *Worker) { w.Busy = 4 })}, "a"},
		{"what was placed since the heartbeat counts", []Worker{
			worker("a", func(w *Worker) { w.Placed = 8 }), worker("b", func(w *Worker) { w.Sessions = 7 })}, "b"},
		{"what was placed lately will want slots", []Worker{
			worker("a", func(w *Worker) { w.Recent = 1.5 }), worker("b", func(w *Worker) { w.Sessions = 7 })}, "b"},
		{"and does not any more after a while", []Worker{
			worker("a", func(w *Worker) { w.Recent = 0.9 }), worker("b", func(w *Worker) { w.Sessions = 7 })}, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := Choose(c.workers, "s", now)
			if got != c.want || ok != (c.want != "") {
				t.Errorf("Choose: %q, %v; want %q", got, ok, c.want)
			}
		})
	}
}

func TestChooseSpreadsEqualsAndIgnoresOrder(t *testing.T) {
	const sessions = 3000
	workers := []Worker{worker("w-1", nil), worker("w-2", nil), worker("w-3", nil)}
	shuffled := []Worker{workers[2], workers[0], workers[1]}
	count := map[string]int{}
	for i := range sessions {
		id := fmt.Sprint("session-", i)
		got, _ := Choose(workers, id, now)
		if again, _ := Choose(shuffled, id, now); again != got {
			t.Fatalf("session %s goes to %s or %s, by the order of the workers", id, got, again)
		}
		count[got]++
	}
	for _, w := range workers {
		if n := count[w.Worker]; n < sessions/3*8/10 || n > sessions/3*12/10 {
			t.Errorf("%d of %d sessions went to %s, want about a third", n, sessions, w.Worker)
		}
	}
}

// Placing many sessions between two heartbeats must fill the workers evenly.
func TestChooseWithinOneInterval(t *testing.T) {
	workers := []Worker{worker("a", nil), worker("b", nil), worker("c", func(w *Worker) { w.Sessions = 1000 })}
	for i := range 300 {
		id, ok := Choose(workers, fmt.Sprint(i), now)
		if !ok {
			t.Fatal("no worker")
		}
		for j := range workers {
			if workers[j].Worker == id {
				workers[j].Placed++
				workers[j].Recent++
			}
		}
	}
	for _, w := range workers {
		if w.Placed != 100 {
			t.Errorf("%s got %d of 300 sessions, want 100", w.Worker, w.Placed)
		}
	}
}

func BenchmarkChoose1000Workers(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	workers := make([]Worker, 1000)
	for i := range workers {
		workers[i] = worker(fmt.Sprintf("worker-%04d", i), func(w *Worker) {
			w.Busy, w.Sessions, w.FreeBytes = r.IntN(4), r.IntN(50), r.Int64N(1<<40)
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Choose(workers, "0b9d4c5e-6f5a-4a5e-9c55-2f3c9e0a7b11", now); !ok {
			b.Fatal("no worker")
		}
	}
}
