package execute

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

type runAnswer struct {
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	ID        string `json:"id"`
	ExitCode  *int   `json:"exit_code"`
	TimedOut  bool   `json:"timed_out"`
	Truncated bool   `json:"truncated"`
	MemoryKB  int    `json:"memory_kb"`
	Detail    string `json:"detail"`
	Integrity []string
}

func runCommand(t testing.TB, s *Slot, at Place, cmd string) runAnswer {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"id": "x", "cmd": cmd})
	a, err := s.Run(context.Background(), body, at)
	if err != nil {
		t.Fatal(err)
	}
	var r runAnswer
	if err := json.Unmarshal(a.Body, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRunCommands(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.Output, l.OutputStop = 1000, 1<<20 })
	t.Setenv("SECRET_TOKEN", "hunter2")
	tests := []struct {
		name, cmd, stdout, stderr string
		exit                      int
	}{
		{"both streams and a status", "echo out; echo err >&2; exit 3", "out\n", "err\n", 3},
		{"a signal", "kill -9 $$", "", "", -9},
		{"unknown command", "no_such_command_zz", "", "/bin/sh: 1: no_such_command_zz: not found\n", 127},
		{"empty input", "cat; echo done", "done\n", "", 0},
		{"bytes that are no UTF-8", `printf '\377\376abc'`, "\uFFFD\uFFFDabc", "", 0},
		{"the directory", "pwd; echo x > made; ls", s.cfg.Policy.Inside(at.Work) + "\nmade\n", "", 0},
		{"own HOME and TMPDIR", `echo "$HOME $TMPDIR"; touch "$HOME/a" "$TMPDIR/b" && ls "$HOME" "$TMPDIR" | wc -l`, s.cfg.Policy.Inside(at.Home) + " " + s.cfg.Policy.Inside(at.Tmp) + "\n5\n", "", 0},
		{"no secrets", "env | grep -c SECRET", "0\n", "", 1},
		{"a pipe that closes early", "yes | head -n 2; echo ok", "y\ny\nok\n", "", 0},
		{"python", "python3 -c 'print(6 * 7)'", "42\n", "", 0},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", "", 0},
		{"no core files", "ulimit -c", "0\n", "", 0},
		{"open files", "ulimit -n", "256\n", "", 0},
		{"file size", "head -c 100000000 /dev/zero > big; wc -c < big", "67108864\n", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := runCommand(t, s, at, tt.cmd)
			if r.Stdout != tt.stdout || !strings.Contains(r.Stderr, tt.stderr) || r.ExitCode == nil || *r.ExitCode != tt.exit || r.ID != "x" {
				t.Errorf("answer %+v (exit %v), want stdout %q, stderr %q, exit %d", r, r.ExitCode, tt.stdout, tt.stderr, tt.exit)
			}
		})
	}
}

func TestRunTimeoutKeepsOutput(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.RunWall = 3 * time.Second })
	r := runCommand(t, s, at, "echo partial; echo oops >&2; sleep 100")
	if !r.TimedOut || r.Stdout != "partial\n" || !strings.HasPrefix(r.Stderr, "oops\n") || !strings.Contains(r.Stderr, "Timeout: the command was ended after 3 s") {
		t.Errorf("answer %+v", r)
	}
}

func TestRunOutputIsCut(t *testing.T) {
	s, at := newSlot(t, func(l *Limits) { l.Output, l.OutputStop = 1000, 100_000 })
	r := runCommand(t, s, at, "head -c 50000 /dev/zero | tr '\\0' x")
	if !r.Truncated || len(r.Stdout) != 1000 || *r.ExitCode != 0 {
		t.Errorf("stdout of %d bytes, truncated %v, exit %v", len(r.Stdout), r.Truncated, r.ExitCode)
	}
	r = runCommand(t, s, at, "yes")
	if !r.Truncated || !strings.Contains(r.Stderr, "Output limit") {
		t.Errorf("answer %+v", r)
	}
}

