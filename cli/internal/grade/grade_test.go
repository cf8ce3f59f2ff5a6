package grade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
	"github.com/gradefleet/gradefleet/cli/internal/freeport"
)

// Answers come in any order; results are in the order of rows.
func TestKeepsOrder(t *testing.T) {
	const n = 300
	held := make(chan struct{})
	var answered atomic.Int64
	slowFirst := func(_ http.ResponseWriter, r apitest.Request) bool {
		if r.Path != "/evaluate_code" {
			return false
		}
		if r.Code == "0" {
			<-held // until others, sent later, are answered
		} else if answered.Add(1) == 50 {
			close(held)
		}
		return false
	}
	summary, results, err := gradeRows(t, slowFirst, rows(n), "--concurrency=4")
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != n {
		t.Fatalf("%d results, want %d", len(results), n)
	}
	for i, line := range results {
		if want := fmt.Sprintf(`{"task_id":"t%d","passed":false,"verdicts":[true,false],"statuses":["passed","failed"]}`, i); line != want {
			t.Fatalf("result %d is %s, want %s", i, line, want)
		}
	}
	expect(t, summary, "submissions  300: 0 passed, 300 failed, 0 without an answer", "cases        600: 300 failed, 300 passed",
		"verdicts     600 recorded; 0 cases of 0 submissions differ", "submissions/s", "0 requests sent again")
}

func TestOneSessionEach(t *testing.T) {
	var mu sync.Mutex
	ids := map[string]bool{}
	_, _, err := gradeRows(t, func(_ http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" {
			mu.Lock()
			defer mu.Unlock()
			ids[r.ID] = true
		}
		return false
	}, rows(20))
	if err != nil || len(ids) != 20 {
		t.Errorf("%d sessions for 20 submissions, error %v", len(ids), err)
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for id := range ids {
		if !uuid.MatchString(id) {
			t.Errorf("session %q is no UUID", id)
		}
	}
}

func TestDifferences(t *testing.T) {
	all := rows(3)
	all[1] = strings.Replace(all[1], "[true,false]", "[true,true]", 1)
	summary, results, err := gradeRows(t, func(w http.ResponseWriter, r apitest.Request) bool {
		if r.Code != "2" {
			return false
		}
		apitest.Answer(w, 200, map[string]any{"passed": false, "error": nil, "case_results": []any{
			map[string]any{"passed": false, "error": "ValueError: bad\nTraceback", "status": "error"},
		}})
		return true
	}, all)
	if !errors.Is(err, ErrDiffer) || errors.Is(err, ErrUnanswered) || !strings.Contains(err.Error(), "3 cases of 2 submissions") {
		t.Errorf("error %v", err)
	}
	expect(t, summary, "3 cases of 2 submissions differ", "t1 case 1: got failed, want passed (failed)\n",
		"t2 case 0: got failed, want passed (error: ValueError: bad…)\n", "t2 case 1: got missing, want failed\n",
		"cases        5: 1 error, 2 failed, 2 passed")
	want := `{"task_id":"t2","passed":false,"verdicts":[false],"statuses":["error"],"differ":[0,1]}`
	if results[2] != want {
		t.Errorf("result %s, want %s", results[2], want)
	}
}

func TestManyDifferencesAreCut(t *testing.T) {
	var all []string
	for _, r := range rows(40) {
		all = append(all, strings.Replace(r, "[true,false]", "[false,false]", 1))
	}
	summary, results, err := gradeRows(t, nil, all)
	if !errors.Is(err, ErrDiffer) {
		t.Errorf("error %v", err)
	}
	if n := strings.Count(summary, "want failed"); n != maxListed {
		t.Errorf("%d differences listed, want %d", n, maxListed)
	}
	expect(t, summary, "40 cases of 40 submissions differ", "at most 20")
	if n := strings.Count(strings.Join(results, "\n"), `"differ":[0]`); n != 40 {
		t.Errorf("%d results differ, want 40", n)
	}
}

