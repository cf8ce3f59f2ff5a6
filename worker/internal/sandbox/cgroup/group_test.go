package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

func TestFindSaysWhatItFound(t *testing.T) {
	r := find(t)
	if want := map[int]string{1: "cgroup v1 memory+pids", 2: "cgroup v2 memory+pids"}[r.Version()]; r.String() != want {
		t.Errorf("got %q, want %q", r, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	g := newGroup(t, find(t), "memory")
	if err := g.Limit(32*mib, 0); err != nil {
		t.Fatal(err)
	}
	within := join(t, g, `m = touch(8 << 20); say("fits"); hear()`)
	within.hear()
	before, err := g.OOMKills()
	if err != nil || before != 0 {
		t.Errorf("OOM kills before: %d, %v", before, err)
	}
	beyond := join(t, g, `touch(64 << 20); say("fits too")`)
	beyond.cmd.Wait()
	if ws := beyond.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGKILL {
		t.Errorf("beyond the limit: %v, want killed", beyond.cmd.ProcessState)
	}
	if after, err := g.OOMKills(); err != nil || after != 1 {
		t.Errorf("OOM kills: %d, %v; want 1", after, err)
	}
	peak, err := g.Peak()
	if err != nil || peak < 30*mib || peak > 32*mib {
		t.Errorf("peak: %d, %v; want about 32 MiB", peak, err)
	}
}

// Kernel memory and memory in files count too.
func TestMemoryOutsideOfProcessesCounts(t *testing.T) {
	g := newGroup(t, find(t), "shm")
	if err := g.Limit(32*mib, 0); err != nil {
		t.Fatal(err)
	}
	m := join(t, g, `
fd = os.memfd_create("x")
for _ in range(64): os.write(fd, bytes(1 << 20))
say("fits")`)
	m.cmd.Wait()
	if n, err := g.OOMKills(); err != nil || n == 0 {
		t.Errorf("OOM kills: %d, %v; want some", n, err)
	}
}

func TestProcessLimit(t *testing.T) {
	g := newGroup(t, find(t), "pids")
	if err := g.Limit(0, 5); err != nil {
		t.Fatal(err)
	}
	m := join(t, g, `
n = 0
try:
    while n < 50:
        if os.fork() == 0: signal.pause()
        n += 1
except BlockingIOError: pass
say(n)
hear()
try:
    threading.Thread(target=signal.pause, daemon=True).start()
    say("thread")
except RuntimeError: say("no thread")
hear()
os.fork() or signal.pause()
say("forked")
`)
	if n := m.hear(); n != "4" {
		t.Errorf("%s forks within a limit of 5 processes, want 4", n)
	}
	m.goOn()
	if s := m.hear(); s != "no thread" {
		t.Errorf("at the limit: %s, want none", s)
	}
	if err := g.Limit(0, 6); err != nil {
		t.Fatal(err)
	}
	m.goOn()
	if s := m.hear(); s != "forked" {
		t.Errorf("with a higher limit: %s", s)
	}
}

func TestUsageAndPeak(t *testing.T) {
	g := newGroup(t, find(t), "usage")
	usage := func() int64 {
		t.Helper()
		n, err := g.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	m := join(t, g, `m = touch(32 << 20); say("held"); hear(); m.close(); say("freed"); hear()`)
	m.hear()
	if n := usage(); n < 32*mib || n > 64*mib {
		t.Errorf("in use: %d, want about 32 MiB", n)
	}
	m.goOn()
	m.hear()
	if n := usage(); n > 16*mib {
		t.Errorf("in use when freed: %d", n)
	}
	if n, err := g.Peak(); err != nil || n < 32*mib {
		t.Errorf("peak: %d, %v; want above 32 MiB", n, err)
	}
	err := g.ResetPeak()
	if errors.Is(err, ErrUnsupported) && g.root.Version() == 2 {
		t.Skipf("this kernel can't: %v", err)
	}
	if n, peakErr := g.Peak(); err != nil || peakErr != nil || n > 16*mib {
		t.Errorf("peak when reset (%v): %d, %v", err, n, peakErr)
	}
}

func TestCPU(t *testing.T) {
	r := find(t)
	if r.bases[2] == "" {
		t.Skip("no cpuacct")
	}
	g := newGroup(t, r, "cpu")
	before, err := g.CPU()
	if err != nil || before != 0 {
		t.Errorf("before: %v, %v", before, err)
	}
	m := join(t, g, `
import time
if os.fork() == 0:
    while time.process_time() < .2: pass
    os._exit(0)
os.wait()
say("burnt")`)
	m.hear()
	if used, err := g.CPU(); err != nil || used < 200*time.Millisecond || used > 2*time.Second {
		t.Errorf("got %v, %v; want about 200ms", used, err)
	}
}

func TestLimitBelowUseIsRefused(t *testing.T) {
	g := newGroup(t, find(t), "busy")
	if err := g.Limit(128*mib, 0); err != nil {
		t.Fatal(err)
	}
	m := join(t, g, `m = touch(64 << 20); say("held"); hear(); m.close(); say("freed"); hear()`)
	m.hear()
	err := g.Limit(16*mib, 0)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
	file := filepath.Join(g.root.bases[0], g.name, g.root.files.limit)
	if got := read(t, file); got != "134217728" {
		t.Errorf("limit after the refusal: %s, want the old one", got)
	}
	m.goOn()
	m.hear()
	if err := g.Limit(16*mib, 0); err != nil {
		t.Errorf("when it fits: %v", err)
	}
	if got := read(t, file); got != "16777216" {
		t.Errorf("limit: %s", got)
	}
}

// fillCache has a process of the group write a file of so many MiB.
func fillCache(t *testing.T, g *Group, mibs int64) {
	t.Helper()
	m := join(t, g, fmt.Sprintf(`
f = open(%q, "wb")
for _ in range(%d): f.write(bytes(1 << 20))
f.close()
say("written"); hear()`, filepath.Join(t.TempDir(), "file"), mibs))
	m.hear()
	if n, err := g.Usage(); err != nil || n < mibs*mib/4*3 {
		t.Skipf("files are in no page cache here: %d, %v", n, err)
	}
}

// Page cache must not count as use that can't be freed.
func TestLimitBelowPageCache(t *testing.T) {
	g := newGroup(t, find(t), "cache")
	fillCache(t, g, 64)
	if err := g.Limit(24*mib, 0); err != nil {
		t.Error(err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("%d OOM kills, %v", n, err)
	}
}

// Freeing takes the kernel long enough for a signal to come, such as those with
// which Go's scheduler preempts; it says EINTR then, whatever SA_RESTART says.
func TestSignalsInterruptNoLimit(t *testing.T) {
	g := newGroup(t, find(t), "signals")
	fillCache(t, g, 128)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Microsecond):
				unix.Tgkill(pid, tid, unix.SIGURG)
			}
		}
	}()
	for n := int64(112); n >= 24; n -= 8 {
		if err := g.Limit(n*mib, 0); err != nil {
			t.Error(err)
		}
	}
	close(done)
	<-ended
}

