package execute

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestVerdicts(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.OutputStop = 4 << 20 })
	// For what ends by a limit alone.
	short := map[string]any{"limits": map[string]any{"wall_s": 3}}
	little := map[string]any{"limits": map[string]any{"cpu_s": 1}}
	tests := []struct {
		name, code string
		io         []string
		want       string
		error      string // contained in the first non-empty error
		extra      map[string]any
	}{
		{"right and wrong", "def f(a, b):\n    return a + b", []string{"a=1, b=2", "3", "a=1, b=2", "4"}, "passed failed", "", nil},
		{"fresh namespaces", "n = 0\ndef f(x):\n    global n\n    n += x\n    return n", []string{"x=1", "1", "x=1", "1"}, "passed passed", "", nil},
		{"state that leaks is confirmed alone", "import sys\ndef f(x):\n    sys._n = getattr(sys, '_n', 0) + 1\n    return sys._n", []string{"x=0", "1", "x=1", "1", "x=2", "1"}, "passed passed passed", "", nil},
		{"exception", "def f(x):\n    return 1 // x", []string{"x=1", "1", "x=0", "0", "x=2", "0"}, "passed error passed", "ZeroDivisionError: integer division or modulo by zero\nTraceback (most recent call last):\n  File \"<string>\", line 2, in f", nil},
		{"syntax error", "def f(x:\n  return", []string{"x=1", "1", "x=2", "2"}, "error error", "SyntaxError", nil},
		{"sys.exit", "import sys\ndef f(x):\n    if x: sys.exit(0)\n    return x", []string{"x=0", "0", "x=1", "1", "x=0", "0"}, "passed error passed", "SystemExit: 0", nil},
		{"exit builtin", "def f(x):\n    exit()", []string{"x=0", "0"}, "error", "SystemExit", nil},
		{"os._exit", "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    return x", []string{"x=0", "0", "x=1", "1", "x=2", "2"}, "passed crashed passed", "status 0 before it answered", nil},
		{"segfault", "import ctypes\ndef f(x):\n    if x == 1: ctypes.string_at(0)\n    return x", []string{"x=0", "0", "x=1", "1", "x=2", "2"}, "passed crashed passed", "SIGSEGV", nil},
		{"endless loop", "def f(x):\n    while x == 1: pass\n    return x", []string{"x=0", "0", "x=1", "1", "x=2", "2"}, "passed timeout passed", "Timeout: no answer within 3 s", short},
		{"endless loop at once", "def f(x):\n    while x == 1: pass\n    return x", []string{"x=1", "1", "x=2", "2"}, "timeout passed", "Timeout", little},
		{"memory", "def f(x):\n    if x: return len('a' * 10**11)\n    return x", []string{"x=0", "0", "x=1", "1", "x=0", "0"}, "passed memory passed", "MemoryError", nil},
		{"flood within the limit", "def f(x):\n    print('x' * 10**6)\n    return x", []string{"x=0", "0", "x=1", "1"}, "passed passed", "", nil},
		{"flood past the limit", "def f(x):\n    while x: print('x' * 10**5)\n    return x", []string{"x=0", "0", "x=1", "1", "x=0", "0"}, "passed output_limit passed", "Output limit", nil},
		{"thread left behind", "import threading, time\ndef f(x):\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n    return x", []string{"x=0", "0", "x=1", "1"}, "passed passed", "", nil},
		{"fork", "import os\ndef f(x):\n    os.fork()\n    return x", []string{"x=0", "0", "x=1", "1"}, "passed passed", "", nil},
		{"descriptors closed", "import os\ndef f(x):\n    if x == 1: os.closerange(0, 64)\n    return x", []string{"x=0", "0", "x=1", "1", "x=2", "2"}, "passed crashed passed", "", nil},
		{"streams closed", "import os, sys\ndef f(x):\n    sys.stdout.close(); os.close(1); os.close(2)\n    return x", []string{"x=0", "0", "x=1", "1"}, "passed passed", "", nil},
		{"builtins broken", "import builtins\nif getattr(builtins, '_seen', 0): builtins.len = lambda o: 99\nbuiltins._seen = 1\ndef f(x): return len([1])", []string{"x=0", "1", "x=1", "1", "x=2", "1"}, "passed passed passed", "", little},
		{"expected expression", "K = 5\ndef f(x): return x + K", []string{"x=1", "1 + K", "x=1", "[0] * 3", "x=1", "float('6')"}, "passed failed passed", "", nil},
		{"expected name is unknown", "def f(x): return x", []string{"x=1", "AB"}, "error", "NameError: name 'AB' is not defined", nil},
		{"stdin is empty", "def f(x): return int(input())", []string{"x=1", "1"}, "error", "EOFError", nil},
		{"subclasses as base values", "from enum import IntEnum\nfrom collections import namedtuple, OrderedDict\nP = namedtuple('P', 'a b')\nclass E(IntEnum): A = 1\nclass S(str): pass\ndef f(x): return [P(1, E.A), OrderedDict(a=S('s'))]", []string{"x=1", "[(1, 1), {'a': 's'}]"}, "passed", "", nil},
		{"own equality", "class P:\n    def __init__(self, a): self.a = a\n    def __eq__(self, o): return isinstance(o, P) and self.a == o.a\ndef f(x): return P(x)", []string{"x=1", "P(1)", "x=1", "P(2)", "x=1", "1"}, "passed failed failed", "", nil},
		{"own equality that knows its own kind only", "class P:\n    def __init__(self, a): self.a = a\n    def __eq__(self, o): return self.a == o.a\ndef f(x): return P(x)", []string{"x=1", "P(1)", "x=1", "P(2)", "x=1", "1"}, "passed failed error", "AttributeError: 'int' object has no attribute 'a'", nil},
		{"equality with a literal", "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o\nf = P", []string{"x=0", "0", "x=1", "2"}, "passed failed", "", nil},
		{"equal to everything", "class Y:\n    def __eq__(self, o): return True\ndef f(x): return Y()", []string{"x=1", "1", "x=1", "[1, 2]", "x=1", "'a'"}, "failed failed failed", "calls itself equal", nil},
		{"int equal to everything", "class I(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return I(7)", []string{"x=1", "1"}, "failed", "", nil},
		{"cyclic value", "a = []\na.append(a)\ndef f(x): return a", []string{"x=1", "1"}, "failed", "", nil},
		{"deep value", "def f(x):\n    a = []\n    for _ in range(500): a = [a]\n    return a", []string{"x=1", "1"}, "failed", "", nil},
		{"wide integers", "def f(x): return 10**5000", []string{"x=1", "10**5000", "x=1", "10**5000 + 1"}, "passed failed", "", nil},
		{"decimal", "from decimal import Decimal as D\ndef f(x): return D('1.50')", []string{"x=1", "D('1.5')", "x=1", "D('2')"}, "passed failed", "", nil},
		{"lru_cache", "from functools import lru_cache\n@lru_cache(None)\ndef f(x): return x", []string{"x=1", "1"}, "passed", "", nil},
		{"forged frames", "import os\ndef f(x):\n    os.write(3, b'\\x00' * 64)\n    return 0", []string{"x=1", "1", "x=0", "0"}, "crashed crashed", "channel", nil},
		{"frames of other cases", "import os, struct\ndef f(x):\n    for i in range(3): os.write(3, struct.pack('<IBIIIIII', 25 + 6, 86, 2, 0, 0, 0, 0, 0) + b'\\0i' + struct.pack('<i', 7))\n    return x", []string{"x=0", "0", "x=1", "1", "x=2", "7"}, "crashed crashed crashed", "channel", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := evaluate(t, s, at, tt.code, tt.extra, tt.io...)
			if got := statuses(a); got != tt.want {
				t.Errorf("statuses %q, want %q: %+v", got, tt.want, a)
			}
			first := ""
			for _, c := range a.Cases {
				if first == "" {
					first = c.error()
				}
			}
			if !strings.Contains(first, tt.error) || tt.error == "" && first != "" && !strings.Contains(tt.want, "error") && !strings.Contains(tt.want, "crashed") {
				t.Errorf("error %q, want %q in it", first, tt.error)
			}
			if again := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !again.Passed {
				t.Errorf("the next submission: %+v", again)
			}
		})
	}
}