// A job ends when it has no descendants left, whatever they do to stay.
func TestNothingIsLeftBehind(t *testing.T) {
	s, at := newSlot(t)
	mark := fmt.Sprintf("86400.%d", time.Now().UnixNano()%1e9)
	tests := []struct{ name, cmd string }{
		{"background", "sleep " + mark + " & echo ok"},
		{"own session", "setsid sleep " + mark + " & echo ok"},
		{"double fork", "(setsid sh -c 'sleep " + mark + " &' &) ; echo ok"},
		{"ignored signals", "(trap '' HUP INT TERM; sleep " + mark + ") & echo ok"},
		{"stopped", "sleep " + mark + " & kill -STOP $!; echo ok"},
		{"closed output", "sleep " + mark + " >/dev/null 2>&1 </dev/null & echo ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := runCommand(t, s, at, tt.cmd)
			if r.Stdout != "ok\n" || r.TimedOut {
				t.Errorf("answer %+v", r)
			}
			if left := processesWith(t, mark); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

func TestForkBombEnds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs a user for the session, which needs root: the process limit is the user's")
	}
	s, at := newSlotConfigured(t, newPolicy(t, nil), nil, func(c *Config) {
		c.KillTimeout = 30 * time.Second // the machine may be busy with other tests
	})
	for _, bomb := range []string{
		"b() { b | b & b; }; b",
		"python3 -c 'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass'",
		"python3 -c 'import os, signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True:\n    try:\n        if os.fork(): os._exit(0)\n        os.setsid()\n    except OSError: pass'",
	} {
		if r := runBriefly(t, s, at, bomb); r.ExitCode == nil {
			t.Errorf("%s: answer %+v", bomb, r)
		}
		if r := runCommand(t, s, at, "echo fine"); r.Stdout != "fine\n" {
			t.Errorf("after %s: %+v", bomb, r)
		}
		if left := processesOf(t, at.UID); len(left) > 0 {
			t.Errorf("after %s: processes %v are left", bomb, left)
		}
	}
	if s.Restarts() > 0 {
		t.Errorf("the fork server was lost %d times", s.Restarts())
	}
}

// runBriefly runs a command that is ended after half a second.
func runBriefly(t *testing.T, s *Slot, at Place, cmd string) runAnswer {
	t.Helper()
	usual := s.cfg.Limits.RunWall
	defer func() { s.cfg.Limits.RunWall = usual }()
	s.cfg.Limits.RunWall = 500 * time.Millisecond
	return runCommand(t, s, at, cmd)
}

func processesWith(t *testing.T, arg string) (pids []int) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err == nil && strings.Contains(string(cmdline), "sleep\x00"+arg) {
			pid, _ := strconv.Atoi(filepath.Base(d))
			pids = append(pids, pid)
		}
	}
	return pids
}

// processesOf lists the processes of a user.
func processesOf(t *testing.T, uid int) (pids []string) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		status, err := os.ReadFile(d + "/status")
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			pids = append(pids, filepath.Base(d))
		}
	}
	return pids
}

func TestKilledForkServer(t *testing.T) {
	s, at := newSlot(t)
	unix.Kill(s.base.server.Pid(), unix.SIGKILL)
	// The spare child may do the first job without its server.
	for range 2 {
		if a := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !a.Passed {
			t.Errorf("after the loss: %+v", a)
		}
	}
	if s.Restarts() != 1 {
		t.Errorf("%d restarts, want 1", s.Restarts())
	}
	if os.Getuid() == 0 {
		return // a session's user can't end the fork server
	}
	code := "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    while x == 2: pass\n    return x"
	a := evaluate(t, s, at, code, map[string]any{"limits": map[string]any{"wall_s": 1.5}}, "x=1", "1", "x=2", "2", "x=3", "3")
	if a.Passed || a.Cases[1].Passed {
		t.Errorf("a submission that ends its fork server: %q", statuses(a))
	}
	if a := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !a.Passed {
		t.Errorf("the next submission: %+v", a)
	}
}

