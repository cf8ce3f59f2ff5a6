package redteam

import (
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// poisons aim at the submission that comes next in the same slot; whether that
// finds the world as it was is asked after every attack.

// poison makes an attack of a submission that only leaves something.
func poison(name, does, code string, ends ...protocol.CaseStatus) Attack {
	if len(ends) == 0 {
		ends = []protocol.CaseStatus{protocol.Failed}
	}
	return Attack{Name: name, Family: Forge, Does: does, Holds: "the next submission in the slot finds nothing of it", Run: func(a *Attempt) {
		// Often enough that every slot gets some.
		for range 3 {
			a.cheat(Submission{Code: careful + strings.ReplaceAll(code, "TOKEN", `"`+a.token+`"`), Entry: "solve", Limits: map[string]any{"wall_s": 3}, Cases: []Case{{"n=1", secretList()}}}, ends...)
		}
	}}
}

var poisons = []Attack{
	poison("modules planted", "plants modules named as the standard library's in every directory that it can write", `
import os
def solve(n):
    for where in (os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"], "..", "/tmp", "/var/tmp", "/dev/shm", "/"):
        for name in ("math.py", "json.py", "sitecustomize.py", "usercustomize.py", "resource.py", "time.py", TOKEN + ".py"):
            try:
                if where[0] != "/" or TOKEN in name:
                    open(os.path.join(where, name), "w").write("raise SystemExit(0)")
            except OSError: pass
    return 0
`),
	poison("start-up files planted", "plants .pth files, user site directories, PYTHONSTARTUP and shell profiles in HOME and beside", `
import os, sys
def solve(n):
    home = os.environ["HOME"]
    site = os.path.join(home, ".local/lib/python%d.%d/site-packages" % sys.version_info[:2])
    os.makedirs(site, exist_ok=True)
    os.makedirs(os.path.join(home, ".config/matplotlib"), exist_ok=True)
    for path in (site + "/evil.pth", site + "/usercustomize.py", home + "/.pythonrc", home + "/.profile", home + "/.bashrc", home + "/.pdbrc",
                 os.getcwd() + "/pyvenv.cfg", os.environ["TMPDIR"] + "/evil.pth", home + "/.config/matplotlib/matplotlibrc"):
        open(path, "w").write("import os; os._exit(0)\n")
    return 0
`),
	poison("directories spoilt", "replaces its directories by files, links and modes, and gives them attributes", `
import os, shutil
def solve(n):
    for d in (os.environ["TMPDIR"], os.environ["HOME"], os.getcwd()):
        open(os.path.join(d, "x"), "w").write("x")
        for act in (lambda: os.setxattr(d, "user.evil", b"x"), lambda: os.chmod(d, 0), lambda: os.rename(d, d + ".old"), lambda: os.symlink("/", d), lambda: os.utime(d, (1, 1))):
            try: act()
            except OSError: pass
    return 0
`),
	poison("process settings turned", "turns umask, nice, affinity, limits, signal masks, handlers, timers and the subreaper of its process and group", `
import ctypes, os, resource, signal
def solve(n):
    os.umask(0o777)
    os.nice(19)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    for s in range(1, 64):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1); libc.prctl(4, 0); libc.prctl(1, 9)
    for r in dir(resource):
        if r.startswith("RLIMIT_") and r not in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CPU"):
            resource.setrlimit(getattr(resource, r), (0, 0))
    os.environ.clear()
    return 0
`, protocol.Failed, protocol.Errored, protocol.Crashed),
	poison("memory shared with the server", "writes over every page that it shares with the fork server", `
import ctypes, gc
def solve(n):
    import sys, math, json
    for module in (sys, math, json):
        for k in list(vars(module)):
            try: setattr(module, k, None)
            except Exception: pass
    for o in gc.get_objects():
        if type(o) is dict and "op_evaluate" in o: o["op_evaluate"] = None
    return 0
`, protocol.Failed, protocol.Errored, protocol.Crashed),
	{Name: "bytecode planted", Family: Forge, Does: "writes compiled modules and start-up files beside the standard library and wherever Python imports from",
		Holds: "nothing that another submission imports can be written", Run: func(a *Attempt) {
			a.Probe(`
def attack():
    for p in [p for p in sys.path if p and p != os.getcwd()] + [os.path.dirname(os.__file__)]:
        for path in (p, os.path.join(p, "__pycache__"), os.path.join(p, "statistics.py")):
            attempt(path, plantable, path)
`)
		}},
}

// saboteurs aim at the fork server. None of these calls may work.
func saboteur(name, does, source string) Attack {
	return Attack{Name: name, Family: Forge, Does: does, Holds: "the fork server is out of reach, or serves the next job within a second", Run: func(a *Attempt) { a.ProbeMayDie(source) }}
}

var saboteurs = []Attack{
	saboteur("signals to the fork server", "asks with every signal whether it may be sent to its parent, and sends those that can be taken back", `
def attack():
    import signal
    for parent in parents():
        for s in (0, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG, signal.SIGCHLD):
            attempt("kill parent %d" % s, os.kill, parent, s)
        attempt("pidfd signal", lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0))
        if os.getpgid(parent) > 1: attempt("kill group of parent", os.killpg, os.getpgid(parent), 0)
`),
	saboteur("the fork server killed", "kills its parent, and the parent of that, for good", `
def attack():
    import signal, time
    for pid in parents():
        attempt("kill %d" % pid, os.kill, pid, signal.SIGKILL)
    time.sleep(0.1)
`),
	saboteur("the fork server stopped", "stops its parent, so that it neither serves nor ends", `
def attack():
    import signal
    for p in parents():
        attempt("stop parent", os.kill, p, signal.SIGSTOP)
`),
	saboteur("the fork server's descriptors", "opens, closes and takes over the descriptors of its parent: the control socket among them", `
def attack():
    import ctypes
    for p in parents():
        tried.append("listing")
        fds = []
        try: fds = os.listdir("/proc/%d/fd" % p)
        except OSError: pass
        for fd in fds or range(8):
            attempt("open fd %s" % fd, os.open, "/proc/%d/fd/%s" % (p, fd), os.O_RDWR | os.O_NONBLOCK)
        attempt("pidfd_getfd", lambda: syscall("pidfd_getfd", os.pidfd_open(p), 3, 0))
`),
	saboteur("the fork server's memory", "reads and writes the memory of its parent in every way that there is", `
def attack():
    need("ctypes")
    import ctypes
    for p in parents():
        attempt("mem", lambda: open("/proc/%d/mem" % p, "r+b", 0))
        attempt("maps", read, "/proc/%d/maps" % p)
        attempt("ptrace attach", lambda: syscall("ptrace", 16, p, 0, 0))
        attempt("ptrace seize", lambda: syscall("ptrace", 0x4206, p, 0, 0))
        buf = ctypes.create_string_buffer(64)
        iov = (ctypes.c_void_p * 2)(ctypes.addressof(buf), 64)
        attempt("process_vm_readv", lambda: syscall("process_vm_readv", p, iov, 1, iov, 1, 0))
        attempt("process_vm_writev", lambda: syscall("process_vm_writev", p, iov, 1, iov, 1, 0))
        attempt("process_madvise", lambda: syscall("process_madvise", os.pidfd_open(p), iov, 1, 4, 0))
`),
	saboteur("the fork server's limits", "sets limits, priorities, processors and the killer's score of its parent", `
def attack():
    need("ctypes")
    import ctypes, resource
    for p in parents():
        pair = (ctypes.c_ulong * 2)(1, 1)
        for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_NPROC", "RLIMIT_NOFILE"):
            attempt("prlimit " + name, lambda: syscall("prlimit64", p, getattr(resource, name), pair, 0))
            attempt("prlimit self and more " + name, lambda: syscall("prlimit64", 0, getattr(resource, name), (ctypes.c_ulong * 2)(1 << 60, 1 << 60), 0))
        attempt("setpriority", os.setpriority, os.PRIO_PROCESS, p, 19)
        attempt("setpriority of user", os.setpriority, os.PRIO_USER, os.getuid(), 19)
        attempt("affinity", os.sched_setaffinity, p, {0})
        attempt("scheduler", os.sched_setscheduler, p, os.SCHED_IDLE, os.sched_param(0))
        attempt("ioprio", lambda: syscall("ioprio_set", 1, p, 3 << 13))
        attempt("oom score", write, "/proc/%d/oom_score_adj" % p, b"1000", "wb")
        for name in ("comm", "timerslack_ns", "clear_refs", "coredump_filter", "autogroup", "loginuid"):
            attempt("write " + name, write, "/proc/%d/%s" % (p, name), b"0", "wb")
`),
	{Name: "a fork server out of breath", Family: Forge, Does: "makes orphans as fast as it can, each of which its parent must reap", Alone: true,
		Holds: "the slot serves the next job within a second", Run: func(a *Attempt) {
			a.cheat(Submission{Code: careful + `
import os, time
def solve(n):
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            if os.fork() == 0:
                try: os.fork()
                except OSError: pass
                os._exit(0)
        except OSError: pass
    return 1
`, Entry: "solve", Limits: map[string]any{"wall_s": 3}, Cases: []Case{{"n=1", secretList()}}})
		}},
	{Name: "a channel that nobody reads", Family: Forge, Does: "sends its own stop signal while the worker still has a long argument to hand over",
		Holds: "the wall clock ends it", Run: func(a *Attempt) {
			long := "'" + strings.Repeat("x", 2<<20) + "'"
			e := a.cheat(Submission{Code: frames + "import os, signal\nclass Any:\n    def __eq__(self, o): os.kill(os.getpid(), signal.SIGSTOP)\ndef solve(s):\n    return Any()\n",
				Entry: "solve", Limits: map[string]any{"wall_s": 1}, Cases: []Case{{"s=1", long}}})
			_ = e
			if took := a.elapsed(); took > 5*time.Second+loaded*a.usual {
				a.Through("it took %.1f s, the wall clock is 1 s", took.Seconds())
			}
		}},
}
