package grade

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
)

// untimed is a summary without its last line, which has times.
func untimed(summary string) string {
	head, last, _ := strings.Cut(summary, "\ntime ")
	_, again, _ := strings.Cut(last, ";")
	return head + again
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// Whatever becomes of submissions, a batch reports it as single requests do.
func TestBatchIsReportedAlike(t *testing.T) {
	refused := func(code int, times int64) func() apitest.Fault {
		return func() apitest.Fault {
			var asked atomic.Int64
			return func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Code != "3" || asked.Add(1) > times {
					return false
				}
				apitest.Answer(w, code, map[string]string{"detail": "no, \"not\"\tnow " + strings.Repeat("x", 400)})
				return true
			}
		}
	}
	unrecorded := rows(3)
	unrecorded[1] = strings.Replace(unrecorded[1], `,"verdicts":[true,false]`, "", 1)
	wrong := rows(40)
	for i := range wrong {
		wrong[i] = strings.Replace(wrong[i], "[true,false]", "[true,true]", 1)
	}
	for name, test := range map[string]struct {
		fault func() apitest.Fault
		rows  []string
		args  []string
	}{
		"all is well":         {nil, rows(500), nil},
		"nothing recorded":    {nil, unrecorded, nil},
		"differences":         {nil, wrong, nil},
		"a limit":             {nil, rows(50), []string{"--limit=7"}},
		"a bad row":           {nil, append(rows(9), "{nope"), nil},
		"a wrong request":     {refused(422, 1), rows(9), nil},
		"given up":            {refused(504, 1), rows(9), nil},
		"a fault":             {refused(500, 1), rows(9), nil},
		"busy for a while":    {refused(429, 3), rows(9), nil},
		"not ready for long":  {refused(503, 30), rows(9), nil},
		"not ready for a bit": {refused(503, 3), rows(9), []string{"--retries=3"}},
		"no answer's shape": {func() apitest.Fault {
			return func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Code == "3" {
					io.WriteString(w, `"hello"`)
				}
				return r.Code == "3"
			}
		}, rows(9), nil},
		"errors of cases": {func() apitest.Fault {
			return func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Code == "3" {
					apitest.Answer(w, 200, map[string]any{"passed": false, "error": "SyntaxError", "case_results": []any{
						map[string]any{"passed": nil, "error": "ValueError: bad\nTraceback", "status": "error"}}})
				}
				return r.Code == "3"
			}
		}, rows(9), nil},
	} {
		t.Run(name, func(t *testing.T) {
			fault := func() apitest.Fault {
				if test.fault == nil {
					return nil
				}
				return test.fault()
			}
			summary, results, err := gradeRows(t, fault(), test.rows, test.args...)
			batchSummary, batchResults, batchErr := gradeRows(t, fault(), test.rows, append(test.args, "--batch")...)
			// Each has a directory of its own, which an error about a file names.
			if strip(text(batchErr)) != strip(text(err)) {
				t.Errorf("error %v\nof a batch %v", err, batchErr)
			}
			if untimed(batchSummary) != untimed(summary) {
				t.Errorf("summary\n%s\nof a batch\n%s", summary, batchSummary)
			}
			if !slices.Equal(batchResults, results) {
				t.Errorf("results\n%s\nof a batch\n%s", strings.Join(results, "\n"), strings.Join(batchResults, "\n"))
			}
		})
	}
}

// strip takes off what comes before a workload's name.
func strip(text string) string {
	if _, tail, found := strings.Cut(text, "w.jsonl:"); found {
		return tail
	}
	return text
}

// One connection is enough, and is brought to its documented end.
func TestBatchOfOneConnection(t *testing.T) {
	var batches, lines, now, most atomic.Int64
	var ids sync.Map
	server := apitest.New(t, func(_ http.ResponseWriter, r apitest.Request) bool {
		switch r.Path {
		case "/evaluate_batch":
			batches.Add(1)
		case "/evaluate_code":
			lines.Add(1)
			ids.Store(r.ID, true)
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
		}
		return false
	})
	cfg := parse(t, "--batch", "--concurrency=5", "--progress=0s", "--url", server.URL, writeFile(t, rows(400)...))
	if err := Run(t.Context(), cfg, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	// One of no lines asks whether batches are taken.
	if batches.Load() != 2 || server.Batches.Load() != 2 || lines.Load() != 400 {
		t.Errorf("%d batches, %d of them ended as documented, with %d lines", batches.Load(), server.Batches.Load(), lines.Load())
	}
	sessions := 0
	ids.Range(func(any, any) bool { sessions++; return true })
	if sessions != 400 || most.Load() > 5 {
		t.Errorf("%d sessions; %d submissions at a time, want 5 at most", sessions, most.Load())
	}
}

// While the first has no answer others are answered, but only so many are read
// ahead and held.
func TestReadsAheadOnlySoFar(t *testing.T) {
	for name, test := range map[string]struct {
		batch bool
		ahead int
	}{"single requests": {false, window * 4}, "a batch": {true, batchWindow * 4}} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, rows(1000)...)
			synctest.Test(t, func(t *testing.T) {
				held := make(chan struct{})
				var asked atomic.Int64
				p := &pipeline{cfg: Config{Files: []string{file}, Concurrency: 4, Batch: test.batch}, sum: newSummary()}
				p.asker.evaluate = func(_ context.Context, body []byte) (fleetclient.Evaluation, error) {
					asked.Add(1)
					if bytes.Contains(body, []byte(`"code":"0"`)) {
						<-held
					}
					return fleetclient.Evaluation{}, nil
				}
				ended := make(chan error, 1)
				go func() { ended <- p.run(t.Context(), io.Discard) }()
				synctest.Wait()
				if got := asked.Load(); got != int64(test.ahead)+1 {
					t.Errorf("%d were asked before the first was answered, want it and %d more", got, test.ahead)
				}
				close(held)
				if err := <-ended; err != nil || p.sum.submissions != 1000 {
					t.Errorf("%d submissions, error %v", p.sum.submissions, err)
				}
			})
		})
	}
}

