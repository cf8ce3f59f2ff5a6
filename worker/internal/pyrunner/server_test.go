package pyrunner

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
)

const noSandbox = `
import os as _os
import resource as _resource
RLIM_INFINITY = _resource.RLIM_INFINITY
def enter(spec, ruleset=-1):
    _os.setsid()
`

func startServer(t testing.TB, change ...func(*Config)) *Server {
	t.Helper()
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			t.Skip("no python3")
		}
	}
	cfg := Config{
		Command: func(args ...string) *exec.Cmd { return exec.Command(python, args...) },
		Path:    systemPath(t, python), Preload: Preload, SandboxSource: noSandbox, Limits: testLimits,
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := StartServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func systemPath(t testing.TB, python string) []string {
	out, err := exec.Command(python, "-I", "-c", `import sys; print("\n".join(sys.path))`).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

var testLimits = Limits{Result: 1 << 20, Text: 1 << 16, Keep: 1 << 16, Stop: 1 << 20}

var noConfinement = Confinement(pymarshal.AppendTuple(nil, 0))

func ints(values ...int64) []Case {
	cases := make([]Case, len(values))
	for i, v := range values {
		b := append([]byte{'{'}, pymarshal.AppendString(nil, "x")...)
		cases[i] = Case{Keywords, append(pymarshal.AppendInt(b, v), '0')}
	}
	return cases
}

type seen struct {
	kind FrameKind
	n    int
	body string
	out  string
}

func runCases(t testing.TB, s *Server, source string, wall time.Duration, cases []Case) ([]seen, Exit) {
	t.Helper()
	var got []seen
	exit, err := s.Run(context.Background(), Job{
		Message: Evaluate(EvaluateSpec{Source: source, EntryPoint: "f", Cases: cases, CPUSeconds: 5, Captured: true, Limits: testLimits}, noConfinement, ""),
		Wall:    wall, Keep: 1 << 16, Stop: 1 << 20, MaxFrame: 4 << 20,
		OnFrame: func(f Frame) (Message, Verdict) {
			got = append(got, seen{f.Kind, f.Case, string(f.Body), string(f.Stdout)})
			return nil, Continue
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, exit
}

func TestCasesInOneProcess(t *testing.T) {
	s := startServer(t)
	got, exit := runCases(t, s, "n = 0\ndef f(x):\n    global n\n    n += 1\n    print('hi', x)\n    if x == 2: raise ValueError('two')\n    return [n, x]", time.Minute, ints(1, 2, 3))
	if len(got) != 3 || got[0].kind != FrameValue || got[1].kind != FrameError || got[2].kind != FrameValue {
		t.Fatalf("frames %+v, exit %+v", got, exit)
	}
	if !strings.HasPrefix(got[1].body, "ValueError: two\nTraceback") || got[2].out != "hi 3\n" {
		t.Errorf("frames %+v", got)
	}
	if exit.Status.ExitStatus() != 0 || exit.Ending != EndedItself || exit.PeakKB < 1000 {
		t.Errorf("exit %+v", exit)
	}
}

func TestWallClockFromOutside(t *testing.T) {
	s := startServer(t)
	var got []seen
	var exit Exit
	// The first case answers in time, if the machine has any for it.
	for wall := 1500 * time.Millisecond; len(got) == 0 && wall < time.Minute; wall *= 4 {
		got, exit = runCases(t, s, "import time\ndef f(x):\n    if x == 2: time.sleep(1000)\n    return x", wall, ints(1, 2, 3))
	}
	if exit.Ending != EndedWall || len(got) != 1 {
		t.Fatalf("frames %+v, exit %+v", got, exit)
	}
	if got, exit = runCases(t, s, "def f(x): return x", time.Minute, ints(7)); len(got) != 1 {
		t.Fatalf("next job: frames %+v, exit %+v", got, exit)
	}
}

// What a case waited for a processor doesn't count, up to its wall time again.
func TestWallClockOfABusyMachine(t *testing.T) {
	const wall = 500 * time.Millisecond
	waited := time.Duration(0)
	s := startServer(t, func(c *Config) { c.Delay = func(int) time.Duration { return waited } })
	for _, tt := range []struct {
		waited      time.Duration
		sleeps      string
		answers     int
		least, most time.Duration // of what a run that is ended may take
	}{{0, "1000", 1, wall, 2 * wall}, {time.Minute, "0.75", 2, 0, 4 * wall}, {time.Minute, "1000", 1, 2 * wall, 4 * wall}} {
		waited = tt.waited
		// What the limits forbid never happens; what they allow does at times
		// not happen either, when the machine is busy with something else.
		const tries = 20
		for n := 1; ; n++ {
			got, exit := runCases(t, s, "import time\ndef f(x):\n    if x > 1: time.sleep("+tt.sleeps+")\n    return x", wall, ints(1, 2))
			if len(got) > tt.answers || exit.Wall < tt.least {
				t.Errorf("waited %v, sleeps %s s: %d answers, exit %+v", tt.waited, tt.sleeps, len(got), exit)
			}
			if len(got) == tt.answers && exit.Wall <= tt.most && (exit.Ending == EndedWall) == (tt.answers == 1) {
				break
			}
			if n == tries {
				t.Errorf("waited %v, sleeps %s s: never as it should be; the last of %d tries gave %d answers, exit %+v", tt.waited, tt.sleeps, n, len(got), exit)
				break
			}
		}
	}
}

// Only who waits at the listener is answered: asking for who doesn't would block.
func TestListenerIsReadable(t *testing.T) {
	const listener = 5
	asked := 0
	r := run{s: &Server{listener: listener, cfg: Config{Blocked: func(int) string { asked++; return "" }}}, c: &child{channel: -1}}
	var err error
	if r.s.poller, err = newPoller(); err != nil {
		t.Fatal(err)
	}
	defer r.s.poller.close()
	for events, want := range map[uint32]int{unix.EPOLLERR: 0, unix.EPOLLHUP: 0, unix.EPOLLIN: 1, unix.EPOLLIN | unix.EPOLLERR: 1} {
		asked = 0
		if r.event(listener, events); asked != want {
			t.Errorf("events %#x: asked %d times, want %d", events, asked, want)
		}
	}
}

func TestCancel(t *testing.T) {
	s := startServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	exit, err := s.Run(ctx, Job{
		Message: Evaluate(EvaluateSpec{Source: "def f(x):\n    while x: pass\n    return x", EntryPoint: "f", Cases: ints(0, 1), CPUSeconds: 50, Limits: testLimits}, noConfinement, ""),
		Wall:    time.Minute, Keep: 1, Stop: 1, MaxFrame: 1 << 20,
		OnFrame: func(Frame) (Message, Verdict) { cancel(); return nil, Continue },
	})
	if err != nil || exit.Ending != EndedCancelled {
		t.Fatalf("exit %+v, error %v", exit, err)
	}
}

func BenchmarkOneCase(b *testing.B) {
	s := startServer(b)
	cases := ints(1)
	s.Prefork()
	for b.Loop() {
		got, _ := runCases(b, s, "def f(x): return x", time.Second, cases)
		s.Prefork()
		if len(got) != 1 {
			b.Fatal(got)
		}
	}
}

func Benchmark100Cases(b *testing.B) {
	s := startServer(b)
	values := make([]int64, 100)
	cases := ints(values...)
	for b.Loop() {
		got, _ := runCases(b, s, "def f(x): return x", time.Second, cases)
		s.Prefork()
		if len(got) != 100 {
			b.Fatal(got)
		}
	}
}
