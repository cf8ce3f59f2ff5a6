package grade

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
)

func TestTriesAgain(t *testing.T) {
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			apitest.Answer(w, code, map[string]string{"detail": "not now"})
		}
	}
	for name, test := range map[string]struct {
		fault func(http.ResponseWriter)
		again bool
		says  string
	}{
		"busy":          {status(429), true, ""},
		"not ready":     {status(503), true, ""},
		"reset":         {apitest.Reset, true, ""},
		"a fault":       {status(500), false, "status 500: not now"},
		"a bad request": {status(422), false, "status 422: not now"},
		"given up":      {status(504), false, "status 504: not now"},
		"no answer":     {func(w http.ResponseWriter) { io.WriteString(w, "hello") }, false, "decode evaluate answer"},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts atomic.Int64
			summary, results, err := gradeRows(t, func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Code != "1" || attempts.Add(1) > 3 {
					return false
				}
				test.fault(w)
				return true
			}, rows(4))
			if test.again {
				if err != nil || attempts.Load() != 4 {
					t.Errorf("%d attempts, error %v", attempts.Load(), err)
				}
				expect(t, summary, "3 requests sent again", "0 without an answer")
				return
			}
			if !errors.Is(err, ErrUnanswered) || errors.Is(err, ErrDiffer) || attempts.Load() != 1 {
				t.Errorf("%d attempts, error %v", attempts.Load(), err)
			}
			expect(t, summary, "submissions  4: 0 passed, 3 failed, 1 without an answer", "t1: ", test.says)
			if !strings.HasPrefix(results[1], `{"task_id":"t1","passed":null,"verdicts":[],"statuses":[],"error":"`) {
				t.Errorf("result %s", results[1])
			}
		})
	}
}

func TestWaitsGrow(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter string
		low, high  []time.Duration // of each wait
	}{
		"of our own": {"",
			[]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 2500 * time.Millisecond, 2500 * time.Millisecond},
			[]time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, lastWait, lastWait}},
		"as the server asks": {"7",
			[]time.Duration{7 * time.Second, 7 * time.Second}, []time.Duration{7050 * time.Millisecond, 7100 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			server := apitest.New(t, func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Path == "/" {
					return false
				}
				if test.retryAfter != "" {
					w.Header().Set("Retry-After", test.retryAfter)
				}
				apitest.Answer(w, 503, map[string]string{"detail": "no workers"})
				return true
			})
			cfg := parse(t, "--progress=0s", fmt.Sprintf("--retries=%d", len(test.low)), "--url", server.URL, writeFile(t, row(1)))
			var w waits
			if err := run(t.Context(), cfg, io.Discard, io.Discard, w.wait); !errors.Is(err, ErrUnanswered) {
				t.Errorf("error %v", err)
			}
			if len(w.seen) != len(test.low) {
				t.Fatalf("waits %v, want %d", w.seen, len(test.low))
			}
			for i, d := range w.seen {
				if d < test.low[i] || d > test.high[i] {
					t.Errorf("wait %d is %v, want %v to %v", i, d, test.low[i], test.high[i])
				}
			}
		})
	}
}

func TestServerGone(t *testing.T) {
	summary, results, err := gradeRows(t, func(w http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" && len(r.Code) > 1 { // from row 10 on
			apitest.Reset(w)
			return true
		}
		return false
	}, rows(90), "--concurrency=2", "--retries=2")
	if !errors.Is(err, ErrGone) || !errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v", err)
	}
	expect(t, summary, "submissions  14: 0 passed, 10 failed, 4 without an answer")
	if len(results) != 14 {
		t.Errorf("%d results, want those until it was gone", len(results))
	}
}
