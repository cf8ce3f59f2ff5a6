package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
	"github.com/gradefleet/gradefleet/cli/internal/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse makes a Config as the command line would.
func parse(t *testing.T, args ...string) Config {
	t.Helper()
	var cfg Config
	parser, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// quick is a short run against these servers, reported as JSON.
func quick(t *testing.T, args []string, urls ...string) (report, error) {
	t.Helper()
	args = append([]string{"--json", "--seconds=0.1", "--rounds=2", "--warmup=10ms", "--clients=2"}, args...)
	for _, u := range urls {
		args = append(args, "--url", u)
	}
	var out bytes.Buffer
	err := Run(t.Context(), parse(t, args...), &out)
	var r report
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, out.Bytes())
		}
	}
	return r, err
}

func writeWorkload(t *testing.T, rows ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// additions is a row whose verdicts are right for an imitation of the API.
func additions(id int) string {
	return fmt.Sprintf(`{"task_id":"t%d","code":"","entry_point":"add","io_cases":[{"input":"a=1, b=2","output":"3"},{"input":"a=1, b=2","output":"4"}],"verdicts":[true,false]}`, id)
}

func TestEveryKind(t *testing.T) {
	server := apitest.New(t, nil)
	r, err := quick(t, []string{"--cases=1,10", "--run", "--files", "--workload", writeWorkload(t, additions(1), additions(2))}, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]int{"1 case": 1, "10 cases": 10, "w.jsonl": 2, "run": 0, "write_file": 0, "read_file": 0}
	if len(r.Kinds) != len(cases) {
		t.Errorf("%d kinds, want %d", len(r.Kinds), len(cases))
	}
	for _, k := range r.Kinds {
		s := k.Results[0]
		if s.Requests == 0 || s.RequestsPerSecond <= 0 || len(s.Errors) != 0 || s.SubmissionsDiffer != 0 {
			t.Errorf("%s: %+v", k.Kind, s)
		}
		if want, ok := cases[k.Kind]; !ok || s.Cases != want*s.Requests {
			t.Errorf("%s: %d cases in %d requests", k.Kind, s.Cases, s.Requests)
		}
		if !(0 < s.P50 && s.P50 <= s.P95 && s.P95 <= s.P99) {
			t.Errorf("%s: latencies %v, %v, %v", k.Kind, s.P50, s.P95, s.P99)
		}
		if len(k.Ratios) != 0 {
			t.Errorf("%s has a ratio of one server", k.Kind)
		}
	}
}

func TestTwoServersTakeTurns(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(name string) apitest.Fault {
		return func(_ http.ResponseWriter, r apitest.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if r.Path == "/evaluate_code" && (len(order) == 0 || order[len(order)-1] != name) {
				order = append(order, name)
			}
			return false
		}
	}
	a, b := apitest.New(t, note("A")), apitest.New(t, note("B"))
	r, err := quick(t, []string{"--cases=1", "--rounds=3", "--warmup=0s"}, a.URL, b.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "ABABAB" {
		t.Errorf("turns %s, want ABABAB", got)
	}
	k := r.Kinds[0]
	if len(k.Ratios) != 1 || len(k.Results) != 2 {
		t.Fatalf("got %+v", k)
	}
	if got, want := k.Ratios[0].RequestsPerSecond, k.Results[0].RequestsPerSecond/k.Results[1].RequestsPerSecond; got != want {
		t.Errorf("ratio %v, want %v", got, want)
	}
	if got, want := k.Ratios[0].P99, k.Results[0].P99/k.Results[1].P99; got != want {
		t.Errorf("ratio of p99 %v, want %v", got, want)
	}
	if q := k.Ratios[0]; !(0 < q.Lowest && q.Lowest <= q.Median && q.Median <= q.Highest) {
		t.Errorf("rounds from %v to %v", q.Lowest, q.Highest)
	}
}

func TestFaultsAreErrors(t *testing.T) {
	evaluate := func(answer func(w http.ResponseWriter, r apitest.Request)) apitest.Fault {
		return func(w http.ResponseWriter, r apitest.Request) bool {
			if r.Path != "/evaluate_code" || r.Number%2 == 0 {
				return false
			}
			answer(w, r)
			return true
		}
	}
	for name, test := range map[string]struct {
		fault apitest.Fault
		args  []string
		want  string // the reason counted
		wrong bool
	}{
		"a wrong verdict": {evaluate(func(w http.ResponseWriter, r apitest.Request) {
			apitest.Answer(w, 200, apitest.Verdicts(false))
		}), []string{"--cases=1"}, "wrong", true},
		"a missing verdict": {evaluate(func(w http.ResponseWriter, r apitest.Request) {
			apitest.Answer(w, 200, apitest.Verdicts(true))
		}), []string{"--cases=2"}, "wrong", true},
		"a fault": {evaluate(func(w http.ResponseWriter, r apitest.Request) {
			apitest.Answer(w, 500, map[string]string{"detail": "oh"})
		}), []string{"--cases=1"}, "500", false},
		"busy": {evaluate(func(w http.ResponseWriter, r apitest.Request) {
			apitest.Answer(w, 429, map[string]string{"detail": "full"})
		}), []string{"--cases=1", "--seconds=0.5", "--rounds=1"}, "429", false},
		"a reset": {evaluate(func(w http.ResponseWriter, r apitest.Request) {
			apitest.Reset(w)
		}), []string{"--cases=1", "--seconds=0.5", "--rounds=1"}, "reset", false},
		"another output": {func(w http.ResponseWriter, r apitest.Request) bool {
			if r.Path == "/run" && r.Number%2 == 0 {
				apitest.Answer(w, 200, map[string]string{"stdout": "ho\n", "stderr": ""})
				return true
			}
			return false
		}, []string{"--run"}, "wrong", true},
		"a write that is lost": {func(w http.ResponseWriter, r apitest.Request) bool {
			if r.Path == "/read_file" {
				apitest.Answer(w, 200, map[string]string{"content": "what was there before"})
				return true
			}
			return false
		}, []string{"--files"}, "wrong", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := quick(t, test.args, apitest.New(t, test.fault).URL)
			if got := errors.Is(err, ErrWrongAnswers); got != test.wrong {
				t.Errorf("error %v", err)
			}
			if !test.wrong && err != nil {
				t.Error(err)
			}
			s := r.Kinds[0].Results[0]
			if s.Errors[test.want] == 0 || len(s.Errors) != 1 {
				t.Errorf("errors %v, want %s alone", s.Errors, test.want)
			}
			if s.Requests == 0 {
				t.Error("no right answers were counted")
			}
		})
	}
}

func TestNoRightAnswer(t *testing.T) {
	server := apitest.New(t, func(w http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" {
			apitest.Answer(w, 500, "x")
		}
		return r.Path == "/evaluate_code"
	})
	if _, err := quick(t, []string{"--cases=1"}, server.URL); !errors.Is(err, ErrNoAnswers) || errors.Is(err, ErrWrongAnswers) {
		t.Errorf("got %v", err)
	}
}

