package bench

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
)

func busyError(retryAfter time.Duration) error {
	return &fleetclient.StatusError{Op: "evaluate", Code: http.StatusTooManyRequests, RetryAfter: retryAfter}
}

// scripted is a kind whose n-th request takes a second of the bubble's clock.
func scripted(rows int, step func(n int64) error) *kind {
	k := &kind{name: "scripted", step: func(_ context.Context, _ *user, n int64) (outcome, error) {
		time.Sleep(time.Second)
		err := step(n)
		return outcome{right: err == nil, cases: 1}, err
	}}
	for range rows {
		k.rows = append(k.rows, nil)
	}
	return k
}

func mustSeries(t *testing.T, k *kind, clients int) *series {
	t.Helper()
	s, err := newSeries(t.Context(), k, nil, clients)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustSeries(t, scripted(1, func(int64) error { return nil }), 3)
		seen, wall, _ := s.round(t.Context(), bounds{until: time.Now().Add(2500 * time.Millisecond), upTo: noEnd})
		if wall != 3*time.Second {
			t.Errorf("wall %v, want that requests under way at 2.5 s are answered at 3 s", wall)
		}
		for i, o := range seen {
			if want := (work{requests: 3, cases: 3, busy: 3 * time.Second}); o.work != want {
				t.Errorf("client %d did %+v, want %+v", i, o.work, want)
			}
			if want := []time.Duration{time.Second, time.Second, time.Second}; !slices.Equal(o.latencies, want) {
				t.Errorf("client %d has latencies %v", i, o.latencies)
			}
		}
	})
}

// A round that is over before a client's turn has one request of it all the same.
func TestRoundIsNeverEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustSeries(t, scripted(1, func(int64) error { return nil }), 2)
		seen, _, _ := s.round(t.Context(), bounds{until: time.Now().Add(-time.Second), upTo: noEnd})
		for i, o := range seen {
			if o.requests != 1 {
				t.Errorf("client %d sent %d requests, want 1", i, o.requests)
			}
		}
	})
}

// A server that asks to wait gets no request before, in the next round either,
// and then the same request again. The wait counts as the client's time.
func TestWaitsWhenBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		type asked struct {
			n  int64
			at time.Duration
		}
		var requests []asked
		s := mustSeries(t, scripted(1, func(n int64) error {
			requests = append(requests, asked{n, time.Since(start)})
			if len(requests) == 2 {
				return busyError(5 * time.Second)
			}
			return nil
		}), 1)
		seen, wall, _ := s.round(t.Context(), bounds{until: start.Add(4 * time.Second), upTo: noEnd})
		if o := seen[0]; o.requests != 1 || o.errors["429"] != 1 || o.busy != 4*time.Second || wall != 4*time.Second {
			t.Errorf("first round: %+v, wall %v", o, wall)
		}
		seen, _, _ = s.round(t.Context(), bounds{until: start.Add(9 * time.Second), upTo: noEnd})
		if o := seen[0]; o.requests != 2 || len(o.errors) != 0 || o.latencies[0] != time.Second {
			t.Errorf("second round: %+v", o)
		}
		// Each is noted at its answer, a second after it was sent.
		if want := []asked{{0, time.Second}, {1, 2 * time.Second}, {1, 8 * time.Second}, {2, 9 * time.Second}}; !slices.Equal(requests, want) {
			t.Errorf("asked %v, want %v", requests, want)
		}
	})
}

func TestBusyForeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustSeries(t, scripted(2, func(int64) error { return busyError(0) }), 1)
		seen, _, _ := s.round(t.Context(), s.part(0, 1))
		if got, want := seen[0].errors["429"], 2*(maxBusy+1); got != want {
			t.Errorf("%d times busy, want %d: each row is given up", got, want)
		}
	})
}

func TestPausesWhenUnreached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kind{step: func(context.Context, *user, int64) (outcome, error) { return outcome{}, http.ErrServerClosed }}
		s := mustSeries(t, k, 1)
		seen, _, _ := s.round(t.Context(), bounds{until: time.Now().Add(time.Second), upTo: noEnd})
		if got, want := seen[0].errors["transport"], int(time.Second/unreachedPause); got != want {
			t.Errorf("%d attempts in a second, want %d", got, want)
		}
	})
}

func TestCancelEndsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := mustSeries(t, scripted(1, func(n int64) error {
			if n == 2 {
				cancel()
				return context.Canceled
			}
			return nil
		}), 1)
		seen, wall, _ := s.round(ctx, bounds{until: time.Now().Add(time.Hour), upTo: noEnd})
		if wall != 3*time.Second || seen[0].requests != 2 || len(seen[0].errors) != 0 {
			t.Errorf("wall %v, saw %+v: want two requests and no error", wall, seen[0])
		}
	})
}

// However many rounds and clients, and whatever the warm-up did: each row once.
func TestPartsCoverRowsOnce(t *testing.T) {
	for name, test := range map[string]struct{ rows, rounds, clients int }{
		"even":                 {12, 4, 3},
		"uneven":               {10, 3, 4},
		"more rounds than row": {3, 7, 2},
		"more clients":         {5, 2, 16},
		"one round":            {9, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var measured atomic.Bool
				asked := map[int64]int{}
				s := mustSeries(t, scripted(test.rows, func(n int64) error {
					if measured.Load() {
						mu.Lock()
						defer mu.Unlock()
						asked[n]++
						return nil
					}
					return busyError(time.Second)
				}), test.clients)
				s.round(t.Context(), bounds{until: time.Now().Add(1500 * time.Millisecond), upTo: noEnd})
				measured.Store(true)
				s.rewind()
				for r := range test.rounds {
					s.round(t.Context(), s.part(r, test.rounds))
				}
				for n := range int64(test.rows) {
					if asked[n] != 1 {
						t.Errorf("row %d was asked for %d times", n, asked[n])
					}
				}
				if len(asked) != test.rows {
					t.Errorf("%d rows asked for, want %d", len(asked), test.rows)
				}
			})
		})
	}
}
