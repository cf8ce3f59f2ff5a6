package fleettest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// line is a line of a batch's answer.
type line struct {
	Index  *int   `json:"index"`
	Ref    string `json:"ref"`
	Status int    `json:"status"`
	Result struct {
		Passed bool `json:"passed"`
	} `json:"result"`
	Detail string `json:"detail"`
	Done   *bool  `json:"done"`
	Count  int    `json:"count"`
}

// batch sends what write writes and calls each with every answered line; it
// returns the last line.
func (f *fleet) batch(t *testing.T, url string, write func(io.Writer), each func(line)) (last line) {
	t.Helper()
	body, in := io.Pipe()
	go func() {
		write(in)
		in.Close()
	}()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/evaluate_batch", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewScanner(resp.Body)
	out.Buffer(nil, 1<<20)
	for out.Scan() {
		last = line{}
		if err := json.Unmarshal(out.Bytes(), &last); err != nil {
			t.Fatalf("line %q: %v", out.Bytes(), err)
		}
		if last.Done == nil {
			each(last)
		}
	}
	if err := out.Err(); err != nil {
		t.Error(err)
	}
	return last
}

func submission(session, code, output string) string {
	text, _ := json.Marshal(map[string]any{"id": session, "ref": session, "code": code, "entry_point": "f",
		"io_cases": []any{map[string]string{"input": "x=1", "output": output}}})
	return string(text) + "\n"
}

// Two thousand submissions on one connection, right, wrong and broken, while a
// worker leaves: every line is answered once, and right.
func TestBatchOfThousands(t *testing.T) {
	f := newFleet(t, 1, 2)
	const lines = 2000
	seen := make([]bool, lines)
	leave := make(chan struct{})
	go func() {
		<-leave
		f.workers[0].stop()
	}()
	begun := time.Now()
	last := f.batch(t, f.urls[0], func(w io.Writer) {
		for i := range lines {
			switch i % 20 {
			case 3:
				io.WriteString(w, "{\"id\": nonsense\n")
			case 7:
				io.WriteString(w, submission(fmt.Sprint(i), "def f(x): return x", "2"))
			case 11:
				io.WriteString(w, submission(fmt.Sprint(i), "import os\ndef f(x): os._exit(1)", "1"))
			default:
				io.WriteString(w, submission(fmt.Sprint(i), "def f(x): return x", "1"))
			}
		}
	}, func(l line) {
		i := *l.Index
		if seen[i] {
			t.Errorf("line %d answered twice", i)
		}
		seen[i] = true
		if i == 300 {
			close(leave)
		}
		want, passed := 200, i%20 != 7 && i%20 != 11
		if i%20 == 3 {
			want, passed = 422, false
		}
		if l.Status != want || l.Result.Passed != passed || want == 200 && l.Ref != fmt.Sprint(i) {
			t.Errorf("line %d: %+v, want %d, passed %v", i, l, want, passed)
		}
	})
	if last.Done == nil || !*last.Done || last.Count != lines {
		t.Errorf("last line %+v", last)
	}
	for i, ok := range seen {
		if !ok {
			t.Errorf("line %d not answered", i)
		}
	}
	t.Logf("%d lines in %.1f s", lines, time.Since(begun).Seconds())
}

// Who waits for an answer is served while a batch and asynchronous jobs by the
// hundred are under way, long before they are done.
func TestInteractiveDuringABatch(t *testing.T) {
	f := newFleet(t, 2, 1)
	var done atomic.Int64
	finished := make(chan line, 1)
	const lines = 150
	slow := "import time\ndef f(x):\n    time.sleep(0.01)\n    return x"
	go func() {
		finished <- f.batch(t, f.urls[0], func(w io.Writer) {
			for i := range lines {
				io.WriteString(w, submission(fmt.Sprint(i), slow, "1"))
			}
		}, func(line) { done.Add(1) })
	}()
	for range 40 {
		f.async(t, submission("a", slow, "1"))
	}
	for done.Load() < 10 {
		time.Sleep(time.Millisecond)
	}
	var meanwhile []int64 // lines that were done while a request was under way
	for range 20 {
		before := done.Load()
		if status, answer, err := post(f.client, f.urls[1]+"/evaluate_code", json.RawMessage(submission("me", slow, "1"))); status != 200 {
			t.Fatalf("%d %s %v", status, answer, err)
		}
		meanwhile = append(meanwhile, done.Load()-before)
	}
	// Between two interactive requests the slot takes a bulk one, or two; more only
	// where the machine kept this client from its turn. First come, first served would
	// be 11 at least: three for the slot, and eight.
	slices.Sort(meanwhile)
	if n := meanwhile[len(meanwhile)/2]; n > 5 {
		t.Errorf("%v lines of the batch were done during each of 20 interactive requests", meanwhile)
	}
	if last := <-finished; last.Count != lines {
		t.Errorf("last line %+v", last)
	}
}

// async submits a job through the first gateway and returns its path.
func (f *fleet) async(t *testing.T, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, f.urls[0]+"/evaluate_code", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Prefer", "respond-async")
	resp, err := f.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 202 {
		t.Fatalf("%d %s", resp.StatusCode, answer)
	}
	return resp.Header.Get("Location")
}

// An asynchronous job's way through a whole fleet.
func TestAsyncJob(t *testing.T) {
	f := newFleet(t, 2, 1)
	at := f.async(t, submission("s", "def f(x): return x", "1"))
	resp, err := f.client.Get(f.urls[1] + at + "?wait=30")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(answer), `"state":"done"`) || !strings.Contains(string(answer), `"status":200,"result":{"passed":true`) {
		t.Errorf("%d %s %v", resp.StatusCode, answer, err)
	}
}