func TestOnceComparesWithRecorded(t *testing.T) {
	var rows []string
	for i := range 30 {
		rows = append(rows, additions(i))
	}
	rows[7] = strings.Replace(rows[7], "[true,false]", "[false,false]", 1)
	server := apitest.New(t, nil)
	r, err := quick(t, []string{"--once", "--workload", writeWorkload(t, rows...)}, server.URL)
	if !errors.Is(err, ErrWrongAnswers) {
		t.Errorf("error %v", err)
	}
	s := r.Kinds[0].Results[0]
	if s.Requests != 29 || s.Errors["wrong"] != 1 || s.CasesDiffer != 1 || s.SubmissionsDiffer != 1 || s.RowsAsked != 30 {
		t.Errorf("got %+v", s)
	}
	if len(s.Differences) != 1 || s.Differences[0].String() != "t7 case 0: got passed, want failed" {
		t.Errorf("differences %v", s.Differences)
	}
	if r, err = quick(t, []string{"--once", "--limit=5", "--workload", writeWorkload(t, rows...)}, server.URL); err != nil && !errors.Is(err, ErrWrongAnswers) {
		t.Error(err)
	}
	if k := r.Kinds[0]; k.Rows != 5 || k.Results[0].RowsAsked != 5 {
		t.Errorf("limited to 5 rows: %+v", k)
	}
}