func TestModesAgree(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.CaseCPU = time.Second })
	code := "def f(x):\n    if x == 2: raise ValueError\n    if x == 4:\n        while True: pass\n    return x % 5"
	io := []string{"x=0", "0", "x=1", "2", "x=2", "2", "x=3", "3", "x=4", "4", "x=5", "0"}
	together := evaluate(t, s, at, code, nil, io...)
	apart := evaluate(t, s, at, code, map[string]any{"isolation": "process"}, io...)
	if statuses(together) != statuses(apart) || statuses(apart) != "passed failed error passed timeout passed" {
		t.Errorf("together %q, apart %q", statuses(together), statuses(apart))
	}
}

func TestStopOnFailure(t *testing.T) {
	s, at := newSlot(t)
	code := "import sys\ndef f(x):\n    sys._n = getattr(sys, '_n', 0) + 1\n    return sys._n + x"
	a := evaluate(t, s, at, code, map[string]any{"stop_on_failure": true}, "x=0", "1", "x=0", "1", "x=5", "1", "x=0", "1")
	if got := statuses(a); got != "passed passed failed skipped" || a.Passed {
		t.Errorf("statuses %q", got)
	}
}

func TestRequestLimits(t *testing.T) {
	s, at := newSlot(t)
	code := "def f(x):\n    while x == 1: pass\n    if x == 2: bytearray(10**8)\n    return x"
	a := evaluate(t, s, at, code, map[string]any{"limits": map[string]any{"wall_s": 10, "cpu_s": 1, "memory_mb": 100}}, "x=1", "1", "x=2", "2", "x=3", "3")
	if got := statuses(a); got != "timeout memory passed" {
		t.Errorf("statuses %q: %+v", got, a)
	}
	a = evaluate(t, s, at, code, map[string]any{"limits": map[string]any{"wall_s": 1000}}, "x=3", "3")
	if !strings.Contains(a.Detail, "1000 s is above this server's maximum of 60 s") {
		t.Errorf("detail %q", a.Detail)
	}
	a = evaluate(t, s, at, code, map[string]any{"limits": map[string]any{"cpu_s": 2e9}}, "x=3", "3")
	if !strings.Contains(a.Detail, "2000000000 s is above this server's maximum of 60 s") {
		t.Errorf("detail %q", a.Detail)
	}
}