func TestStoppedForkServer(t *testing.T) {
	s, at := newSlot(t)
	unix.Kill(s.base.server.Pid(), unix.SIGSTOP)
	evaluate(t, s, at, "def f(x):\n    while True: pass", map[string]any{"limits": map[string]any{"wall_s": 1}}, "x=1", "1")
	if b := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !b.Passed {
		t.Errorf("after the loss: %+v", b)
	}
}

// spawnerOf returns the server of a slot's commands.
func spawnerOf(t testing.TB, s *Slot, at Place) *pyrunner.Server {
	t.Helper()
	if r := runCommand(t, s, at, "true"); r.ExitCode == nil || *r.ExitCode != 0 || s.more[forCommands] == nil {
		t.Fatalf("no spawner: %+v", r)
	}
	return s.more[forCommands].server
}

func TestLostSpawner(t *testing.T) {
	s, at := newSlot(t)
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		unix.Kill(spawnerOf(t, s, at).Pid(), signal)
		runBriefly(t, s, at, "echo lost") // may come out either way
		if r := runCommand(t, s, at, "echo fine"); r.Stdout != "fine\n" {
			t.Errorf("afterwards: %+v", r)
		}
		if s.Restarts() == 0 {
			t.Error("no restart after it was killed")
		}
	}
}

// What a shell inherits is what it would from a fresh login: no descriptor but
// the three, no signal ignored or blocked, an environment of the session's own.
func TestRunInheritsNothing(t *testing.T) {
	s, at := newSlot(t)
	for range 2 { // another session's place in between
		other := newPlaceOf(t, at.UID)
		for _, place := range []Place{at, other} {
			r := runCommand(t, s, place, `ls /proc/self/fd | wc -l; grep -E '^Sig(Blk|Ign)' /proc/self/status; env | sort | grep -vE '^(_|OLDPWD)='; readlink /proc/self/cwd; cut -d' ' -f5,6 /proc/$$/stat | tr ' ' '\n' | uniq | wc -l`)
			in := s.cfg.Policy.Inside
			want := strings.Join([]string{
				"4", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000",
				"HOME=" + in(place.Home), "LANG=C.UTF-8", "LOGNAME=session", "MPLBACKEND=Agg", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1",
				"PATH=" + sandbox.Path, "PWD=" + in(place.Work), "PYTHONDONTWRITEBYTECODE=1", "SHELL=/bin/sh",
				"TEMP=" + in(place.Tmp), "TMP=" + in(place.Tmp), "TMPDIR=" + in(place.Tmp), "USER=session", in(place.Work), "1", "",
			}, "\n")
			if r.Stdout != want {
				t.Errorf("stdout\n%s\nwant\n%s\nstderr %s", r.Stdout, want, r.Stderr)
			}
		}
	}
}

func TestRunThatCantBegin(t *testing.T) {
	s, at := newSlot(t)
	if r := runCommand(t, s, at, "echo "+strings.Repeat("x", 200<<10)); *r.ExitCode != 126 || r.Stderr != "/bin/sh: argument list too long\n" {
		t.Errorf("too long a command: %+v, exit %d", r, *r.ExitCode)
	}
	closed := newPlaceOf(t, at.UID)
	if err := os.Chmod(closed.Work, 0); err != nil {
		t.Fatal(err)
	}
	a, err := s.Run(context.Background(), []byte(`{"id":"x","cmd":"echo"}`), closed)
	if err == nil || !strings.Contains(err.Error(), "enter sandbox: chdir: permission denied") {
		t.Errorf("in a closed directory: answer %s, error %v", a.Body, err)
	}
	if s.Restarts() > 0 {
		t.Errorf("%d restarts", s.Restarts())
	}
	if r := runCommand(t, s, at, "echo fine"); r.Stdout != "fine\n" {
		t.Errorf("afterwards: %+v", r)
	}
}

