package admit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
)

func window(n int) func(string) int { return func(string) int { return n } }

// enter starts callers that wait, in this order, and returns where each says that
// it was let in.
func enter(t *testing.T, g *Gate, class Class, callers ...string) <-chan string {
	t.Helper()
	in := make(chan string, len(callers))
	for _, c := range callers {
		before := g.Waiting()
		go func() {
			if err := g.Enter(t.Context(), c, "q", class); err == nil {
				in <- c
			}
		}()
		for g.Waiting() == before {
			time.Sleep(time.Millisecond)
		}
	}
	return in
}

func TestCallersTakeTurns(t *testing.T) {
	g := New(Config{Window: window(1)})
	if err := g.Enter(t.Context(), "a", "q", Interactive); err != nil {
		t.Fatal(err)
	}
	bulk := enter(t, g, Bulk, "x")
	in := enter(t, g, Interactive, "a", "a", "a", "b", "a", "c", "b")
	var order []string
	for range 7 {
		g.Leave("q")
		order = append(order, <-in)
	}
	if want := []string{"a", "b", "c", "a", "b", "a", "a"}; !slices.Equal(order, want) {
		t.Errorf("let in %v, want %v", order, want)
	}
	select {
	case <-bulk:
		t.Error("a bulk job went ahead of interactive ones")
	default:
	}
	g.Leave("q")
	<-bulk
	g.Leave("q")
	if len(g.lanes) != 0 || g.Waiting() != 0 {
		t.Errorf("%d lanes and %d waiting are left", len(g.lanes), g.Waiting())
	}
}

func TestWhoGivesUpIsPassedOver(t *testing.T) {
	g := New(Config{Window: window(1)})
	g.Enter(t.Context(), "a", "q", Interactive)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- g.Enter(ctx, "b", "q", Interactive) }()
	for g.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	in := enter(t, g, Interactive, "c")
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("left with %v", err)
	}
	g.Leave("q")
	if c := <-in; c != "c" {
		t.Errorf("%s was let in", c)
	}
	g.Leave("q")
	if len(g.lanes) != 0 {
		t.Error("a lane is left")
	}
}

// Whatever comes, the window holds, nobody is forgotten, and all is given back.
func TestGateUnderLoad(t *testing.T) {
	g := New(Config{Window: window(3)})
	var inside, most, served atomic.Int64
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3000))*time.Microsecond)
				if g.Enter(ctx, fmt.Sprint("c", i%7), "q", Class(i%2)) == nil {
					n := inside.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(time.Duration(r.IntN(100)) * time.Microsecond)
					inside.Add(-1)
					served.Add(1)
					g.Leave("q")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || served.Load() == 0 || g.Waiting() != 0 || len(g.lanes) != 0 {
		t.Errorf("%d inside at most, %d served, %d waiting, %d lanes", most.Load(), served.Load(), g.Waiting(), len(g.lanes))
	}
}

func refused(t *testing.T, err error, retryAfter int) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Status != 429 || f.RetryAfter != retryAfter {
		t.Errorf("error %#v, want a 429 with Retry-After %d", err, retryAfter)
	}
}

func TestLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	g := New(Config{PerCaller: 2, Rate: 2, Burst: 3, Bytes: 100, Waiting: 1, Window: window(1)})
	g.now = func() time.Time { return now }
	a1, err := g.Arrive("a")
	if err != nil {
		t.Fatal(err)
	}
	a2, _ := g.Arrive("a")
	_, err = g.Arrive("a")
	refused(t, err, 10) // nothing was answered yet
	if _, err := g.Arrive("b"); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if err := a1.Hold(60); err != nil {
		t.Error(err)
	}
	refused(t, a2.Hold(60), 10)
	a1.Leave()
	a1.Leave() // once is enough
	if err := a2.Hold(1000); err != nil {
		t.Errorf("alone, anything fits: %v", err)
	}
	a2.Leave()
	a3, err := g.Arrive("a")
	if err != nil {
		t.Errorf("the third of three at once: %v", err)
	}
	a3.Leave()
	_, err = g.Arrive("a")
	refused(t, err, 1) // half a second until there is a token
	now = now.Add(500 * time.Millisecond)
	if _, err := g.Arrive("a"); err != nil {
		t.Errorf("when it should try again: %v", err)
	}

	g.Enter(t.Context(), "a", "q", Interactive)
	enter(t, g, Interactive, "b")
	refused(t, g.Enter(t.Context(), "c", "q", Interactive), 10)
	for range 20 {
		g.done.Tick(now)
	}
	_ = g.Enter(t.Context(), "c", "other", Interactive) // another queue has a window of its own
}

// A line of a batch waits where a request is refused.
func TestLines(t *testing.T) {
	g := New(Config{Rate: 100, Burst: 1, Bytes: 100, Window: window(1)})
	begun := time.Now()
	first, err := g.Line(t.Context(), "a", 90)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func(), 1)
	go func() {
		leave, _ := g.Line(t.Context(), "a", 90)
		second <- leave
	}()
	select {
	case <-second:
		t.Fatal("let in though there is no room")
	case <-time.After(30 * time.Millisecond):
	}
	first()
	(<-second)()
	for range 5 {
		leave, err := g.Line(t.Context(), "a", 1)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if took := time.Since(begun); took < 55*time.Millisecond {
		t.Errorf("7 lines at 100 a second in %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	full, _ := g.Line(t.Context(), "b", 100)
	if _, err := g.Line(ctx, "a", 100); err == nil {
		t.Error("let in after it hung up")
	}
	full()
	if g.bytes != 0 {
		t.Errorf("%d bytes are not given back", g.bytes)
	}
}

func TestCallersAreForgotten(t *testing.T) {
	now := time.Unix(1000, 0)
	g := New(Config{Rate: 1, Burst: 1, Window: window(1)})
	g.now = func() time.Time { return now }
	for i := range maxCallers + 50 {
		v, err := g.Arrive(fmt.Sprint(i))
		if i >= maxCallers+1 { // they share one name, and its rate
			refused(t, err, 1)
			continue
		}
		if err != nil {
			t.Fatal(i, err)
		}
		v.Leave()
	}
	now = now.Add(time.Minute)
	if _, err := g.Arrive("new"); err != nil || len(g.callers) > 10 {
		t.Errorf("%v, %d callers are known after a minute", err, len(g.callers))
	}
}

func BenchmarkGate(b *testing.B) {
	g := New(Config{PerCaller: 2000, Bytes: 1 << 30, Waiting: 1000, Window: window(20)})
	for b.Loop() {
		v, _ := g.Arrive("192.0.2.1")
		v.Hold(1000)
		g.Enter(b.Context(), "192.0.2.1", "q", Interactive)
		g.Leave("q")
		v.Leave()
	}
}
