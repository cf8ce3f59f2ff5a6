package grade

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
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

// row is one whose verdicts an imitation of the API agrees with.
func row(id int) string {
	return fmt.Sprintf(`{"task_id":"t%d","code":"%d","entry_point":"add","io_cases":[{"input":"a=1, b=2","output":"3"},{"input":"a=1, b=2","output":"4"}],"verdicts":[true,false]}`, id, id)
}

func rows(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = row(i)
	}
	return all
}

func writeFile(t *testing.T, rows ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// waits notes the waits asked for, and waits for none of them.
type waits struct {
	mu   sync.Mutex
	seen []time.Duration
}

func (w *waits) wait(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, d)
	return ctx.Err()
}

// gradeRows grades a file of these rows, and returns the summary and results.
func gradeRows(t *testing.T, fault apitest.Fault, rows []string, args ...string) (summary string, results []string, err error) {
	t.Helper()
	resultsPath := filepath.Join(t.TempDir(), "results.jsonl")
	cfg := parse(t, append(args, "--progress=0s", "--url", apitest.New(t, fault).URL, "--out", resultsPath, writeFile(t, rows...))...)
	var out bytes.Buffer
	err = run(t.Context(), cfg, &out, io.Discard, new(waits).wait)
	text, readErr := os.ReadFile(resultsPath)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return out.String(), strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), err
}

func expect(t *testing.T, summary string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(summary, want) {
			t.Errorf("the summary has no %q:\n%s", want, summary)
		}
	}
}
