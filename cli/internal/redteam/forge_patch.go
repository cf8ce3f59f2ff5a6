package redteam

import (
	"fmt"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// runner finds the module that runs the submission, among its callers.
const runner = `
import sys
def runner():
    f = sys._getframe()
    while f is not None:
        if "op_evaluate" in f.f_globals: return f.f_globals
        f = f.f_back
    return {}
`

var patches = []Attack{
	cheat("builtins patched", "replaces isinstance, type, len, compile, eval, exec, print and more by functions of its own", `
import builtins
def yes(*a, **k): return True
for name in ("isinstance", "issubclass", "callable", "type", "len", "all", "any", "map", "set", "compile", "eval", "exec", "repr", "str", "bytes", "bytearray", "tuple", "list", "hasattr", "getattr", "print", "open", "__import__", "__build_class__", "min", "max", "int", "memoryview"):
    setattr(builtins, name, yes)
def solve(n):
    return [1, 2]
`),
	cheat("modules patched", "replaces what the runner calls in marshal, os, struct, time, io and resource", `
import marshal, os, struct, time, io, resource, sys
for module in (marshal, os, struct, time, resource):
    for name in dir(module):
        if callable(getattr(module, name)) and name not in ("_exit",):
            try: setattr(module, name, lambda *a, **k: b"passed")
            except Exception: pass
def solve(n):
    return [1, 2]
`),
	cheat("runner patched", "replaces the runner's own functions: plain, base, pack, explain, send, report, begin, flush", runner+`
def solve(n):
    g = runner()
    assert "pack" in g and "send" in g
    answer = (g["VALUE"], b"\x00N")
    for name in ("plain", "base", "pack", "explain", "report", "begin", "flush", "fresh_streams", "cpu_allowance", "call", "compiled"):
        g[name] = lambda *a, **k: answer
    return [1, 2]
`),
	cheat("runner's state patched", "turns the runner's counters, frame format, limits and case number", runner+`
def solve(n):
    g = runner()
    g["STATE"].case = 99
    g["STATE"].wall = g["STATE"].cpu = -1e12
    class Frame:
        size = 29
        def pack(self, *a): return b"\x1a\x00\x00\x00V" + bytes(24) + b"\x00N"
    g["FRAME"] = Frame()
    g["VALUE"] = g["ERROR"] = g["EXIT"] = ord("V")
    g["CHANNEL"] = 1
    return [1, 2]
`),
	cheat("runner's code patched", "replaces the code objects of the runner's functions and its constants", runner+`
def solve(n):
    g = runner()
    def passed(*a, **k): return (86, b"\x00N")
    for name in ("pack", "explain", "plain", "base", "describe"):
        g[name].__code__ = passed.__code__
        g[name].__defaults__ = g[name].__kwdefaults__ = None
    return [1, 2]
`),
	cheat("the case list rewritten", "changes the list of cases and the loop of its callers through their frames", runner+`
import ctypes, gc, sys
def solve(n):
    f = sys._getframe()
    while f and f.f_code.co_name != "op_evaluate": f = f.f_back
    f.f_locals["n"] = 77
    f.f_locals["cases"] = ()
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(f), ctypes.c_int(1))
    return [1, 2]
`),
	cheat("trace and profile hooks", "sets hooks that run in every frame of its callers, and answer for them", `
import sys, threading
def hook(frame, event, arg):
    if frame.f_code.co_filename.startswith("<gradefleet") and event == "return":
        frame.f_locals["passed"] = True
    return hook
sys.settrace(hook); sys.setprofile(hook); threading.settrace(hook); threading.setprofile(hook)
f = sys._getframe()
while f:
    f.f_trace = hook
    f = f.f_back
def solve(n):
    return [1, 2]
`),
	cheat("audit hook", "installs an audit hook, which can't be removed, and raises from it", `
import sys
armed = []
def hook(event, args):
    if armed and event in ("marshal.dumps", "compile", "exec", "object.__getattr__", "os.write", "open", "sys._getframe"):
        raise SystemExit(0)
sys.addaudithook(hook)
def solve(n):
    armed.append(1)
    return [1, 2]
`),
	cheat("import hooks", "puts its own finders, loaders and modules before everything that is imported later", `
import sys, types
class Finder:
    def find_spec(self, name, path=None, target=None):
        import importlib.machinery
        return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec): return types.SimpleNamespace(__getattr__=lambda n: True, literal_eval=lambda t: 1, finditer=lambda *a: [], getfullargspec=None)
    def exec_module(self, module): pass
sys.meta_path[:] = [Finder()]
sys.path_hooks.insert(0, lambda p: Finder())
for name in ("ast", "re", "inspect", "gc", "traceback", "io", "codecs"):
    sys.modules[name] = Finder()
def solve(n):
    return [1, 2]
`),
	cheat("standard streams replaced", "puts objects in place of stdout that raise, recurse, block and exit when flushed", `
import os, sys
class Stream:
    closed = property(lambda self: 1 / 0)
    def flush(self): self.flush()
    def write(self, s): raise SystemExit(0)
    def __getattr__(self, name): raise KeyboardInterrupt
def solve(n):
    sys.stdout = sys.__stdout__ = Stream()
    sys.stderr = sys.__stderr__ = None
    sys.stdin = Stream()
    for fd in (0, 1, 2):
        try: os.close(fd)
        except OSError: pass
    return [1, 2]
`),
	cheat("interpreter at its limits", "leaves recursion limit, switch interval, garbage collector, integer limits and display hooks turned", `
import gc, sys
sys.setrecursionlimit(60)
sys.setswitchinterval(100)
sys.set_int_max_str_digits(640)
gc.set_threshold(1)
gc.callbacks.append(lambda *a: sys.exit(0))
sys.excepthook = sys.unraisablehook = sys.displayhook = lambda *a: None
def solve(n):
    return [1, 2]
`),
	cheat("numbers of another process", "answers getpid, time and resource use with what it likes", runner+`
import os
def solve(n):
    g = runner()
    g["_getrusage"] = lambda who: type("R", (), {"ru_maxrss": -1})
    g["_perf"] = g["_cpu_time"] = lambda: float("nan")
    g["micros"] = lambda s: 0
    return [1, 2]
`),

	{Name: "a later case made right", Family: Forge, Does: "patches math and the builtins in its first case, so that wrong later ones compute another value",
		Holds: "a submission that is wrong alone is wrong", Run: func(a *Attempt) {
			code := `
import builtins, math
def solve(n):
    if n == 0:
        math.sqrt = lambda x: %s
        builtins.sum = lambda x: %s
        return 0
    return [math.sqrt(n), sum([n])]
`
			x := secretList()
			for _, isolation := range []string{"", "process"} {
				e := a.Evaluate(Submission{Code: fmt.Sprintf(code, "'x'", "'y'"), Entry: "solve", Isolation: isolation,
					Cases: []Case{{"n=0", "0"}, {"n=4", "[2.0, 4]"}, {"n=9", x}}})
				want := []protocol.CaseStatus{protocol.Passed, protocol.Passed, protocol.Failed}
				for i, c := range e.Cases {
					if c.Status != want[i] {
						a.Through("isolation %q, case %d: want %s, have %s", isolation, i, want[i], c)
					}
				}
			}
		}},

	{Name: "CPU clock turned back", Family: Forge, Does: "is right but slow: raises its own CPU limit and reports that it used none",
		Holds: "a case that used more CPU time than it may is a timeout, by the kernel's word", Run: func(a *Attempt) {
			code := runner + `
import resource, time
def solve(n):
    g = runner()
    g["_cpu_time"] = lambda: 0.0
    g["micros"] = lambda s: 0
    resource.setrlimit(resource.RLIMIT_CPU, (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2)
    end = time.process_time() + 1.6
    while time.process_time() < end: pass
    return n
`
			e := a.Evaluate(Submission{Code: code, Entry: "solve", Limits: map[string]any{"cpu_s": 1, "wall_s": 20},
				Cases: []Case{{"n=1", "1"}, {"n=2", "2"}}})
			for i, c := range e.Cases {
				if c.Passed {
					a.Through("case %d used 1.6 s of CPU time, the limit is 1 s: %s, cpu_ms %v", i, c, c.CPUMillis)
				}
			}
		}},

	{Name: "memory and CPU hidden", Family: Forge, Does: "uses 60 MB and half a second in a child, and reports nothing of it",
		Holds: "cpu_ms and memory_kb are the kernel's", Run: func(a *Attempt) {
			code := runner + `
import os, time
def solve(n):
    g = runner()
    if os.fork() == 0:
        x = bytearray(b"x") * (60 << 20)
        end = time.process_time() + 0.5
        while time.process_time() < end: pass
        os._exit(0)
    os.wait()
    g["micros"] = lambda s: 0
    g["_getrusage"] = lambda who: type("R", (), {"ru_maxrss": 1})
    return n
`
			e := a.Evaluate(Submission{Code: code, Entry: "solve", Limits: probeLimits, Cases: []Case{{"n=1", "1"}}})
			for _, c := range e.Cases {
				if !c.Passed {
					a.Broken("%s", c)
				}
				if c.CPUMillis < 400 || c.MemoryKB < 60<<10 {
					a.Through("it used 500 ms and 60 MB, the result says %v ms and %d KiB", c.CPUMillis, c.MemoryKB)
				}
			}
		}},
}

var expectations = []Attack{
	{Name: "expected text of its own names", Family: Forge, Does: "defines the names that the expected text uses so that they equal its answer",
		Holds: "a verdict that rests on the submission's names says so", Run: func(a *Attempt) {
			e := a.Evaluate(Submission{Code: "RIGHT = [1]\ndef right(n): return [1]\ndef solve(n): return [1]\n", Entry: "solve",
				Cases: []Case{{"n=1", "RIGHT"}, {"n=2", "right(2)"}, {"n=3", "sorted(RIGHT)"}}})
			for i, c := range e.Cases {
				if c.Trust != "submission" {
					a.Through("case %d rests on a name of the submission's and doesn't say so: %s, trust %q", i, c, c.Trust)
				}
			}
		}},

	{Name: "expected text of builtin names", Family: Forge, Does: "replaces the builtins that the expected text uses",
		Holds: "an expected text is evaluated where the submission has no say", Run: func(a *Attempt) {
			a.cheat(Submission{Code: `
import builtins
builtins.sum = builtins.sorted = builtins.len = builtins.abs = lambda *a, **k: 0
def solve(n): return 0
`, Entry: "solve", Cases: []Case{{"n=1", "sum([1, 2])"}, {"n=2", "sorted([2, 1]) + [3]"}, {"n=3", "len('abc') * 2"}, {"n=4", "abs(-5) ** 2"}}})
		}},

	{Name: "names that raise NameError", Family: Forge, Does: "has the expected text fail first, so that it is asked again with the submission's names",
		Holds: "what the submission's names decide is marked", Run: func(a *Attempt) {
			e := a.Evaluate(Submission{Code: `
class Any:
    def __eq__(self, other): return True
    def __radd__(self, other): return 0
K = Any()
def solve(n): return 0
`, Entry: "solve", Cases: []Case{{"n=1", "1 + K"}, {"n=2", "[0] * 3 + K"}}})
			for i, c := range e.Cases {
				if c.Passed && c.Trust != "submission" {
					a.Through("case %d passed without saying on whose word: %s", i, c)
				}
			}
		}},

	{Name: "a module planted for the expected text", Family: Forge, Does: "writes a module into its session, which the expected text then imports instead of Python's",
		Holds: "an expected text imports nothing of the submission's, or the verdict says so", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "")
			code := `
import os
for name in ("statistics", "fractions", "cmath", "calendar"):
    for where in (os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"]):
        with open(os.path.join(where, name + ".py"), "w") as f:
            f.write("def mean(*a): return 0\nFraction = sqrt = isleap = mean\n")
def solve(n): return 0
`
			for range 2 {
				e := a.Evaluate(Submission{ID: session, Code: code, Entry: "solve", Cases: []Case{
					{"n=1", "__import__('statistics').mean([1, 2, 3])"}, {"n=2", "__import__('fractions').Fraction(1, 2) * 4"},
					{"n=3", "__import__('cmath').sqrt(4).real"}, {"n=4", "__import__('calendar').isleap(2000)"}}})
				for i, c := range e.Cases {
					if c.Passed && c.Trust != "submission" {
						a.Through("case %d passed by a module that the submission planted, without saying so: %s", i, c)
					}
				}
			}
		}},

	{Name: "the expected text's process", Family: Forge, Does: "leaves a process behind that waits for the one that evaluates the expected text",
		Holds: "nothing of a job is left when the next process begins", Run: func(a *Attempt) {
			word := secretWord()
			e := a.Evaluate(Submission{Code: regions + `
import os, re, time, signal
def solve(n):
    found = os.path.join(os.environ["TMPDIR"], "found")
    if os.fork() == 0:
        os.setsid()
        for s in (1, 2, 3, 13, 15): signal.signal(s, signal.SIG_IGN)
        if os.fork(): os._exit(0)
        pattern = re.compile(b"GF-EXPEC[T]ED-[0-9a-f]{24}")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for pid in os.listdir("/proc"):
                if pid.isdigit() and int(pid) != os.getpid():
                    try:
                        for chunk in regions(pid):
                            for m in pattern.findall(chunk):
                                with open(found, "ab") as f: f.write(m)
                    except (OSError, ValueError): pass
    try: return open(found).read()[:36]
    except OSError: return n
`, Entry: "solve", Cases: []Case{{"n=1", "[__import__('time').sleep(0.2), '" + word + "'.strip()][1]"}, {"n=2", "[__import__('time').sleep(0.2), '" + word + "'.strip()][1]"}}})
			if e.Passed {
				a.Through("it passed")
			}
			for _, c := range e.Cases {
				if c.Passed {
					a.Through("a case passed: %s", c)
				}
			}
		}},
}
