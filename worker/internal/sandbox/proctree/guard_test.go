package proctree

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newGuard returns a Guard that is closed after the test.
func newGuard(t testing.TB, o Options) *Guard {
	t.Helper()
	g, err := NewGuard(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// awaitBreach returns the first breach, or fails.
func awaitBreach(t *testing.T, breaches <-chan Breach) Breach {
	t.Helper()
	select {
	case b := <-breaches:
		return b
	case <-time.After(patience):
		t.Fatal("no breach")
		return Breach{}
	}
}

func TestGuardSeesEachBreach(t *testing.T) {
	none := func() (int64, int64, error) { return 0, 0, nil }
	for _, c := range []struct {
		name, work string
		limits     Limits
		disk       func() (int64, int64, error)
		want       Breach // Value is the least that may be seen
	}{
		{"memory of one", `m = touch(64 << 20)`, Limits{Memory: 48 * mib}, none, Breach{Memory, 48 * mib, 48 * mib}},
		{"memory of many", "\n    for _ in range(4): child(lambda: (touch(16 << 20), stay()))", Limits{Memory: 64 * mib}, none, Breach{Memory, 64 * mib, 64 * mib}},
		{"memory in no process", `os.write(os.memfd_create("x"), bytes(64 << 20))`, Limits{Memory: 60 * mib}, none, Breach{Memory, 60 * mib, 60 * mib}},
		{"memory, says the kernel", `pass`, Limits{Memory: 1 << 40, Starved: func() bool { return true }}, none, Breach{Memory, 0, 1 << 40}},
		{"CPU of one", `burn(1e9)`, Limits{CPU: 200 * time.Millisecond}, none, Breach{CPU, 200e6, 200e6}},
		{"CPU of many that end", "\n    while True: child(lambda: (burn(.05), os._exit(0))); os.wait()", Limits{CPU: 300 * time.Millisecond}, none, Breach{CPU, 300e6, 300e6}},
		{"bytes in deleted files", `fd = os.open(dir, os.O_TMPFILE | os.O_RDWR); os.write(fd, bytes(8 << 20))`, Limits{DiskBytes: 6 * mib}, none, Breach{DiskBytes, 6 * mib, 6 * mib}},
		{"bytes in both", `fd = os.open(dir, os.O_TMPFILE | os.O_RDWR); os.write(fd, bytes(8 << 20))`, Limits{DiskBytes: 10 * mib}, func() (int64, int64, error) { return 3 * mib, 1, nil }, Breach{DiskBytes, 10 * mib, 10 * mib}},
		{"files", `fds = [os.open(dir, os.O_TMPFILE | os.O_RDWR) for _ in range(5)]`, Limits{DiskFiles: 9}, func() (int64, int64, error) { return 0, 5, nil }, Breach{DiskFiles, 10, 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, "def work():\n    say('begins')\n    "+c.work+"\n    stay()\nchild(work)\nstay()\n")
			tr.hears(1)
			g := newGuard(t, Options{Dir: tr.dir, Interval: 5 * time.Millisecond, DiskInterval: 20 * time.Millisecond, Fault: func(err error) { t.Error(err) }})
			breaches := make(chan Breach, 2)
			w := g.start(tr.pid, c.limits, c.disk, func(b Breach) { breaches <- b })
			b := awaitBreach(t, breaches)
			w.look() // as if the timer had gone off once more
			w.stop()
			most := 4 * c.want.Value
			if b.Kind == CPU {
				// What burns goes on until a look comes, and looks are the rarer the
				// longer they take: only the unit can be told.
				most = int64(2 * patience)
			}
			if b.Kind != c.want.Kind || b.Limit != c.want.Limit || b.Value < c.want.Value || b.Value > most {
				t.Errorf("got %+v, want about %+v", b, c.want)
			}
			if len(breaches) > 0 {
				t.Errorf("a second breach: %+v", <-breaches)
			}
		})
	}
}

// looks makes looks of a watch one by one and returns the last one's breach.
func looks(t *testing.T, w *watch, n int) Breach {
	t.Helper()
	r := readers.New().(*reader)
	for range n - 1 {
		if b, err := w.lookAtProcesses(r); b != (Breach{}) || err != nil {
			t.Fatalf("early: %+v, %v", b, err)
		}
	}
	b, err := w.lookAtProcesses(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGuardWithinLimits(t *testing.T) {
	// 64 MiB in 5 processes, and CPU time spent before the job.
	tr := plant(t, `
def work():
    m = touch(64 << 20)
    for _ in range(4): child(lambda: (say("ready"), stay()))
    stay()
os.waitpid(child(lambda: (burn(.4), os._exit(0))), 0)
child(work)
stay()
`)
	tr.hears(4)
	w := &watch{g: newGuard(t, Options{}), root: tr.pid, limits: Limits{Memory: 160 * mib, CPU: 300 * time.Millisecond}}
	if b := looks(t, w, 3); b != (Breach{}) {
		t.Errorf("within limits: %+v", b)
	}
	// Once over may be a vfork; twice is not.
	w.limits.Memory = 32 * mib
	if b := looks(t, w, 2); b.Kind != Memory {
		t.Errorf("over the limit: %+v", b)
	}
}

// The free space of a file system of the test's own says when to look.
func TestGuardLooksAtFilesWhenSpaceFalls(t *testing.T) {
	user(t, 0)
	dir := t.TempDir()
	if err := unix.Mount("proctree", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	tr := plant(t, "stay()")
	walks := 0
	g := newGuard(t, Options{Dir: dir, DiskInterval: time.Hour, Fall: 4 * mib})
	w := &watch{g: g, root: tr.pid, limits: Limits{DiskBytes: 1}, began: time.Now(), free: g.free(),
		disk: func() (int64, int64, error) { walks++; return 0, 0, nil }}
	for _, step := range []struct {
		write int
		due   bool
	}{{0, false}, {3 * mib, false}, {2 * mib, true}, {0, false}, {3 * mib, false}, {2 * mib, true}} {
		f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(make([]byte, step.write))
		f.Close()
		w.diskRest = time.Time{} // as if enough time had passed
		due := w.diskDue()
		if due != step.due {
			t.Errorf("after %d bytes more: due is %v", step.write, due)
		}
		if due {
			if b, err := w.lookAtFiles(readers.New().(*reader)); err != nil || b != (Breach{}) {
				t.Errorf("%+v, %v", b, err)
			}
			if w.diskDue() {
				t.Error("due again at once")
			}
		}
	}
	if walks != 2 {
		t.Errorf("%d walks, want 2", walks)
	}
}

// A walk that takes long is not made often, whatever is written.
func TestGuardRests(t *testing.T) {
	tr := plant(t, "stay()")
	const walk = 5 * time.Millisecond
	w := &watch{g: newGuard(t, Options{DiskInterval: time.Nanosecond}), root: tr.pid, limits: Limits{DiskBytes: 1},
		disk: func() (int64, int64, error) { time.Sleep(walk); return 0, 0, nil }}
	begin := time.Now()
	if _, err := w.lookAtFiles(readers.New().(*reader)); err != nil {
		t.Fatal(err)
	}
	if rest := w.diskRest.Sub(begin); rest < 20*walk || w.diskTime.Before(w.diskRest) {
		t.Errorf("next look after %v (%v), want at least %v", rest, w.diskTime.Sub(begin), 20*walk)
	}
}

func TestStopWaitsForTheLook(t *testing.T) {
	tr := plant(t, "stay()")
	g := newGuard(t, Options{Interval: time.Millisecond, DiskInterval: time.Millisecond})
	looking, release := make(chan bool, 1), make(chan bool)
	var finished, breached atomic.Bool
	w := g.start(tr.pid, Limits{DiskBytes: 1}, func() (int64, int64, error) {
		looking <- true
		<-release
		finished.Store(true)
		return 2, 0, nil
	}, func(Breach) { breached.Store(true) })
	<-looking
	stopped := make(chan bool)
	go func() {
		w.stop()
		stopped <- finished.Load()
	}()
	for !w.stopping.Load() {
		runtime.Gosched()
	}
	close(release)
	if !<-stopped {
		t.Error("stop returned while the function ran")
	}
	w.stop()
	if breached.Load() {
		t.Error("a breach after stop")
	}
}

// A job that ends within the interval is not looked at.
func TestShortJobIsNotLookedAt(t *testing.T) {
	tr := plant(t, "stay()")
	g := newGuard(t, Options{Interval: time.Hour})
	stop := g.Start(tr.pid, Limits{Memory: 1, CPU: 1, DiskBytes: 1}, func() (int64, int64, error) {
		t.Error("the files were looked at")
		return 0, 0, nil
	}, func(b Breach) { t.Errorf("breach: %+v", b) })
	stop()
	stop()
}

func TestGuardReportsAFaultOnceAndGoesOn(t *testing.T) {
	tr := plant(t, "stay()")
	var faults atomic.Int32
	bad := errors.New("disk on fire")
	g := newGuard(t, Options{Interval: time.Millisecond, DiskInterval: time.Millisecond, Fault: func(err error) {
		faults.Add(1)
		if !errors.Is(err, bad) || !strings.Contains(err.Error(), "measure files") {
			t.Errorf("fault: %v", err)
		}
	}})
	walks := 0
	breaches := make(chan Breach, 2)
	stop := g.Start(tr.pid, Limits{DiskBytes: 10}, func() (int64, int64, error) {
		if walks++; walks < 4 {
			return 0, 0, bad
		}
		return 20, 0, nil
	}, func(b Breach) { breaches <- b })
	if b := awaitBreach(t, breaches); b != (Breach{DiskBytes, 20, 10}) {
		t.Errorf("got %+v", b)
	}
	stop()
	if n := faults.Load(); n != 1 {
		t.Errorf("%d faults reported, want 1", n)
	}
}

func TestGuardEndsWithRoot(t *testing.T) {
	tr := plant(t, "hear()")
	g := newGuard(t, Options{Interval: time.Millisecond, Fault: func(err error) { t.Errorf("fault: %v", err) }})
	w := g.start(tr.pid, Limits{Memory: 1 << 40}, nil, func(b Breach) { t.Errorf("breach: %+v", b) })
	tr.goOn()
	tr.wait()
	for done := false; !done; runtime.Gosched() {
		w.mu.Lock()
		done = w.done
		w.mu.Unlock()
	}
	w.stop()
}

func TestNewGuardSaysWhatIsMissing(t *testing.T) {
	if _, err := NewGuard(Options{Dir: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
