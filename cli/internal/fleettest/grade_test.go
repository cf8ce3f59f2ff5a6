package fleettest

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/grade"
)

// workload writes rows of every kind, with their verdicts, and returns the file.
func workload(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		row := map[string]any{"code": "def f(x): return x", "entry_point": "f", "verdicts": []bool{true, false},
			"io_cases": []any{map[string]string{"input": "x=1", "output": "1"}, map[string]string{"input": "x=1", "output": "2"}}}
		switch i % 40 {
		case 3:
			row["code"], row["verdicts"] = "import os\ndef f(x): os._exit(1)", []bool{false, false}
		case 7:
			row["code"], row["verdicts"] = "def f(x): return [x", []bool{false, false}
		case 11:
			row["limits"] = map[string]any{"wall_s": -1} // refused
		case 13:
			row["verdicts"] = []bool{true, true} // recorded wrong
		}
		line, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	path := filepath.Join(t.TempDir(), "w.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// gradeFile grades a workload and returns the summary up to the times, the result
// lines, and whether something was sent again.
func gradeFile(t *testing.T, cfg grade.Config) (summary, results string, again bool, err error) {
	t.Helper()
	cfg.Out = filepath.Join(t.TempDir(), "results.jsonl")
	cfg.Timeout, cfg.Retries = time.Minute, 20
	var out bytes.Buffer
	err = grade.Run(t.Context(), cfg, &out, io.Discard)
	text, readErr := os.ReadFile(cfg.Out)
	if readErr != nil {
		t.Fatalf("%v; %v", readErr, err)
	}
	summary, last, _ := strings.Cut(out.String(), "\ntime ")
	return summary, string(text), !strings.HasSuffix(last, " 0 requests sent again\n"), err
}

// A file graded by single requests, as a batch, and as a batch whose gateway stops
// in the middle: the same summary, the same results in the same order.
func TestGradeBatch(t *testing.T) {
	f := newFleet(t, 2, 2)
	const rows = 400
	cfg := grade.Config{URL: f.urls[1], Files: []string{workload(t, rows)}}
	summary, results, again, err := gradeFile(t, cfg)
	if err == nil || again || strings.Count(results, "\n") != rows || strings.Count(results, `"passed":null`) != rows/40 || strings.Count(results, `"differ"`) != rows/40 {
		t.Fatalf("%v\n%s\n%s", err, summary, results)
	}
	cfg.Batch = true
	batchSummary, batchResults, again, batchErr := gradeFile(t, cfg)
	if again || batchErr == nil || batchErr.Error() != err.Error() || batchSummary != summary || batchResults != results {
		t.Errorf("single requests: %v\n%s\na batch: %v\n%s", err, summary, batchErr, batchSummary)
	}
	stopped := make(chan struct{})
	cfg.URL = "http://" + forward(t, f.urls, 100, func() {
		f.stopGateways[0]()
		close(stopped)
	})
	brokenSummary, brokenResults, again, brokenErr := gradeFile(t, cfg)
	if !again || brokenErr == nil || brokenErr.Error() != err.Error() || brokenSummary != summary || brokenResults != results {
		t.Errorf("single requests: %v\n%s\na batch whose gateway stops: %v\n%s", err, summary, brokenErr, brokenSummary)
	}
	<-stopped
}

// forward returns an address that leads to the first of the gateways that can be
// connected to. After so many lines of answers it calls then, once.
func forward(t *testing.T, urls []string, lines int, then func()) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	seen := 0
	var mu sync.Mutex
	count := func(answer []byte) {
		mu.Lock()
		defer mu.Unlock()
		before := seen
		if seen += bytes.Count(answer, []byte("\n")); before < lines && seen >= lines {
			running.Go(then)
		}
	}
	connect := func() net.Conn {
		for _, u := range urls {
			if conn, err := net.Dial("tcp", strings.TrimPrefix(u, "http://")); err == nil {
				return conn
			}
		}
		return nil
	}
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far := connect()
			if far == nil {
				t.Error("no gateway can be connected to")
				near.Close()
				continue
			}
			running.Go(func() {
				io.Copy(far, near)
				far.Close()
			})
			running.Go(func() {
				defer near.Close()
				buffer := make([]byte, 4<<10)
				for {
					n, err := far.Read(buffer)
					if _, writeErr := near.Write(buffer[:n]); err != nil || writeErr != nil {
						return
					}
					count(buffer[:n])
				}
			})
		}
	})
	return listener.Addr().String()
}
