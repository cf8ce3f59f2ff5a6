package cgroup

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKillEndsAForkBomb(t *testing.T) {
	for _, limit := range []int{100, 400} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			g := newGroup(t, find(t), fmt.Sprint("bomb", limit))
			if err := g.Limit(1<<30, limit); err != nil {
				t.Fatal(err)
			}
			// Every process forks for ever; some end, so that there is room for more.
			m := join(t, g, `
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)
say("begins")
end = time.monotonic() + 120  # whatever becomes of the test
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.getpid() % 8 == 0: os._exit(0)
    except OSError: pass
`)
			m.hear()
			for deadline := time.Now().Add(time.Minute); ; {
				if pids, err := members(g.dirs[0]); err != nil {
					t.Fatal(err)
				} else if len(pids) > limit*8/10 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the bomb doesn't go off")
				}
			}
			begin := time.Now()
			if err := g.Kill(); err != nil {
				t.Error(err)
			}
			t.Logf("ended in %v", time.Since(begin))
			for _, dir := range g.dirs {
				if pids, err := members(dir); len(pids) > 0 || err != nil {
					t.Errorf("%s: %d processes left, %v", dir, len(pids), err)
				}
			}
			// The group can be used again, with the limit it had.
			if got := read(t, filepath.Join(g.root.bases[1], g.name, "pids.max")); got != fmt.Sprint(limit) {
				t.Errorf("pids.max is %s after the kill, want %d", got, limit)
			}
		})
	}
}

func TestKillEndsWhatResists(t *testing.T) {
	g := newGroup(t, find(t), "stubborn")
	for name, program := range map[string]string{
		"stopped":              `say("ready"); os.kill(os.getpid(), signal.SIGSTOP)`,
		"without first thread": "import ctypes\nthreading.Thread(target=signal.pause).start(); say('ready'); ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)",
	} {
		t.Run(name, func(t *testing.T) {
			m := join(t, g, program)
			m.hear()
			if err := g.Kill(); err != nil {
				t.Error(err)
			}
			m.cmd.Wait()
			if ws := m.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGKILL {
				t.Errorf("%v, want killed", m.cmd.ProcessState)
			}
		})
	}
	if err := g.Kill(); err != nil {
		t.Errorf("an empty group: %v", err)
	}
	if got := read(t, filepath.Join(g.root.bases[1], g.name, "pids.max")); got != "max" {
		t.Errorf("pids.max is %s after the kill of a group without a limit", got)
	}
}
