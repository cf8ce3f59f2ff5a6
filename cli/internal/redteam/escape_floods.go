package redteam

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// overrun is what a fast disk takes, in bytes, until a watch ends the writer.
const overrun = 160 << 20

// flood is an attack that takes what there is of something, as a submission or
// a command, within a wall time; right after it the slot must work.
func flood(name, does, holds, code string, wall int, ends ...protocol.CaseStatus) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: holds, Alone: true, Run: func(a *Attempt) {
		e := a.cheat(Submission{Code: careful + code, Entry: "solve", Limits: map[string]any{"wall_s": wall, "cpu_s": wall, "memory_mb": 128}, Cases: []Case{{"n=1", secretList()}}}, ends...)
		_ = e
		if took := a.elapsed(); took > time.Duration(wall+2)*time.Second+loaded*a.usual {
			a.Through("it took %v, its wall clock is %d s", took.Round(100*time.Millisecond), wall)
		}
	}}
}

const bombs = "the job ends at its wall clock, nothing of it is left, and the slot works within a second"

var processFloods = []Attack{
	flood("fork bomb", "forks without end", bombs, `
import os
def solve(n):
    while True:
        try: os.fork()
        except OSError: pass
`, 1),
	flood("fork bomb that leaves", "forks twice into sessions of their own, ignores every signal and goes on", bombs, `
import os, signal
def solve(n):
    for s in range(1, 64):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                os.chdir("/")
        except OSError: pass
`, 1),
	flood("fork bomb that ends", "is a chain of processes each of which forks once and ends, so that a list of them is always old", bombs, `
import os
def solve(n):
    for _ in range(8):
        try: os.fork()
        except OSError: pass
    while True:
        try:
            if os.fork(): os._exit(0)
        except OSError: pass
`, 1),
	flood("stopped processes", "leaves children that are stopped, which no gentle signal ends", bombs, `
import os, signal, time
def solve(n):
    for _ in range(20):
        try:
            if os.fork() == 0:
                os.setsid()
                while True: os.kill(os.getpid(), signal.SIGSTOP)
        except OSError: break
    time.sleep(0.2)
    return 1
`, 3),
	flood("threads without end", "starts threads until none starts any more", "the job fails or goes on with what it has; the slot works", `
import threading
def solve(n):
    e = threading.Event()
    count = 0
    try:
        while True:
            threading.Thread(target=e.wait, daemon=True).start()
            count += 1
    except (RuntimeError, MemoryError): pass
    assert count < 1000, "%d threads" % count
    return count
`, 3, protocol.Failed, protocol.OutOfMemory),
	flood("a computation that hears nothing", "computes in C where no Python signal handler runs, and ignores the CPU limit's signal", "the wall clock or the CPU limit ends it", `
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
def solve(n):
    return 3 ** (10 ** 8) % 7
`, 1, protocol.TimedOut),

	{Name: "CPU time of many processes", Family: Escape, Does: "has eight processes compute at once, each within its own limit", Alone: true,
		Holds: "CPU time is limited for the whole tree", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "burn.py", careful+"import os\nfor _ in range(3): os.fork()\nwhile True: pass\n")
			r := a.Command(session, "python3 burn.py", map[string]any{"cpu_s": 1, "wall_s": 6})
			if r.CPUMillis > 3500 {
				a.Through("the limit is 1 s of CPU time, the tree had %.0f ms", r.CPUMillis)
			}
		}},

	{Name: "a process more than may be", Family: Escape, Does: "counts how many processes and descriptors it gets",
		Holds: "as many as are configured, and no more", Stopped: []Layer{Rlimits}, Tame: true, Run: func(a *Attempt) {
			a.Script(fmt.Sprintf(`
def attack():
    import signal, time
    tried.append("processes")
    count, kids = 0, []
    try:
        while count < 200:
            pid = os.fork()
            if pid == 0: signal.pause()
            kids.append(pid)
            count += 1
    except OSError: pass
    for pid in kids: os.kill(pid, 9)
    for pid in kids: os.waitpid(pid, 0)
    saw("processes", count > %d, "%%d processes" %% count)
    files = []
    try:
        while len(files) < 5000: files.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: pass
    count = len(files)
    for fd in files: os.close(fd)
    saw("descriptors", count > %d, "%%d descriptors" %% count)
`, processes+40, openFiles))
		}},
}

