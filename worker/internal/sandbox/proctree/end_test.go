package proctree

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bombs make processes as fast as they can, as a user with a limit of 100.
var bombs = []struct {
	name string
	full int // processes when it is in full bloom
	code string
}{
	// Every process forks for ever.
	{"a bomb", 95, `
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        pass
`},
	// Each process makes the next and ends: no pid lives long.
	{"a rolling bomb", 10, `
for _ in range(20):
    if os.fork() == 0:
        break
while time.monotonic() < end:
    try:
        if os.fork(): os._exit(0)
    except OSError:
        pass
`},
	// Processes that leave their session, ignore what can be, and lose their
	// first thread.
	{"a stubborn bomb", 50, `
for s in range(1, 65):
    if s not in (9, 19, 32, 33): signal.signal(s, signal.SIG_IGN)
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.getpid() % 3 == 0: threading.Thread(target=signal.pause).start(); behead()
    except (OSError, RuntimeError):
        pass
`},
}

func TestEndsForkBombs(t *testing.T) {
	uid := user(t, 2)
	for _, bomb := range bombs {
		t.Run(bomb.name, func(t *testing.T) {
			uid++
			tr := plant(t, fmt.Sprintf(`
def work():
    resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
    become(%d)
    say("begins")
    end = time.monotonic() + 120  # whatever becomes of the test
%s
child(work)
while True:  # as a fork server collects the dead
    os.wait()
`, uid, indent(bomb.code)))
			tr.hears(1)
			for deadline := time.Now().Add(patience); living(t, uid) < bomb.full; {
				if time.Now().After(deadline) {
					t.Fatalf("the bomb doesn't go off: %d processes", living(t, uid))
				}
			}
			begin := time.Now()
			killed, err := End(tr.pid, patience)
			t.Logf("%d killed in %v", killed, time.Since(begin))
			if err != nil || killed < bomb.full {
				t.Errorf("killed %d, %v", killed, err)
			}
			if n := living(t, uid); n != 0 {
				t.Errorf("%d processes live", n)
			}
			rootIsKilled(t, tr)
		})
	}
}

// rootIsKilled fails unless root was ended by SIGKILL and nothing lives that it
// started: that would have its stdout.
func rootIsKilled(t *testing.T, tr *tree) {
	t.Helper()
	tr.pipe.SetReadDeadline(time.Now().Add(patience))
	for tr.out.Scan() {
	}
	if err := tr.out.Err(); err != nil {
		t.Errorf("something has the tree's stdout: %v", err)
	}
	tr.wait()
	if ws := tr.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGKILL {
		t.Errorf("root: %v, want killed", tr.cmd.ProcessState)
	}
}

func TestEndsWhatResists(t *testing.T) {
	for _, c := range []struct {
		name, program string
		says, killed  int
	}{
		{"nothing", `say("ready"); stay()`, 1, 0},
		{"a child", `child(stay); say("ready"); stay()`, 1, 1},
		{"ignores signals", `
def work():
    for s in range(1, 65):
        if s not in (9, 19, 32, 33): signal.signal(s, signal.SIG_IGN)
    say("ready")
    while True: time.sleep(1000)
child(work); stay()`, 1, 1},
		{"is stopped", `
pid = child(stay)
os.kill(pid, signal.SIGSTOP)
os.waitid(os.P_PID, pid, os.WSTOPPED)
say("ready"); stay()`, 1, 1},
		{"forked twice", `
child(lambda: (os.setsid(), child(lambda: (say("ready"), stay())), os._exit(0)))
os.wait()
say("ready"); stay()`, 2, 1},
		{"a chain", `
def chain(n):
    if n: child(chain, n - 1)
    else: say("ready")
    stay()
chain(30)`, 1, 30},
		{"a subreaper of its own", `
def work():
    libc.prctl(36, 1, 0, 0, 0)
    child(lambda: (child(lambda: (say("ready"), stay())), os._exit(0)))
    os.wait()
    say("ready"); stay()
child(work); stay()`, 2, 2},
		{"a root that is stopped", `
child(lambda: (os.kill(os.getppid(), signal.SIGSTOP), say("ready"), stay())); stay()`, 1, 1},
		{"a root that replaces its children", `
def replace():
    while True:
        child(lambda: (say("ready"), stay()))
        os.wait()
for _ in range(20): child(lambda: (say("ready"), stay()))
replace()`, 21, 21},
		{"a root that blocks everything", `
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
child(stay); say("ready")
while True: pass`, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, c.program)
			tr.hears(c.says)
			pids, err := Descendants(tr.pid)
			if err != nil {
				t.Fatal(err)
			}
			if killed, err := End(tr.pid, patience); err != nil || killed != c.killed {
				t.Errorf("killed %d, %v; want %d", killed, err, c.killed)
			}
			r := readers.New().(*reader)
			for _, pid := range pids {
				if s, err := r.stat(pid); err == nil && !s.dead() {
					t.Errorf("%d lives: %+v", pid, s)
				}
			}
			rootIsKilled(t, tr)
		})
	}
}

