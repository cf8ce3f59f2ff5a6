package bench

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
)

// ownRows measures what can be started without built programs, beside an
// imitation of the original.
func ownRows(t *testing.T, args ...string) (report, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gradefleet-bench-") // of which sessions' users may pass the parents
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		os.RemoveAll(dir)
	})
	os.Chmod(dir, 0o711)
	t.Setenv("TMPDIR", dir)
	original := apitest.New(t, nil)
	args = append([]string{"--rows=limit,engine", "--original=" + original.URL, "--slots=2"}, args...)
	r, err := quick(t, args)
	if err != nil {
		if strings.Contains(err.Error(), "find Python") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	var out bytes.Buffer
	cfg := parse(t, append([]string{"--rounds=1", "--warmup=0s"}, args...)...)
	if err := Run(t.Context(), cfg, &out); err != nil {
		t.Fatal(err)
	}
	return r, out.String()
}

func TestOwnRows(t *testing.T) {
	endless := strings.Replace(additions(9), `"code":""`, `"limits":{"wall_s":0.1},"code":"def add(a, b):\n  while 1: pass"`, 1)
	workload := writeWorkload(t,
		strings.Replace(additions(1), `"code":""`, `"code":"def add(a, b): return a + b"`, 1), endless,
		strings.Replace(strings.Replace(additions(2), `"code":""`, `"code":"def add(a, b): return 4"`, 1), "true,false", "false,true", 1))
	// The kernel counts processor time in hundredths of a second: on a busy machine a
	// round may have had less.
	var r report
	var table string
	for seconds := 0.4; seconds < 10; seconds *= 2 {
		t.Logf("rounds of %v s", seconds)
		r, table = ownRows(t, fmt.Sprint("--seconds=", seconds), "--cases=10", "--single", "--run", "--files", "--workload", workload)
		if !slices.ContainsFunc(r.Kinds, func(k kindReport) bool {
			return slices.ContainsFunc(k.Results, func(s serverReport) bool {
				return s.CPU == 0 && s.Server != "original" || s.DriverCPU == 0 && s.Server != "engine"
			})
		}) {
			break
		}
	}
	want := map[string]string{
		"bare fork":        "fork",
		"10 cases":         "no fork, fork, engine, original",
		"1 case, 1 client": "no fork, fork, engine, original",
		"w.jsonl":          "no fork, fork, engine, original",
		"run":              "fork, engine, original",
		"write_file":       "original",
		"read_file":        "original",
	}
	for _, k := range r.Kinds {
		var names []string
		for _, s := range k.Results {
			names = append(names, s.Server)
			if s.Requests == 0 || len(s.Errors) > 0 || s.P50 <= 0 {
				t.Errorf("%s on %s: %+v", k.Kind, s.Server, s)
			}
			if (s.CPU > 0) != (s.Server != "original") || (s.DriverCPU > 0) == (s.Server == "engine") {
				t.Errorf("%s on %s: CPU %v ms, of the load %v ms", k.Kind, s.Server, s.CPU, s.DriverCPU)
			}
		}
		if got := strings.Join(names, ", "); got != want[k.Kind] {
			t.Errorf("%s on %s, want %s", k.Kind, got, want[k.Kind])
		}
		delete(want, k.Kind)
		if k.Kind == "w.jsonl" && (k.Rows != 1 || k.LeftOut != (leftOut{1, 1})) {
			t.Errorf("%d rows, %+v left out, want the endless and the mistaken one left out", k.Rows, k.LeftOut)
		}
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v", want)
	}
	for _, says := range []string{"\nfork is 2 bare Python", "engine/fork", "1 submissions were left out: they run", "isolation "} {
		if !strings.Contains(table, says) {
			t.Errorf("the table has no %q:\n%s", says, table)
		}
	}
}

func TestTargetsAreJudged(t *testing.T) {
	kinds := []kindReport{
		{Kind: "100 cases", Ratios: []ratios{{Of: nameEngine, By: nameFork, Median: 0.7, CPU: 1.4}, {Of: nameFleet, By: nameEngine, Median: 0.8}}},
		{Kind: kindSingle, Ratios: []ratios{{Of: nameFleet, By: nameOriginal, P50: 0.3, Median: 9}}},
		{Kind: "w.jsonl", workload: true, Ratios: []ratios{{Of: nameFleet, By: nameOriginal, Median: 8}}},
		{Kind: kindRun, Ratios: []ratios{{Of: nameFleet, By: nameOriginal, Median: 0}}},
	}
	met := map[string]bool{}
	for _, j := range judgeTargets(kinds) {
		met[j.Kind+" "+j.Of+"/"+j.By] = j.Met
	}
	want := map[string]bool{
		"100 cases engine/fork": true, "100 cases fleet/engine": false, "1 case, 1 client fleet/original": false,
		"w.jsonl fleet/original": true, "run fleet/original": false,
	}
	for name, m := range want {
		if got, ok := met[name]; !ok || got != m {
			t.Errorf("%s: met %v (judged: %v), want %v", name, got, ok, m)
		}
	}
	if len(met) != len(want) {
		t.Errorf("judged %v", met)
	}
}