// What root may do to the worker and to others' files, a session's user may not.
func TestSessionUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs a user for the session, which needs root")
	}
	s, at := newSlot(t)
	other := newPlace(t)
	if err := os.WriteFile(other.Work+"/secret", []byte("s3cret"), 0o644); err != nil {
		t.Fatal(err)
	}
	other.UID = at.UID + 1
	if err := os.Chown(other.Work, other.UID, other.UID); err != nil {
		t.Fatal(err)
	}
	r := runCommand(t, s, at, fmt.Sprintf("id -u; id -G; cat %s/secret; kill -9 $PPID; kill -9 %d; cat /proc/%d/environ; echo end", other.Work, os.Getpid(), os.Getpid()))
	if !strings.HasPrefix(r.Stdout, fmt.Sprintf("%[1]d\n%[1]d\n", at.UID)) || !strings.HasSuffix(r.Stdout, "end\n") || strings.Contains(r.Stdout, "s3cret") {
		t.Errorf("answer %+v", r)
	}
}

// A fork server that is lost amid a bomb leaves neither processes nor zombies.
func TestLostServerLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a bomb needs a user of its own, which needs root")
	}
	s, at := newSlotWithout(t, []sandbox.Layer{sandbox.Namespaces})
	server := spawnerOf(t, s, at).Pid()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(processesOf(t, at.UID)) < 20 { // the bomb has gone off
			time.Sleep(5 * time.Millisecond)
		}
		unix.Kill(server, unix.SIGKILL)
	}()
	runCommand(t, s, at, `python3 -c "
import os, time
for n in range(40):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
time.sleep(60)"`)
	<-done
	if left := processesOf(t, at.UID); len(left) > 1 { // the next spare child may be there already
		t.Errorf("left: %v", left)
	}
	if a := evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1"); !a.Passed {
		t.Errorf("afterwards: %+v", a)
	}
}

// What has the same user, as another worker's job may on this machine, is not
// ended with what a lost fork server leaves.
func TestLostServerEndsNobodyElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving a process another user needs root")
	}
	for name, without := range map[string][]sandbox.Layer{"namespaces": nil, "control group": {sandbox.Namespaces}} {
		t.Run(name, func(t *testing.T) {
			s, at := newSlotWithout(t, without)
			if without != nil && !strings.Contains(s.cfg.Policy.Report(), "for each slot") {
				t.Skip("no control groups here")
			}
			// Not a child of this process, which waits for its own.
			other := exec.Command("sh", "-c", fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups sleep 600 & wait", at.UID, at.UID))
			other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() { gone <- other.Wait() }()
			defer func() {
				unix.Kill(-other.Process.Pid, unix.SIGKILL)
				<-gone
			}()
			server := spawnerOf(t, s, at).Pid()
			for len(processesOf(t, at.UID)) == 0 {
				time.Sleep(5 * time.Millisecond)
			}
			unix.Kill(server, unix.SIGKILL)
			runBriefly(t, s, at, "echo lost") // may come out either way
			if r := runCommand(t, s, at, "echo works"); r.Stdout != "works\n" {
				t.Errorf("afterwards: %+v", r)
			}
			select {
			case err := <-gone:
				gone <- err
				t.Errorf("another process of the user: %v", err)
			default:
			}
		})
	}
}

// BenchmarkRun is what a command that does nothing costs: in one session, and in
// several by turns.
func BenchmarkRun(b *testing.B) {
	for _, sessions := range []int{1, 5} {
		b.Run(fmt.Sprint(sessions, " sessions"), func(b *testing.B) {
			s, at := newSlot(b)
			places := []Place{at}
			for len(places) < sessions {
				places = append(places, newPlaceOf(b, at.UID))
			}
			runCommand(b, s, at, "true")
			before := cpuTime(b, s)
			for i := 0; b.Loop(); i++ {
				if r := runCommand(b, s, places[i%sessions], "true"); r.ExitCode == nil || *r.ExitCode != 0 {
					b.Fatalf("%+v", r)
				}
				s.Ready()
			}
			b.ReportMetric(float64((cpuTime(b, s)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
