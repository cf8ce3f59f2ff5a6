package execute

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestWorkloads grades files of problems with known verdicts, in both modes, if
// GRADEFLEET_WORKLOADS names a directory that has any.
func TestWorkloads(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(os.Getenv("GRADEFLEET_WORKLOADS"), "*.jsonl.gz"))
	if os.Getenv("GRADEFLEET_WORKLOADS") == "" || len(files) == 0 {
		t.Skip("set GRADEFLEET_WORKLOADS to a directory of *.jsonl.gz files")
	}
	modes := []string{"submission"}
	if os.Getenv("GRADEFLEET_MODES") != "" {
		modes = append(modes, "process")
	}
	s, at := newSlot(t)
	for _, file := range files {
		for _, mode := range modes {
			submissions, cases, differ := gradeFile(t, s, at, file, mode)
			t.Logf("%s, isolation %s: %d submissions, %d cases, %d verdicts differ", filepath.Base(file), mode, submissions, cases, differ)
			if differ > 0 {
				t.Fail()
			}
		}
	}
}

func gradeFile(t *testing.T, s *Slot, at Place, file, mode string) (submissions, cases, differ int) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 32<<20)
	for sc.Scan() {
		var row struct {
			TaskID     string            `json:"task_id"`
			Code       json.RawMessage   `json:"code"`
			EntryPoint string            `json:"entry_point"`
			IOCases    []json.RawMessage `json:"io_cases"`
			Verdicts   []bool            `json:"verdicts"`
		}
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		body, _ := json.Marshal(map[string]any{"id": "w", "code": row.Code, "entry_point": row.EntryPoint, "io_cases": row.IOCases, "isolation": mode})
		a, err := s.Evaluate(context.Background(), body, at, nil)
		if err != nil {
			t.Fatal(row.TaskID, err)
		}
		var ans evalAnswer
		if err := json.Unmarshal(a.Body, &ans); err != nil || len(ans.Cases) != len(row.Verdicts) {
			t.Fatalf("%s: %d results for %d cases: %v", row.TaskID, len(ans.Cases), len(row.Verdicts), err)
		}
		submissions++
		for i, c := range ans.Cases {
			cases++
			if c.Passed != row.Verdicts[i] {
				differ++
				t.Errorf("%s case %d %s: passed %v, want %v: %.300s got %.100v want %.100v", row.TaskID, i, row.IOCases[i], c.Passed, row.Verdicts[i], c.error(), c.Got, c.Expected)
			}
		}
	}
	return submissions, cases, differ
}