var memoryFloods = []Attack{
	flood("memory of one process", "takes memory until there is none", "it ends as memory, by the limit", `
def solve(n):
    kept = []
    while True: kept.append(bytearray(8 << 20))
`, 5, protocol.OutOfMemory),
	flood("memory by C", "takes memory by malloc and mmap in C, where no MemoryError is raised", "it ends as memory, or goes on within the limit", `
import ctypes, mmap
def solve(n):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    total = 0
    while True:
        p = libc.malloc(8 << 20)
        if not p: break
        ctypes.memset(p, 1, 8 << 20)
        total += 8
        assert total < 200, "%d MB" % total
    return total
`, 5, protocol.Failed, protocol.OutOfMemory),
	memoryTree("memory of many processes", "has many processes each take less than one may, and together much more", `
import os, sys, time
def work():
    kids = []
    for _ in range(12):
        pid = os.fork()
        if pid == 0:
            try: x = bytearray(b"x") * (64 << 20)
            except MemoryError: os._exit(1)
            time.sleep(1.5)
            os._exit(0)
        kids.append(pid)
    ok = sum(os.waitpid(p, 0)[1] == 0 for p in kids)
    print("HELD %d MB" % (64 * ok))
work()
`, Memory),
	memoryTree("memory shared by processes", "takes memory that is shared between processes and that no address space is charged for twice", `
import mmap, os, time
def work():
    total = 0
    for _ in range(12):
        if os.fork() == 0:
            try:
                m = mmap.mmap(-1, 60 << 20)
                for i in range(0, len(m), 4096): m[i] = 1
            except (OSError, ValueError, MemoryError): os._exit(1)
            time.sleep(1.5)
            os._exit(0)
    ok = 0
    for _ in range(12): ok += os.wait()[1] == 0
    print("HELD %d MB" % (60 * ok))
work()
`, Memory),
	memoryTree("memory in files of memory", "fills files that lie in memory: memfd and /dev/shm, which no address space is charged for", `
import os, time
def work():
    held, block = 0, b"x" * (1 << 20)
    fds = []
    def fill(fd):
        n = 0
        try:
            for _ in range(15): n += os.write(fd, block) >> 20
        except OSError: pass
        return n
    try:
        for i in range(40):
            fds.append(os.memfd_create("m%d" % i))
            held += fill(fds[-1])
    except OSError: pass
    for d in ("/dev/shm",):
        for i in range(40):
            try: fds.append(os.open("%s/"%d + os.environ["RT_TOKEN"] + "-%d" % i, os.O_CREAT | os.O_RDWR))
            except OSError: break
            held += fill(fds[-1])
    time.sleep(1.0)
    print("HELD %d MB" % held)
work()
`, Memory),

	{Name: "disk by many writes", Family: Escape, Does: "writes many files, sparse files, large files and files that are deleted but open, far over the quota", Alone: true,
		Holds: "a session takes up what its quota says, and the next job has room", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "fill.py", `
import os, sys, time
held, block = 0, b"x" * (1 << 20)
fds = []
def fill(path, mb, gone=False):
    global held
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    if gone: os.unlink(path); fds.append(fd)
    for _ in range(mb): held += os.write(fd, block)
    if not gone: os.close(fd)
try:
    for i in range(9): fill("f%d" % i, 15)
    for i in range(6): fill("g%d" % i, 15, True)
    fill(os.environ["HOME"] + "/h", 15); fill(os.environ["TMPDIR"] + "/t", 15)
except OSError as e: print(e)
try:
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR); os.truncate(fd, 1 << 40); print("SPARSE")
except OSError: pass
print("WROTE %d MB" % (held >> 20))
time.sleep(0.3)
`)
			r := a.Command(session, "python3 fill.py", nil)
			bytes, _ := insideSize(a.fleet.sessionDir(session))
			// Disks are watched, not counted: what one takes between two looks is over.
			if bytes > sessionBytes+overrun {
				a.Through("the session takes up %d MB, its quota is %d MB: %q", bytes>>20, sessionBytes>>20, r.Stdout)
			}
			if strings.Contains(r.Stdout, "SPARSE") {
				a.Through("a file of 1 TB was made, the limit of a file is %d MB", fileBytes>>20)
			}
			var n int
			if fmt.Sscanf(r.Stdout[max(0, strings.Index(r.Stdout, "WROTE")):], "WROTE %d MB", &n); n > (sessionBytes+overrun)>>20 {
				a.Through("it wrote %d MB at once, the quota is %d MB", n, sessionBytes>>20)
			}
			if status, body := a.Post("/write_file", map[string]string{"id": session, "rel_path": "more", "content": strings.Repeat("x", 1<<20)}); bytes > sessionBytes && status != 507 {
				a.Through("a write over the quota answered %d %.200s", status, body)
			}
		}},

	{Name: "one file larger than any may be", Family: Escape, Does: "writes one file past the limit of files, by every way to make one long", Stopped: []Layer{Rlimits}, Tame: true, Alone: true,
		Holds: "no file grows past the limit", Run: func(a *Attempt) {
			a.Script(fmt.Sprintf(`
def attack():
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = %d
    fd = os.open("big", os.O_CREAT | os.O_RDWR)
    attempt("truncate", os.truncate, fd, limit + 1)
    attempt("write past", os.pwrite, fd, b"x", limit)
    attempt("allocate", os.posix_fallocate, fd, 0, limit + 4096)
`, fileBytes))
		}},

	{Name: "many files", Family: Escape, Does: "makes more files and directories than a session may have", Alone: true,
		Holds: "a session has as many files as its quota says", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "fill.py", "import os, time\nn = 0\ntry:\n    for i in range(12000):\n        if i % 100 == 0: d = 'd%d' % i; os.mkdir(d)\n        open('%s/%d' % (d, i), 'w').close(); n += 1\nexcept OSError as e: print(e)\nprint('MADE', n)\ntime.sleep(0.5)\n")
			r := a.Command(session, "python3 fill.py", nil)
			if _, files := insideSize(a.fleet.sessionDir(session)); files > sessionFiles && strings.Contains(r.Stdout, "MADE") {
				a.Through("the session has %d files, its quota is %d, and its command went on: %q %q", files, sessionFiles, r.Stdout, r.Stderr)
			}
			if status, body := a.Post("/write_file", map[string]string{"id": session, "rel_path": "more", "content": "x"}); status != 507 {
				a.Through("a write to a session of more files than it may have answered %d %.200s", status, body)
			}
		}},
}

