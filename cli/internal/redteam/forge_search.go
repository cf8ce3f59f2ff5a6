package redteam

import (
	"encoding/json"
	"strings"
	"sync"
)

// regions yields the readable memory of a process.
const regions = `
def readable():
    import ctypes
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
def regions(pid):
    if pid == "self": readable()
    with open("/proc/%s/maps" % pid) as maps, open("/proc/%s/mem" % pid, "rb", 0) as mem:
        for line in maps:
            part = line.split()
            if "r" not in part[1] or part[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            at, end = (int(x, 16) for x in part[0].split("-"))
            try:
                mem.seek(at)
                yield mem.read(min(end - at, 64 << 20))
            except (OSError, ValueError, OverflowError):
                continue
`

var searches = []Attack{
	search("search of all frames", "walks the frames of its callers, and every object that they lead to", `
import sys
def look(text):
    frame, seen, todo = sys._getframe(), set(), []
    while frame:
        todo += [dict(frame.f_locals), dict(frame.f_globals)]
        frame = frame.f_back
    while todo and len(seen) < 300000:
        x = todo.pop()
        if id(x) in seen: continue
        seen.add(id(x))
        if isinstance(x, (str, bytes)): yield x
        elif isinstance(x, dict): todo += list(x.keys()) + list(x.values())
        elif isinstance(x, (list, tuple, set, frozenset)): todo += list(x)
        elif hasattr(x, "__dict__"): todo.append(dict(vars(x)))
`),
	search("search through the traceback", "raises and follows traceback, context and inspect.stack to what its callers hold", `
import inspect, traceback
def look(text):
    for info in inspect.stack():
        yield repr(info.frame.f_locals)
    try:
        raise KeyError(text)
    except KeyError as e:
        yield repr(traceback.TracebackException.from_exception(e, capture_locals=True).stack)
        for s in traceback.StackSummary.extract(traceback.walk_stack(None), capture_locals=True):
            yield repr(s.locals)
`),
	search("search of all objects", "asks the garbage collector for every object, and for what those refer to", `
import gc
def look(text):
    gc.collect()
    seen = set()
    todo = gc.get_objects()
    for x in todo:
        for y in gc.get_referents(x):
            if isinstance(y, (str, bytes)) and id(y) not in seen:
                seen.add(id(y))
                yield y
`),
	search("search of its own memory", "reads all memory of its process, freed or not", regions+`
def look(text):
    yield from regions("self")
`),
	searchFor("search for an expression", "reads all memory of its process for an expected text that is an expression", regions+`
def look(text):
    yield from regions("self")
`, func(word string) string { return "'" + word + "'.strip() + ''" }, true),
	search("search by a thread that stays", "leaves a thread that searches memory while later cases are run and judged", regions+`
import threading, time, builtins
state = builtins.__dict__.setdefault("_hoard", {"found": set(), "on": False})
def watch():
    while True:
        for chunk in regions("self"):
            state["found"].update(words([chunk], "EXPECTED")[0])
        time.sleep(0.01)
def look(text):
    if not state["on"]:
        state["on"] = True
        threading.Thread(target=watch, daemon=True).start()
        time.sleep(0.3)
    yield text
    yield from state["found"]
`),
	searchFor("search of other processes", "reads memory, environment, arguments, files and links of every process in /proc", regions+`
import os
def look(text):
    me = os.getpid()
    for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdigit()):
        if pid == me: continue
        for name in ("environ", "cmdline", "auxv", "stack", "syscall", "wchan", "io", "mountinfo", "numa_maps"):
            try:
                with open("/proc/%d/%s" % (pid, name), "rb") as f: yield f.read(1 << 20)
            except OSError: pass
        try:
            yield from regions(pid)
        except OSError: pass
        try:
            for fd in os.listdir("/proc/%d/fd" % pid):
                with open("/proc/%d/fd/%s" % (pid, fd), "rb", 0) as f:
                    os.set_blocking(f.fileno(), False)
                    yield f.read(1 << 20) or b""
        except OSError: pass
    yield text
`, func(word string) string { return "'" + word + "'" }, true),
	search("search of files", "reads every file below its directories, the temporary ones, /run, /var and those open in the process", `
import os
def look(text):
    roots = [os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"], "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lib", "/root", "/home", "/proc/self/fd", "/proc/self/task"]
    count = 0
    for root in roots:
        for dir, names, files in os.walk(root):
            for name in files:
                path = os.path.join(dir, name)
                try:
                    if not os.path.isfile(path): continue
                    with open(path, "rb") as f: yield f.read(1 << 20)
                except OSError: continue
                count += 1
                if count > 3000: break
    yield text
`),
	search("search of the environment", "looks through the environment, arguments, modules and interpreter state", regions+`
import os, sys
def look(text):
    readable()
    yield repr(dict(os.environ)) + repr(sys.argv) + repr(sys.orig_argv)
    with open("/proc/self/environ", "rb") as f: yield f.read()
    for name, module in list(sys.modules.items()):
        yield repr(getattr(module, "__dict__", ""))
    yield text
`),
	search("search of descriptors", "reads, without waiting, from every descriptor that it was born with", `
import os, fcntl
def look(text):
    for fd in range(1024):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError: continue
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            yield os.read(fd, 1 << 20)
        except OSError: pass
        try:
            yield os.pread(fd, 1 << 20, 0)
        except OSError: pass
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    yield text
`),

	{Name: "descriptors it was born with", Family: Forge, Does: "looks for descriptors that are none of its standard streams and its one channel",
		Holds: "a submission has four descriptors, a command three", Run: func(a *Attempt) {
			const source = `
def attack():
    allowed = {0, 1, 2} | ({3} if __name__ != "__main__" or not sys.argv[0].endswith("attack.py") else set())
    for fd in range(4096):
        try: os.fstat(fd)
        except OSError: continue
        saw("descriptor %d" % fd, fd not in allowed, os.fstat(fd))
    if 3 in allowed:
        import socket
        s = socket.socket(fileno=os.dup(3))
        saw("name of the other end", bool(s.getpeername() or s.getsockname()), repr((s.getpeername(), s.getsockname())))
        import struct
        pid = struct.unpack("3i", s.getsockopt(1, 17, 12))
        notes.append("peer %r" % (pid,))
`
			a.Probe(source)
			a.Script(source)
		}},

	{Name: "a spy in the next slot", Family: Forge, Does: "reads the memory of every process while another slot evaluates an expected text that is an expression",
		Holds: "processes of another slot can't be read", Run: func(a *Attempt) {
			word := secretWord()
			session := a.Session()
			a.Write(session, "spy.py", regions+`
import os, re, sys, time
pattern = re.compile(b"GF-EXPEC[T]ED-[0-9a-f]{24}")
me, found, looks = os.getpid(), set(), 0
end = time.monotonic() + 2.5
while time.monotonic() < end and not found:
    for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
        if pid in (me, os.getppid()): continue
        try:
            for chunk in regions(pid): found.update(pattern.findall(chunk))
        except (OSError, ValueError): pass
    looks += 1
print("LOOKS", looks, sorted(found))
`)
			var result RunResult
			var wg sync.WaitGroup
			wg.Go(func() { result = a.Command(session, "python3 spy.py", nil) })
			neighbour := &Attempt{attack: a.attack, fleet: a.fleet, ctx: a.ctx, token: a.token + "-n"}
			for range 20 {
				neighbour.Evaluate(Submission{Code: "def solve(n): return n", Entry: "solve",
					Cases: []Case{{"n=1", "[__import__('time').sleep(0.05), '" + word + "'.strip()][1]"}}})
			}
			wg.Wait()
			a.through = append(a.through, neighbour.through...)
			if strings.Contains(result.Stdout, word) {
				a.Through("it read the expected output of another session: %s", result.Stdout)
			} else if !strings.Contains(result.Stdout, "LOOKS") {
				a.Broken("the spy did not look: %+v", result)
			}
		}},

	{Name: "the answer of the case before", Family: Forge, Does: "keeps what earlier cases of its process hold, to answer later ones that may not be told",
		Holds: "with a process for each case nothing is carried over; a wrong submission fails", Run: func(a *Attempt) {
			code := `
import builtins, os, sys
def solve(n):
    kept = builtins.__dict__.setdefault("_kept", [])
    kept.append(n)
    with open(os.path.join(os.getcwd(), "kept"), "a") as f: f.write("%d\n" % n)
    lines = len(open(os.path.join(os.getcwd(), "kept")).read().split())
    return [len(kept), lines]
`
			e := a.Evaluate(Submission{Code: code, Entry: "solve", Isolation: "process",
				Cases: []Case{{"n=1", "[1, 1]"}, {"n=2", "'x'"}, {"n=3", "'x'"}}})
			for i, c := range e.Cases {
				var got []int
				if json.Unmarshal(c.Got, &got) != nil || len(got) != 2 {
					a.Broken("case %d: %s", i, c)
				}
				if got[0] != 1 {
					a.Through("case %d finds what case %d left in the interpreter, though each has a process of its own", i, got[0]-1)
				}
			}
		}},
}