// However a batch ends early, each submission has one result, and what was
// answered isn't sent again.
func TestBatchIsBroken(t *testing.T) {
	const n, breaks = 300, 5
	_, want, err := gradeRows(t, nil, rows(n))
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(w http.ResponseWriter){
		"cut":               apitest.Reset,
		"a gateway's end":   func(w http.ResponseWriter) { apitest.EndBatch(w, "The gateway is stopping") },
		"cut without lines": nil,
	} {
		t.Run(name, func(t *testing.T) {
			var lines, batches, broken atomic.Int64
			summary, results, err := gradeRows(t, func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Path == "/evaluate_batch" {
					if k := batches.Add(1); end == nil && k > 1 && k <= 1+breaks {
						apitest.Reset(w)
						return true
					}
					return false
				}
				if r.Path != "/evaluate_code" {
					return false
				}
				// The lines of one break may be many: the next begins after a while.
				if k := lines.Add(1); end != nil && k%50 == 0 && broken.Add(1) <= breaks {
					end(w)
					return true
				}
				return false
			}, rows(n), "--batch", "--concurrency=8")
			if err != nil {
				t.Error(err)
			}
			if !slices.Equal(results, want) {
				t.Errorf("%d results, other than those of single requests:\n%s", len(results), strings.Join(results, "\n"))
			}
			expect(t, summary, "submissions  300: 0 passed, 300 failed, 0 without an answer")
			if batches.Load() < 2+breaks {
				t.Errorf("%d batches, want one more for each of %d breaks", batches.Load(), breaks)
			}
			if most := int64(n + breaks*8); lines.Load() > most {
				t.Errorf("%d lines came, want %d at most: what was answered is sent again", lines.Load(), most)
			}
		})
	}
}

// A server that is gone ends the run after the attempts of some submissions.
func TestBatchServerGone(t *testing.T) {
	var gone atomic.Bool
	var refused atomic.Int64
	summary, results, err := gradeRows(t, func(w http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" && r.Code == "9" {
			gone.Store(true)
		}
		if r.Path == "/" || !gone.Load() {
			return false
		}
		if r.Path == "/evaluate_batch" {
			refused.Add(1)
		}
		apitest.Reset(w)
		return true
	}, rows(90), "--batch", "--concurrency=2", "--retries=2")
	if !errors.Is(err, ErrGone) || !errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v", err)
	}
	if len(results) > 20 || refused.Load() == 0 {
		t.Errorf("%d results, want those until it was gone; it was asked %d times after that", len(results), refused.Load())
	}
	expect(t, summary, "without an answer", "give up after 3 attempts: evaluate_batch at http://")
}

// A server that refuses batches is told of before anything is graded.
func TestBatchIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		says   string
	}{
		"unknown":      {404, "takes no batches, leave it out"},
		"not a method": {405, "takes no batches, leave it out"},
		"no key":       {401, "status 401: wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			server := apitest.New(t, func(w http.ResponseWriter, r apitest.Request) bool {
				if r.Path != "/evaluate_batch" {
					return false
				}
				apitest.Answer(w, test.status, map[string]string{"detail": "wanted"})
				return true
			})
			err := Run(t.Context(), parse(t, "--batch", "--url", server.URL, writeFile(t, row(1))), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), "check --batch: ") || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The key goes with single requests and with batches.
func TestKey(t *testing.T) {
	t.Setenv("GRADEFLEET_API_KEY", "k")
	for name, test := range map[string]struct {
		args []string
		path string
	}{
		"single requests": {nil, "/evaluate_code"},
		"a batch":         {[]string{"--batch"}, "/evaluate_batch"},
	} {
		t.Run(name, func(t *testing.T) {
			keys := make(chan string, 10)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				keys <- r.URL.Path + " " + r.Header.Get("X-API-Key")
				http.Error(w, "no", http.StatusUnauthorized)
			}))
			defer server.Close()
			err := Run(t.Context(), parse(t, append(test.args, "--url", server.URL, writeFile(t, row(1)))...), io.Discard, io.Discard)
			if err == nil {
				t.Error("no error for a 401")
			}
			close(keys)
			for _, path := range []string{"/", test.path} {
				if key := <-keys; key != path+" k" {
					t.Errorf("it asked %q, want %q with the key", key, path)
				}
			}
		})
	}
}