// The API takes null for what may be left out.
func TestNullIsAsIfItWereNotThere(t *testing.T) {
	s, at := newSlot(t)
	a := evaluate(t, s, at, "def f(x): return x", map[string]any{"limits": nil, "isolation": nil, "stop_on_failure": nil}, "x=3", "3")
	if got := statuses(a); got != "passed" {
		t.Errorf("statuses %q: %+v", got, a)
	}
	if r, err := parseRun([]byte(`{"id":"s","cmd":"ls","limits":null}`)); err != nil || r.command != "ls" {
		t.Errorf("a command with null limits: %+v, %v", r, err)
	}
}

func TestCPULimitIsPerCase(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.CaseCPU = time.Second })
	code := "import time\ndef f(x):\n    t = time.process_time()\n    while time.process_time() - t < x: pass\n    return x"
	a := evaluate(t, s, at, code, nil, "x=0.4", "0.4", "x=0.4", "0.4", "x=0.4", "0.4", "x=30", "30", "x=0.1", "0.1")
	if got := statuses(a); got != "passed passed passed timeout passed" {
		t.Errorf("statuses %q: %+v", got, a)
	}
}

func TestBudgetSkipsTheRest(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.CaseWall, l.Budget = 200*time.Millisecond, 300*time.Millisecond })
	a := evaluate(t, s, at, "def f(x):\n    while True: pass", nil, "x=0", "0", "x=1", "1", "x=2", "2", "x=3", "3")
	if got := statuses(a); !strings.HasPrefix(got, "timeout ") || !strings.HasSuffix(got, " skipped") {
		t.Errorf("statuses %q", got)
	}
}

func TestPrintsBelongToTheirCase(t *testing.T) {
	s, at := newSlot(t)
	a := evaluate(t, s, at, "print('top')\ndef f(x):\n    print('in', x)\n    return x", nil, "x=1", "1", "x=2", "2")
	one := evaluate(t, s, at, "import os\ndef f(x):\n    print('python')\n    os.system('echo shell')\n    if x == 2: os._exit(0)\n    return x", nil, "x=1", "1")
	if one.Cases[0].Stdout != "python\nshell\n" {
		t.Errorf("stdout with a subprocess: %q", one.Cases[0].Stdout)
	}
	if a.Cases[0].Stdout != "top\nin 1\n" || a.Cases[1].Stdout != "top\nin 2\n" {
		t.Errorf("stdout %q and %q", a.Cases[0].Stdout, a.Cases[1].Stdout)
	}
}

func BenchmarkEvaluate1(b *testing.B)   { benchmarkEvaluate(b, 1) }
func BenchmarkEvaluate100(b *testing.B) { benchmarkEvaluate(b, 100) }

func benchmarkEvaluate(b *testing.B, n int) {
	s, at := newSlot(b)
	var io []string
	for range n {
		io = append(io, "a=1, b=2", "3")
	}
	before := cpuTime(b, s)
	for b.Loop() {
		if a := evaluate(b, s, at, "def f(a, b):\n    return a + b", nil, io...); !a.Passed {
			b.Fatal(a)
		}
		s.Ready()
	}
	b.ReportMetric(float64((cpuTime(b, s)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process, the slot's fork servers and all their children
// have used. On a machine with other load it tells more than the clock.
func cpuTime(b *testing.B, s *Slot) time.Duration {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		b.Fatal(err)
	}
	sum := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for _, e := range append(slices.Collect(maps.Values(s.more)), s.base) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.server.Pid()))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, ticks := range strings.Fields(rest)[11:15] { // utime, stime, cutime, cstime: proc(5)
			n, err := strconv.Atoi(ticks)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// BenchmarkTwoSlots is the engine's throughput with a slot for each of two cores.
func BenchmarkTwoSlots(b *testing.B) {
	policy := newPolicy(b, nil)
	slots := make(chan int, 2)
	s := make([]*Slot, 2)
	at := make([]Place, 2)
	for i := range s {
		s[i], at[i] = newSlotOf(b, policy, nil)
		slots <- i
	}
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		i := <-slots
		defer func() { slots <- i }()
		for pb.Next() {
			if a := evaluate(b, s[i], at[i], "def f(a, b):\n    return a + b", nil, "a=1, b=2", "3"); !a.Passed {
				b.Error(a)
			}
			s[i].Ready()
		}
	})
}
