package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestEngineRunsJobsWithoutAQueue(t *testing.T) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := NewEngine(context.Background(), testConfig(t, publicDir(t)), log)
	if err != nil {
		if strings.Contains(err.Error(), "find Python") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	defer e.Close()
	body := []byte(`{"id":"x","code":"def f(x): return x","entry_point":"f","io_cases":[{"input":"x=1","output":"1"},{"input":"x=1","output":"2"}]}`)
	var all sync.WaitGroup
	for range 8 { // more than there are slots
		all.Go(func() {
			r, err := e.Do(context.Background(), protocol.Job{Kind: protocol.Evaluate, Body: body})
			if err != nil || r.Status != 200 {
				t.Errorf("status %d: %v", r.Status, err)
				return
			}
			var answer struct {
				Cases []struct {
					Passed bool `json:"passed"`
				} `json:"case_results"`
			}
			if err := json.Unmarshal(r.Body, &answer); err != nil || len(answer.Cases) != 2 || !answer.Cases[0].Passed || answer.Cases[1].Passed {
				t.Errorf("answer %s: %v", r.Body, err)
			}
		})
	}
	all.Wait()
	if err := e.Create("s"); err != nil {
		t.Fatal(err)
	}
	r, err := e.Do(context.Background(), protocol.Job{Kind: protocol.Run, Session: "s", Epoch: EngineEpoch, Body: []byte(`{"id":"s","cmd":"echo hi"}`)})
	if err != nil || r.Status != 200 || !strings.Contains(string(r.Body), `"stdout":"hi\n"`) {
		t.Errorf("run: %d %s: %v", r.Status, r.Body, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 4 { // one may still find a free slot
		if _, err := e.Do(ended, protocol.Job{Kind: protocol.Evaluate, Body: body}); err == nil {
			t.Error("a job was done for a caller that is gone")
		}
	}
}