// End runs before all others, and only while it runs.
func TestEndRestoresTheScheduling(t *testing.T) {
	tr := plant(t, `child(stay); say("ready"); stay()`)
	tr.hears(1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	restore := urge()
	during, err := unix.SchedGetAttr(0, 0)
	restore()
	if err != nil || os.Getuid() == 0 && during.Policy != unix.SCHED_FIFO {
		t.Errorf("during: %+v, %v", during, err)
	}
	if _, err := End(tr.pid, patience); err != nil {
		t.Error(err)
	}
	if after, err := unix.SchedGetAttr(0, 0); err != nil || *after != *before {
		t.Errorf("after: %+v, %v; want %+v", after, err, before)
	}
}

func TestEndsWhatLostItsFirstThread(t *testing.T) {
	tr := plant(t, headless)
	waitForHeadless(t, tr)
	pids, _ := Descendants(tr.pid)
	if killed, err := End(tr.pid, patience); err != nil || killed != 1 {
		t.Errorf("killed %d, %v; want 1", killed, err)
	}
	r := readers.New().(*reader)
	if s, err := r.stat(pids[0]); err == nil && !s.dead() {
		t.Errorf("it lives: %+v", s)
	}
}

func TestEndsANestedPidNamespace(t *testing.T) {
	user(t, 0)
	tr := plant(t, `
def init():
    child(lambda: (say(os.getpid()), stay()))
    say(os.getpid())
    stay()
def work():
    if libc.unshare(0x20000000): raise OSError(ctypes.get_errno(), "unshare")
    child(init)
    stay()
child(work); stay()
`)
	tr.hears(2)
	if u, err := Measure(tr.pid); err != nil || u.Processes != 3 {
		t.Errorf("got %+v, %v; want 3 processes", u, err)
	}
	// The kernel ends the namespace with its init, at times before End comes to it.
	if killed, err := End(tr.pid, patience); err != nil || killed < 2 || killed > 3 {
		t.Errorf("killed %d, %v; want 2 or 3", killed, err)
	}
}

func TestEndSaysWhatIsLeft(t *testing.T) {
	tr := plant(t, `child(stay); say("ready"); stay()`)
	tr.hears(1)
	// No time: what was killed had none to die.
	_, err := End(tr.pid, 0)
	if err == nil || !strings.Contains(err.Error(), "1 descendants live") {
		t.Errorf("got %v, want the number of processes", err)
	}
	rootIsKilled(t, tr)
}

// As init of a container, or as a subreaper, the worker gets the dead.
func TestEndCollectsTheDead(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	tr := plant(t, `
for _ in range(10): child(stay)
say("ready"); stay()`)
	tr.hears(1)
	pids, err := Descendants(tr.pid)
	if err != nil || len(pids) != 10 {
		t.Fatal(pids, err)
	}
	if _, err := End(tr.pid, patience); err != nil {
		t.Fatal(err)
	}
	r := readers.New().(*reader)
	for _, pid := range pids {
		if s, err := r.stat(pid); err == nil && s.ppid == unix.Getpid() {
			t.Errorf("%d was not collected: %+v", pid, s)
		}
	}
}
