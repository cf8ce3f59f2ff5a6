package execute

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
)

// lender lends one slot at a time, and recalls it after a while if that isn't 0.
type lender struct {
	slot   *Slot
	at     Place
	recall time.Duration
	out    atomic.Bool
	loans  atomic.Int32
}

func (l *lender) lend() *Loan {
	if !l.out.CompareAndSwap(false, true) {
		return nil
	}
	l.loans.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	if l.recall > 0 {
		time.AfterFunc(l.recall, cancel)
	}
	return &Loan{Slot: l.slot, At: l.at, Recalled: ctx, Return: func() {
		cancel()
		l.slot.Ready()
		l.out.Store(false)
	}}
}

func TestCasesSpreadOverFreeSlots(t *testing.T) {
	policy := newPolicy(t, nil)
	s, at := newSlotOf(t, policy, nil)
	other, there := newSlotOf(t, policy, nil)
	const slow = "import os, time\ndef f(x):\n    time.sleep(0.05)\n    return os.stat('.').st_ino"
	const crashes = "import os, time\ndef f(x):\n    time.sleep(0.05)\n    if x % 7 == 0: os._exit(1)\n    return x"
	const quick = "def f(x): return x"
	tests := []struct {
		name, code string
		n          int
		recall     time.Duration
		options    map[string]any
		loans      func(int32) bool
		want       string // of a case that doesn't crash
	}{
		{"slow cases", slow, 24, 0, nil, func(n int32) bool { return n > 0 }, "failed"},
		{"each alone", crashes, 24, 0, map[string]any{"isolation": "process"}, func(n int32) bool { return n > 0 }, "passed"},
		{"crashes", crashes, 24, 0, nil, func(n int32) bool { return n > 0 }, "passed"},
		{"recalled", crashes, 24, 15 * time.Millisecond, nil, func(n int32) bool { return n > 0 }, "passed"},
		{"stop on failure", crashes, 3, 0, map[string]any{"stop_on_failure": true}, func(n int32) bool { return n == 0 }, ""},
		{"quick cases", quick, 20, 0, nil, func(int32) bool { return true }, "passed"}, // none, unless the machine is busy
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &lender{slot: other, at: there, recall: tt.recall}
			var cases []map[string]string
			for i := range tt.n {
				cases = append(cases, map[string]string{"input": fmt.Sprintf("x=%d", i+1), "output": fmt.Sprint(i + 1)})
			}
			request := map[string]any{"id": "s", "code": tt.code, "entry_point": "f", "io_cases": cases}
			for k, v := range tt.options {
				request[k] = v
			}
			body, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			a, err := s.Evaluate(context.Background(), body, at, l.lend)
			s.Ready()
			if err != nil {
				t.Fatal(err)
			}
			var answer struct {
				Cases []struct {
					Status string
					Got    any
				} `json:"case_results"`
			}
			if err := json.Unmarshal(a.Body, &answer); err != nil {
				t.Fatal(err)
			}
			if !tt.loans(l.loans.Load()) {
				t.Errorf("%d loans", l.loans.Load())
			}
			places := map[any]bool{}
			for i, c := range answer.Cases {
				places[c.Got] = true
				if want := tt.want; want != "" {
					if tt.code == crashes && (i+1)%7 == 0 {
						want = "crashed"
					}
					if c.Status != want && !(want == "crashed" && c.Status == "error") {
						t.Errorf("case %d is %s, want %s", i, c.Status, want)
					}
				}
			}
			if tt.code == slow && len(places) != 2 {
				t.Errorf("cases ran in %v, want two places", places)
			}
		})
	}
}

// Help is asked for if what is left, by the cases so far, is worth a process.
func TestShare(t *testing.T) {
	for _, c := range []struct {
		name                        string
		took                        time.Duration
		next, end, helpers, atLeast int
	}{
		{"quick cases", -time.Minute, 10, 20, 1, 0}, // as it were: the machine may be slow
		{"slow cases", time.Second, 10, 20, 1, 1},
		{"slow cases, shared", time.Second, 10, 20, 4, 1},
		{"the first case", time.Second, 0, 20, 1, 1},
		{"the last case", time.Second, 19, 20, 1, 0},
	} {
		s := &spread{begun: time.Now().Add(-c.took), next: c.next, end: c.end}
		if got := s.share(c.helpers); min(got, 1) != c.atLeast || got > (c.end-c.next)/c.helpers {
			t.Errorf("%s: a share of %d cases", c.name, got)
		}
	}
}

// The evaluation's own slot may be reading what all cases are, to start a process,
// when a helper gives some back.
func TestGivingBackLeavesTheCall(t *testing.T) {
	e := &evaluation{cases: make([]caseState, 1)}
	s := &spread{e: e}
	e.cases[0].done = true
	read := make(chan pyrunner.Case)
	go func() { read <- e.cases[0].call }()
	s.giveBack([]int{0})
	<-read
	if e.cases[0].done || len(s.back) != 1 {
		t.Errorf("case %+v of %v", e.cases[0], s.back)
	}
}

// The machine may be so busy that it is time for help before anything else was done.
func TestSpreadThatIsLateAtOnce(t *testing.T) {
	for range 100 {
		asked := make(chan struct{}, 1)
		s := startSpread(&evaluation{todo: make([]int, 8)}, func() *Loan {
			select {
			case asked <- struct{}{}:
			default:
			}
			return nil
		}, 0)
		<-asked
		if back := s.finish(); len(back) > 0 {
			t.Fatalf("nobody helped, and %v were given back", back)
		}
	}
}
