package redteam

import (
	"strings"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// leftover is an attack that leaves something that must be gone with its job,
// which ends as if nothing had been.
func leftover(name, does, statement string) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: "nothing of the job is left, and its result is what it would be without", Run: func(a *Attempt) {
		code := careful + "import os, signal, subprocess, sys, threading, time\ndef leave():\n    " + strings.ReplaceAll(strings.TrimSpace(statement), "\n", "\n    ") + "\n"
		e := a.Evaluate(Submission{Code: code + "def solve(n):\n    leave()\n    return n\n", Entry: "solve", Cases: []Case{{"n=1", "1"}, {"n=2", "2"}}})
		for i, c := range e.Cases {
			if c.Status != protocol.Passed {
				a.Broken("case %d: %s", i, c)
			}
		}
		session := a.Session()
		a.Write(session, "leave.py", code+"leave()\nprint('LEFT', flush=True)\n")
		if r := a.Command(session, "python3 leave.py", nil); !strings.Contains(r.Stdout, "LEFT") || r.TimedOut {
			a.Broken("%+v", r)
		}
	}}
}

var litter = []Attack{
	leftover("a daemon", "leaves a daemon: two forks, a session of its own, no descriptors, another directory, every signal ignored", `
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for s in range(1, 64):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    os.chdir("/"); os.closerange(0, 256)
    while True: time.sleep(1)
os.wait()
`),
	leftover("a daemon of another program", "leaves another program in the background, by a shell, nohup and setsid", `
subprocess.run("(setsid nohup sleep 300 >/dev/null 2>&1 &) ; nohup sleep 300 >/dev/null 2>&1 & disown -a", shell=True, executable="/bin/bash")
`),
	leftover("a daemon that comes back", "leaves two processes that start each other anew, changing their ids all the time", `
if os.fork() == 0:
    os.setsid(); os.closerange(0, 256)
    while True:
        time.sleep(0.001)
        if os.fork(): os._exit(0)
`),
	leftover("a daemon that hides its name", "leaves a process named as a kernel thread, with no arguments and no environment, that can't be dumped", `
if os.fork() == 0:
    os.setsid(); os.closerange(0, 256)
    import ctypes
    libc = ctypes.CDLL(None)
    libc.prctl(15, b"kworker/0:1"); libc.prctl(4, 0); libc.prctl(36, 1)
    if os.fork(): time.sleep(1000)
    os.execve("/bin/sleep", ["", "1000"], {})
`),
	leftover("threads and children at exit", "leaves threads that don't end and children that wait for its end to go on", `
threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
if os.fork() == 0:
    parent = os.getppid()
    while os.getppid() == parent: time.sleep(0.005)
    os.setsid(); os.closerange(0, 256)
    while True: time.sleep(1)
`),
	leftover("a process at the end of a pipe", "leaves a process that holds the output streams, so that their end doesn't come", `
if os.fork() == 0:
    os.setsid()
    while True: time.sleep(1)
`),
	leftover("a process in a stopped tracer's hands", "leaves a chain of stopped processes, each the leader of a session", `
def chain(n):
    if n and os.fork() == 0:
        os.setsid(); os.closerange(0, 256)
        chain(n - 1)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
chain(6)
time.sleep(0.05)
`),
	leftover("shared memory and semaphores", "leaves named shared memory, semaphores and files of memory mapped", `
import mmap
from multiprocessing import shared_memory
try:
    m = shared_memory.SharedMemory(create=True, size=1 << 20)
    from multiprocessing import resource_tracker
    resource_tracker.unregister(m._name, "shared_memory")
except OSError: pass
`),
	leftover("a core dump", "crashes children so that the kernel writes core files, wherever those go", `
import resource
for limit in (0, 1 << 20, -1):
    if os.fork() == 0:
        try: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        except (OSError, ValueError): pass
        os.kill(os.getpid(), signal.SIGSEGV)
    os.wait()
`),
	leftover("settings for the next job", "plants LD_PRELOAD, PYTHONPATH, profiles and links in HOME for whoever comes next", `
home = os.environ["HOME"]
for name in (".profile", ".bashrc", ".pythonrc.py", ".config/x", ".local/lib/x.pth"):
    os.makedirs(os.path.dirname(os.path.join(home, name)), exist_ok=True)
    open(os.path.join(home, name), "w").write("exit 1")
for target in ("/etc", "/root", "/proc/self/root"):
    try: os.symlink(target, os.path.join(home, "link" + target.replace("/", "-")))
    except OSError: pass
os.environ["LD_PRELOAD"] = os.environ["PYTHONPATH"] = os.environ["PYTHONSTARTUP"] = home
os.putenv("PATH", home)
`),
	{Name: "a fork server killed amid a flood", Family: Escape, Does: "kills or wedges its parent while daemons and a fork bomb of its own go on", Alone: true,
		Holds: "the slot works again, and nothing of the bomb is left", Run: func(a *Attempt) {
			a.cheat(Submission{Code: careful + `
import os, signal, time
def solve(n):
    parent = os.getppid()
    for _ in range(6):
        if os.fork() == 0:
            os.setsid()
            for s in range(1, 64):
                try: signal.signal(s, signal.SIG_IGN)
                except (OSError, ValueError): pass
            end = time.monotonic() + 8
            while time.monotonic() < end:
                try:
                    if os.fork(): os._exit(0)
                except OSError: pass
            os._exit(0)
    for s in (signal.SIGSTOP, signal.SIGKILL):
        if parent > 0:
            try: os.kill(parent, s)
            except OSError: pass
    time.sleep(0.3)
    return 1
`, Entry: "solve", Limits: map[string]any{"wall_s": 2}, Cases: []Case{{"n=1", secretList()}}})
		}},
}