// Raising and lowering, and from and to no limit, with v1's two files in order.
func TestLimitUpAndDown(t *testing.T) {
	g := newGroup(t, find(t), "updown")
	for _, n := range []int64{64 * mib, 128 * mib, 32 * mib, 0, 16 * mib, 0, 0} {
		if err := g.Limit(n, int(n/mib)); err != nil {
			t.Errorf("to %d: %v", n, err)
		}
		for _, fd := range []int{g.limit, g.swap} {
			if fd < 0 || g.root.Version() == 2 && fd == g.swap {
				continue
			}
			if got, err := g.number(fd); n > 0 && got != n || n == 0 && err == nil && got < 1<<50 {
				t.Errorf("limit is %d, want %d", got, n)
			}
		}
		if got := read(t, filepath.Join(g.root.bases[1], g.name, "pids.max")); n > 0 && got == "max" || n == 0 && got != "max" {
			t.Errorf("pids.max is %s with a limit of %d", got, n/mib)
		}
	}
}

func TestCloseRemoves(t *testing.T) {
	r := find(t)
	g, err := r.New(unique("close"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.New(unique("close")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second of the name: %v", err)
	}
	m := join(t, g, `say("ready"); hear()`)
	m.hear()
	if err := g.Close(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("with a process: %v, want %v", err, unix.EBUSY)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range g.dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

func TestSweep(t *testing.T) {
	r := find(t)
	other := newGroup(t, r, "other")
	survivor := join(t, other, `say("ready"); hear(); say("alive")`)
	survivor.hear()
	// Two groups whose worker died, one with a process.
	for _, name := range []string{"dead-0", "dead-1"} {
		if _, err := r.New(unique(name)); err != nil {
			t.Fatal(err)
		}
	}
	lost := r.group(unique("dead-0"))
	m := join(t, lost, `say("ready"); signal.pause()`)
	m.hear()
	n, err := r.Sweep(unique("dead-"))
	if err != nil || n != 2 {
		t.Errorf("swept %d, %v; want 2", n, err)
	}
	m.cmd.Wait()
	for _, dir := range append(r.dirs(unique("dead-0")), r.dirs(unique("dead-1"))...) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	survivor.goOn()
	if s := survivor.hear(); s != "alive" {
		t.Error(s)
	}
	for _, bad := range []string{"", "../x", "a/b", ".", "memory.x"} {
		if _, err := r.Sweep(bad); err == nil {
			t.Errorf("swept %q", bad)
		}
		if _, err := r.New(bad); err == nil {
			t.Errorf("made %q", bad)
		}
	}
}

// A v1 group inherits the word that nobody is to be killed.
func TestOOMKillerIsOn(t *testing.T) {
	r := find(t)
	if r.Version() != 1 {
		t.Skip("v2 always kills")
	}
	parent := filepath.Join(r.bases[0], unique("parent"))
	if err := mkdir(parent); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(parent)
	if err := writeFile(filepath.Join(parent, "memory.oom_control"), "1"); err != nil {
		t.Fatal(err)
	}
	inner := &Root{files: r.files, bases: [3]string{parent, r.bases[1], r.bases[2]}, mkdir: mkdir}
	g := newGroup(t, inner, "inherits")
	defer func() { // before the parent goes
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := read(t, filepath.Join(parent, g.name, "memory.oom_control")); !strings.Contains(got, "oom_kill_disable 0") {
		t.Errorf("memory.oom_control: %s", got)
	}
}
