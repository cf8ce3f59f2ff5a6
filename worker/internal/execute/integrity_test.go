package execute

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

func TestIntegrityMarks(t *testing.T) {
	s, at := newSlot(t)
	for _, c := range []struct {
		name, code, mark, status string
	}{
		{"nothing odd", "def f(x): return x", "", "passed"},
		{"a subclass with its own equality", "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return E(7)", "subclass", "failed"},
		{"a subclass as such is none", "import enum\nclass E(enum.IntEnum):\n    A = 1\ndef f(x): return E.A", "", "passed"},
		{"an object equal to everything", "class E:\n    def __eq__(self, o): return True\ndef f(x): return E()", "equals_anything", "failed"},
		{"sys.exit", "import sys\ndef f(x): sys.exit(0)", "early_exit", "error"},
		{"os._exit", "import os\ndef f(x): os._exit(0)", "early_exit", "crashed"},
		{"a write to the channel", "import os\ndef f(x):\n    os.write(3, b'x' * 100)\n    return x", "result_channel", "crashed"},
		{"a fault that is not ours", "import os, struct\ndef f(x):\n    os.write(3, struct.pack('<IBIIIIII', 25, 70, 0, 0, 0, 0, 0, 0))\n    return x", "result_channel", "crashed"},
		{"a socket", "import socket\ndef f(x):\n    try: socket.socket()\n    except OSError: pass\n    return x", "blocked_call", "passed"},
		{"asking for IPv6 is none, as urllib3 does", "import socket\ndef f(x):\n    try: socket.socket(socket.AF_INET6)\n    except OSError: pass\n    return x", "", "passed"},
		{"a name service's socket is none", "import socket\ndef f(x):\n    try: socket.socket(socket.AF_UNIX)\n    except OSError: pass\n    return x", "", "passed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mark == "blocked_call" && !seccomp.CanListen() {
				t.Skip("the kernel has no seccomp listeners")
			}
			a := evaluate(t, s, at, c.code, nil, "x=1", "1")
			if got := strings.Join(a.Cases[0].Integrity, " "); got != c.mark || a.Cases[0].Status != c.status {
				t.Errorf("marks %q, status %s, want %q, %s: %s", got, a.Cases[0].Status, c.mark, c.status, a.Cases[0].error())
			}
		})
	}
	// Only the case that did it is marked.
	a := evaluate(t, s, at, "import ctypes\ndef f(x):\n    if x == 2: ctypes.CDLL(None).unshare(0x10000000)\n    return x", nil, "x=1", "1", "x=2", "2", "x=3", "3")
	var marked []bool
	for _, c := range a.Cases {
		marked = append(marked, slices.Contains(c.Integrity, "blocked_call"))
	}
	if seccomp.CanListen() && !slices.Equal(marked, []bool{false, true, false}) {
		t.Errorf("marked %v", marked)
	}
	if r := runCommand(t, s, at, "python3 -c 'import socket; socket.socket()'; echo end"); seccomp.CanListen() && (!slices.Contains(r.Integrity, "blocked_call") || r.Stdout != "end\n") {
		t.Errorf("a command: %+v", r)
	}
}

// What processes use together is bounded, although each stays below its own limit.
func TestTreeLimits(t *testing.T) {
	s, at := newSlot(t)
	limits := map[string]any{"limits": map[string]any{"memory_mb": 300, "wall_s": 60, "cpu_s": 1}}
	for _, c := range []struct {
		name, code, status, text string
	}{
		{"memory", `
import os, time
def f(x):
    for n in range(8):
        if os.fork() == 0:
            b = bytearray(100 << 20)
            time.sleep(60)
    time.sleep(60)`, "memory", "all its processes together"},
		// Files in memory are looked for so seldom that the kernel is quicker; then
		// what is left is within the limit.
		{"memory ended by the kernel", `
import os, time
def f(x):
    if os.fork() == 0:
        for n in range(8):
            fd = os.memfd_create("m")
            for _ in range(60): os.write(fd, bytes(1 << 20))
    time.sleep(60)`, "memory", "its processes together"},
		{"CPU time", `
import os, time
def f(x):
    for n in range(4):
        if os.fork() == 0:
            end = time.process_time() + 0.9
            while time.process_time() < end: pass
            time.sleep(60)
    time.sleep(60)`, "timeout", "all its processes together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			a := evaluate(t, s, at, c.code, limits, "x=1", "1")
			if got := a.Cases[0]; got.Status != c.status || !strings.Contains(got.error(), c.text) {
				t.Errorf("after %v: %+v %s", time.Since(begun), got, got.error())
			}
		})
	}
	at.DiskBytes, at.DiskFiles = 100<<20, 1000
	at.Usage = func() (int64, int64, error) { return 200 << 20, 10, nil }
	if r := runCommand(t, s, at, "sleep 60"); !strings.Contains(r.Stderr, "Disk limit: its files take up") {
		t.Errorf("over its disk limit: %+v", r)
	}
	at.Usage = nil // a look would find the same again
	if a := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !a.Passed {
		t.Errorf("afterwards: %+v", a)
	}
}

// What a result says of CPU time and memory is the kernel's word.
func TestUseIsTheKernelsWord(t *testing.T) {
	s, at := newSlot(t)
	const forged = `
import os, struct, sys, time, marshal
def report(n, v):
    body = b"\0" + marshal.dumps(v, 2)
    os.write(3, struct.pack("<IBIIIIII", 25 + len(body), ord("V"), n, 0, 0, 1, 0, 0) + body)
def f(x):
    b = bytearray(60 << 20)
    end = time.process_time() + 1.3
    while time.process_time() < end: pass
    report(x - 1, x)
    os._exit(0)
`
	raised := strings.Replace(forged, "def f(x):", "import resource\ndef f(x):\n    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))", 1)
	limits := map[string]any{"limits": map[string]any{"cpu_s": 1, "wall_s": 10}}
	if a := evaluate(t, s, at, raised, limits, "x=1", "1"); a.Cases[0].Status != "timeout" {
		t.Errorf("used 1.3 s of CPU time, said 0: %+v %s", a.Cases[0], a.Cases[0].error())
	}
	if a := evaluate(t, s, at, forged, nil, "x=1", "1"); a.Cases[0].MemoryKB < 60<<10 {
		t.Errorf("used 60 MB, said 1 KB: %+v", a.Cases[0])
	}
	// Frames for later cases are noticed when the runner's own come.
	a := evaluate(t, s, at, forged+"\ndef g(x):\n    report(0, 1); report(1, 2); return x", map[string]any{"entry_point": "g"}, "x=1", "1", "x=2", "2")
	if got := a.Cases[0].Integrity; !slices.Contains(got, "result_channel") {
		t.Errorf("forged frames: marks %v, %s", got, statuses(a))
	}
}

// A planted module has no say in what is expected.
func TestPlantedModule(t *testing.T) {
	s, at := newSlot(t)
	at.Importable = true
	code := "open('statistics.py', 'w').write('def mean(x): return 7')\ndef f(x): return 7"
	for range 2 {
		if a := evaluate(t, s, at, code, nil, "x=1", "__import__('statistics').mean([1])"); a.Passed {
			t.Errorf("passed by a planted module: %+v", a)
		}
	}
}