// Rows without verdicts are graded all the same.
func TestNothingRecorded(t *testing.T) {
	summary, _, err := gradeRows(t, nil, []string{strings.Replace(row(1), `,"verdicts":[true,false]`, "", 1)})
	if err != nil {
		t.Error(err)
	}
	expect(t, summary, "0 recorded; 0 cases of 0 submissions differ")
}

func TestBadRowEndsRun(t *testing.T) {
	summary, results, err := gradeRows(t, nil, append(rows(3), "{nope"))
	if err == nil || !strings.Contains(err.Error(), "w.jsonl:4: ") {
		t.Errorf("error %v, want one that names line 4", err)
	}
	expect(t, summary, "submissions  3:")
	if len(results) != 3 {
		t.Errorf("%d results, want those of the rows before", len(results))
	}
}

func TestLimit(t *testing.T) {
	summary, _, err := gradeRows(t, nil, append(rows(3), "{nope"), "--limit=3")
	if err != nil {
		t.Error(err)
	}
	expect(t, summary, "submissions  3:")
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := apitest.New(t, func(_ http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" && r.Number == 5 {
			cancel()
		}
		return false
	})
	var out bytes.Buffer
	err := Run(ctx, parse(t, "--url", server.URL, writeFile(t, rows(500)...)), &out, io.Discard)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	expect(t, out.String(), "submissions")
}

func TestProgress(t *testing.T) {
	written := make(chan string, 1)
	server := apitest.New(t, func(_ http.ResponseWriter, r apitest.Request) bool {
		if r.Code == "1" {
			<-written // the run can't end before a line of progress is there
		}
		return false
	})
	var out bytes.Buffer
	progress := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), " 1 submissions, 2 cases") {
			select {
			case written <- string(p):
			default:
			}
		}
		return len(p), nil
	})
	if err := Run(t.Context(), parse(t, "--progress=1ms", "--url", server.URL, writeFile(t, rows(2)...)), &out, progress); err != nil {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRefusals(t *testing.T) {
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + freeport.Address(ports[0])
	near := "--url=" + apitest.New(t, nil).URL
	good := writeFile(t, row(1))
	for name, test := range map[string]struct {
		args []string
		says string
		is   error
	}{
		"another machine":    {[]string{"--url=http://192.0.2.1:6000", good}, "--allow-remote", fleetclient.ErrRemote},
		"nobody there":       {[]string{"--url=" + nobody, good}, "is it running?", nil},
		"low concurrency":    {[]string{near, "--concurrency=-1", good}, "--concurrency: -1", nil},
		"high concurrency":   {[]string{near, "--concurrency=1025", good}, "--concurrency: 1025", nil},
		"a negative limit":   {[]string{near, "--limit=-1", good}, "--limit: -1", nil},
		"negative retries":   {[]string{near, "--retries=-1", good}, "--retries: -1", nil},
		"a negative timeout": {[]string{near, "--timeout=-1s", good}, "--timeout", nil},
		"a missing file":     {[]string{near, "/no/such.jsonl"}, "no/such.jsonl", os.ErrNotExist},
		"results over input": {[]string{near, "--out", good, good}, "is a workload to grade", nil},
		"results nowhere":    {[]string{near, "--out=/no/such/results.jsonl", good}, "open results", os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), parse(t, test.args...), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
		})
	}
	if text, err := os.ReadFile(good); err != nil || string(text) != row(1) {
		t.Errorf("the input is now %q, %v", text, err)
	}
	if err := Run(t.Context(), Config{URL: nobody, Concurrency: 1}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "none given") {
		t.Errorf("without files: %v", err)
	}
}

func TestShorten(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"short":       {"ValueError: bad", "ValueError: bad"},
		"two lines":   {"a\nb", "a…"},
		"long":        {strings.Repeat("x", 500), strings.Repeat("x", maxReasonBytes) + "…"},
		"within rune": {strings.Repeat("x", maxReasonBytes-1) + "é", strings.Repeat("x", maxReasonBytes-1) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := shorten(test.text); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