func TestLoadOrder(t *testing.T) {
	var rows []string
	for i := range 40 {
		rows = append(rows, additions(i))
	}
	path := writeWorkload(t, rows...)
	ids := func(limit int) (ids []string) {
		loaded, err := load(path, limit, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range loaded {
			ids = append(ids, r.TaskID)
		}
		return ids
	}
	all := ids(0)
	if len(all) != 40 || strings.Join(all, " ") != strings.Join(ids(100), " ") {
		t.Errorf("the order isn't always the same")
	}
	if all[0] == "t0" && all[1] == "t1" && all[2] == "t2" {
		t.Errorf("the order is the file's")
	}
	if got := ids(10); strings.Join(got, " ") != strings.Join(all[:10], " ") {
		t.Errorf("10 rows are %v, want the first of %v", got, all)
	}
}

func TestUnrulyRowsAreLeftOut(t *testing.T) {
	unruly := strings.Replace(additions(1), "{", `{"unruly":true,`, 1)
	path := writeWorkload(t, additions(0), unruly, additions(2))
	for all, want := range map[bool]int{false: 2, true: 3} {
		if rows, err := load(path, 0, all); err != nil || len(rows) != want {
			t.Errorf("all=%v: %d rows, want %d: %v", all, len(rows), want, err)
		}
	}
	if _, err := load(writeWorkload(t, unruly), 0, false); err == nil || !strings.Contains(err.Error(), "unruly") {
		t.Errorf("nothing but unruly rows: %v", err)
	}
}

func TestTables(t *testing.T) {
	server := apitest.New(t, func(w http.ResponseWriter, r apitest.Request) bool {
		if r.Path == "/evaluate_code" && r.Number%3 == 0 {
			apitest.Answer(w, 500, "x")
			return true
		}
		return false
	})
	cfg := parse(t, "--seconds=0.05", "--warmup=0s", "--cases=10", "--files", "--workload", writeWorkload(t, additions(1), strings.Replace(additions(2), "true", "false", 1)), "--url", server.URL, "--url", server.URL)
	var out bytes.Buffer
	if err := Run(t.Context(), cfg, &out); !errors.Is(err, ErrWrongAnswers) {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{
		"A is " + server.URL + "\nB is " + server.URL + "\n", "clients: 4; each kind: 0.05 s on each server, in 1 rounds",
		"requests/s", "p99 ms", "10 cases           A ", "\n                   B ", "A/B", "x  rounds: ", "500: ", "wrong: ",
		"write_file ", "read_file ", "1 cases of 1 submissions differ, of 2 submissions asked for", "t2 case 0: got passed, want failed",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables have no %q:\n%s", want, out.String())
		}
	}
}

func TestRefusals(t *testing.T) {
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	server := apitest.New(t, nil)
	near := "--url=" + server.URL
	for name, test := range map[string]struct {
		args []string
		says string
		is   error
	}{
		"another machine":      {[]string{"--url=http://192.0.2.1:6000"}, "--allow-remote", fleetclient.ErrRemote},
		"the second elsewhere": {[]string{near, "--url=http://fleet.example"}, "loopback only", fleetclient.ErrRemote},
		"nobody there":         {[]string{"--url=http://" + freeport.Address(ports[0])}, "is it running?", nil},
		"three servers":        {[]string{near, near, near}, "3 servers", nil},
		"no cases":             {[]string{near, "--cases=0"}, "--cases: 0", nil},
		"too many cases":       {[]string{near, "--cases=10001"}, "--cases: 10001", nil},
		"no clients":           {[]string{near, "--clients=0"}, "--clients: 0", nil},
		"no time":              {[]string{near, "--seconds=0"}, "--seconds: 0", nil},
		"not a time":           {[]string{near, "--seconds=NaN"}, "--seconds: NaN", nil},
		"negative rounds":      {[]string{near, "--rounds=-1"}, "--rounds: -1", nil},
		"a negative limit":     {[]string{near, "--limit=-1"}, "--limit: -1", nil},
		"a negative warm-up":   {[]string{near, "--warmup=-1s"}, "--warmup", nil},
		"once without rows":    {[]string{near, "--once"}, "--once", nil},
		"rows beside a URL":    {[]string{near, "--rows=fleet"}, "--original", nil},
		"an original alone":    {[]string{near, "--original=" + server.URL}, "--original", nil},
		"a limit alone":        {[]string{"--rows=limit,fleet"}, "limit needs engine", nil},
		"the limit once":       {[]string{"--rows=limit,engine", "--once", "--workload=w"}, "--once", nil},
		"no slots":             {[]string{near, "--slots=-1"}, "--slots: -1", nil},
		"nothing built":        {[]string{"--rows=fleet", "--binaries=/no/such"}, "make build", os.ErrNotExist},
		"a missing workload":   {[]string{near, "--workload=/no/such.jsonl"}, "no/such.jsonl", os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Run(t.Context(), parse(t, test.args...), &out)
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
			if out.Len() > 0 {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	cfg := parse(t).WithDefaults()
	if err := cfg.validate(); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(cfg.Cases) != "[1 10 100]" || cfg.Rounds != 5 || cfg.round() != time.Second || cfg.Clients != 4 || cfg.Warmup != 500*time.Millisecond {
		t.Errorf("got %+v", cfg)
	}
	if cfg = parse(t, "--files", "--seconds=0.2").WithDefaults(); len(cfg.Cases) != 0 || cfg.Rounds != 1 {
		t.Errorf("got %+v", cfg)
	}
}

func TestCancelStopsRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := apitest.New(t, func(_ http.ResponseWriter, r apitest.Request) bool {
		if r.Number == 50 {
			cancel()
		}
		return false
	})
	err := Run(ctx, parse(t, "--url", server.URL, "--seconds=3600"), new(bytes.Buffer))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