// memoryTree is a flood by a command whose processes together take far more
// than the memory the command may have.
func memoryTree(name, does, source string, layers ...Layer) Attack {
	const limit = 128 // MB
	return Attack{Name: name, Family: Escape, Does: does, Holds: "memory is limited for the whole tree", Alone: true, Stopped: layers, Tame: true, Run: func(a *Attempt) {
		session := a.Session()
		a.Write(session, "fill.py", careful+source)
		r := a.Command(session, "RT_TOKEN="+a.token+" python3 fill.py", map[string]any{"memory_mb": limit, "wall_s": 10})
		var held int
		if at := strings.Index(r.Stdout, "HELD"); at >= 0 {
			fmt.Sscanf(r.Stdout[at:], "HELD %d MB", &held)
		}
		if held > 2*limit {
			a.Through("the limit is %d MB, the tree held %d MB; memory_kb says %d", limit, held, r.MemoryKB)
		}
	}}
}

var outputFloods = []Attack{
	flood("output without end", "prints without end", "it ends as output_limit", `
def solve(n):
    while True: print("x" * 10000)
`, 10, protocol.OutputLimit),
	flood("output past Python", "writes to descriptor 1 and 2 from children, without Python's streams", "it ends as output_limit", `
import os
def solve(n):
    os.fork()
    while True: os.write(1, b"x" * 65536); os.write(2, b"y" * 65536)
`, 10, protocol.OutputLimit),
	flood("a value too large", "answers with hundreds of megabytes, wide, deep and long", "it ends as output_limit or memory", `
def solve(n):
    return ["x" * (30 << 20), "y" * (30 << 20)]
`, 10, protocol.OutputLimit, protocol.OutOfMemory),
	flood("an exception too large", "raises an exception whose message is larger than any answer may be", "the message is cut", `
def solve(n):
    raise ValueError("x" * (40 << 20))
`, 10, protocol.Errored, protocol.OutOfMemory, protocol.Crashed),
	flood("a value of a million parts", "answers with millions of small values nested in each other", "the answer is compared or refused in time", `
def solve(n):
    x = [0]
    for _ in range(20): x = [x, x]
    return x
`, 10, protocol.Failed, protocol.OutputLimit, protocol.OutOfMemory, protocol.TimedOut),
	flood("values that are slow to compare", "answers with integers of a million digits and texts whose hashes collide", "the answer is compared in time", `
def solve(n):
    return [{i * ((1 << 61) - 1): i for i in range(20000)}, 1 << 4000000]
`, 10, protocol.Failed, protocol.OutputLimit, protocol.TimedOut, protocol.OutOfMemory),
	{Name: "output of a command without end", Family: Escape, Does: "has a command print without end to both streams, from the background as well", Alone: true,
		Holds: "the command is ended, what it printed is cut, the answer is no larger than it may be", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "x")
			r := a.Command(session, "(yes 1>&2 &) ; setsid yes & yes", map[string]any{"wall_s": 10})
			if len(r.Stdout) > 2<<20 || !r.Truncated {
				a.Through("stdout has %d bytes, truncated %v", len(r.Stdout), r.Truncated)
			}
			if a.elapsed() > 9*time.Second {
				a.Through("it went on for %v", a.elapsed())
			}
		}},
	{Name: "answers of ten thousand cases", Family: Escape, Does: "prints and raises as much as may be in each of thousands of cases", Alone: true,
		Holds: "the answer is a 200, cut to what may be carried", Run: func(a *Attempt) {
			s := Submission{Code: "def solve(n):\n    print('x' * 20000)\n    raise ValueError('y' * 70000)\n", Entry: "solve"}
			for range 2000 {
				s.Cases = append(s.Cases, Case{"n=1", "2"})
			}
			a.cheat(s)
		}},
	{Name: "memory of the worker", Family: Escape, Does: "makes the worker keep all that a job may send it, in several jobs at once", Alone: true,
		Holds: "the worker's memory comes back", Run: func(a *Attempt) {
			before := residentKB(a.fleet.Pid)
			for range 4 {
				a.cheat(Submission{Code: frames + "def solve(n):\n    put(frame(b'V', 0, value(['x' * 4000000] * 3)))\n    return n\n", Entry: "solve", Cases: []Case{{"n=3", secretList()}}})
			}
			after := 0
			a.fleet.settle(func() bool { after = residentKB(a.fleet.Pid); return after < before+300<<10 })
			if after > before+300<<10 {
				a.Through("the fleet's process had %d MB, and has %d MB", before>>10, after>>10)
			}
		}},
}

// residentKB is a process' resident memory in KiB.
func residentKB(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	n := 0
	if _, after, ok := strings.Cut(string(status), "VmRSS:"); ok {
		fmt.Sscan(after, &n)
	}
	return n
}
