package limit

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLimit(t *testing.T, resident int64) *Limit {
	t.Helper()
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			t.Skip(err)
		}
	}
	l, err := Start(Config{Python: python, Processes: 2, Preload: []string{"json", "no_such_module"}, Resident: resident, Collect: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestEveryMode(t *testing.T) {
	const resident = 40 << 20
	l := newLimit(t, resident)
	if got := l.Resident(); got < resident || got > resident+(8<<20) {
		t.Errorf("resident %d, want %d or a little more", got, resident)
	}
	rows := []Row{
		{`{"code":"def add(a, b):\n    return a + b","entry_point":"add","io_cases":[{"input":"a=1, b=2","output":"3"},{"input":"b=2, a=1","output":"4"}]}`, []bool{true, false}},
		{`{"code":"class S:\n  def f(self, x):\n    return [x, float('inf')]","entry_point":"S().f","io_cases":[{"input":"'a=1, b'","output":"['a=1, b', inf]"}]}`, []bool{true}},
		{`{"code":"class P:\n  def __eq__(self, o): return type(o) is P\ndef f(x):\n  return P()","entry_point":"f","io_cases":[{"input":"x=[1]","output":"P()"}]}`, []bool{true}},
		{`{"code":"def f(:","entry_point":"f","io_cases":[{"input":"1","output":"1"}]}`, []bool{false}},
		{`{"code":"import sys\ndef f(x):\n  print(x)\n  sys.exit(0)","entry_point":"f","io_cases":[{"input":"1","output":"1"}]}`, []bool{false}},
	}
	if err := l.Load("rows", rows); err != nil {
		t.Fatal(err)
	}
	if err := l.Load("none", nil); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{Fork, Inline, Bare, Run} {
		t.Run(string(mode), func(t *testing.T) {
			kind, cases := "rows", true
			if mode == Bare || mode == Run {
				kind, cases = "none", false
			}
			seen, err := l.Do(kind, mode, 0, 500*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range seen {
				if len(r.Took) == 0 || len(r.Wrong) > 0 || (r.Cases > 0) != cases || r.Busy < 500*time.Millisecond {
					t.Errorf("%d requests, %d cases, wrong %v, busy %v", len(r.Took), r.Cases, r.Wrong, r.Busy)
				}
			}
		})
	}
}

// A round that is over before it began says something all the same.
func TestRoundIsNeverEmpty(t *testing.T) {
	l := newLimit(t, 0)
	if err := l.Load("none", nil); err != nil {
		t.Fatal(err)
	}
	seen, err := l.Do("none", Bare, 0, -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range seen {
		if len(r.Took) != 1 {
			t.Errorf("%d requests, want 1", len(r.Took))
		}
	}
}

func TestWrongVerdictsAreSeen(t *testing.T) {
	l := newLimit(t, 0)
	if err := l.Load("k", []Row{{`{"code":"def f(x):\n  return x","entry_point":"f","io_cases":[{"input":"1","output":"2"}]}`, []bool{true}}}); err != nil {
		t.Fatal(err)
	}
	seen, err := l.Do("k", Fork, 1, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen[0].Wrong) == 0 || len(seen[0].Took) > 0 {
		t.Errorf("got %+v", seen[0])
	}
}
