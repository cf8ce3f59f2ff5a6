package proctree

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// untracing is argv[0] of a process that gives up for good what root in a plain
// container doesn't have, CAP_SYS_PTRACE above all, and says what MeasureExact and DeletedFiles
// make of a tree.
const untracing = "proctree-test-untracing"

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case untracing:
		runtime.LockOSThread()
		var err error
		for _, c := range [...]uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN, unix.CAP_PERFMON, unix.CAP_CHECKPOINT_RESTORE} {
			err = errors.Join(err, unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
		}
		if err == nil {
			err = unix.Exec("/proc/self/exe", []string{untracing + "-now", os.Args[1]}, os.Environ())
		}
		fmt.Println(err)
		unix.Exit(1)
	case untracing + "-now":
		root, _ := strconv.Atoi(os.Args[1])
		u, err := MeasureExact(root)
		size, files, err2 := DeletedFiles(root)
		fmt.Println(u.MemoryBytes, size, files, err, err2)
		unix.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long something may take that comes for certain, on a machine
// that others use.
const patience = time.Minute

// python is the interpreter itself, not a script that starts it.
var python = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("python3", "-I", "-S", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(out)), err
})

// prelude is what every root begins with: it is the subreaper, says lines to
// the test, and hears when to go on.
const prelude = `
import ctypes, mmap, os, resource, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(36, 1, 0, 0, 0)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
def hear():
    os.read(0, 1)
def stay():
    while True:
        signal.pause()
def child(work, *args):
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        finally:
            os._exit(1)
    return pid
def become(uid):
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
def touch(size):
    m = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096):
        m[at] = 1
    return m
def burn(seconds):
    while time.process_time() < seconds:
        pass
def behead():
    "End the calling thread, the first, only."
    libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
dir = sys.argv[1]
`

// tree is a running root.
type tree struct {
	t    testing.TB
	cmd  *exec.Cmd
	pid  int
	dir  string
	pipe *os.File
	out  *bufio.Scanner
	in   *os.File
	once sync.Once
}

// plant starts a root that runs a Python program, and ends it after the test.
func plant(t testing.TB, program string) *tree {
	t.Helper()
	exe, err := python()
	if err != nil {
		t.Fatalf("find python3: %v", err)
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // for other users too
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-I", "-S", "-c", prelude+program, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tr := &tree{t: t, cmd: cmd, pid: cmd.Process.Pid, dir: dir, pipe: out.(*os.File), out: bufio.NewScanner(out), in: w}
	t.Cleanup(func() {
		End(tr.pid, patience)
		tr.wait()
		w.Close()
	})
	return tr
}

// wait collects root.
func (tr *tree) wait() { tr.once.Do(func() { tr.cmd.Wait() }) }

// hear returns the words of the next line that the tree says.
func (tr *tree) hear() []string {
	tr.t.Helper()
	if !tr.out.Scan() {
		tr.t.Fatalf("the tree says no more: %v", tr.out.Err())
	}
	return strings.Fields(tr.out.Text())
}

// hears waits for so many lines.
func (tr *tree) hears(n int) {
	tr.t.Helper()
	for range n {
		tr.hear()
	}
}

// goOn lets one that hears go on.
func (tr *tree) goOn() {
	tr.t.Helper()
	if _, err := tr.in.Write([]byte{'\n'}); err != nil {
		tr.t.Fatal(err)
	}
}

// user is a user id of this run's own: what a broken test leaves behind counts
// against its user's limit, and other packages' tests, which run at the same
// time, end all that is of their users.
func user(t testing.TB, n int) int {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	return 600_000 + os.Getpid()%4096*16 + n
}

// living counts the living processes of a user.
func living(t testing.TB, uid int) int {
	t.Helper()
	r := readers.Get().(*reader)
	defer readers.Put(r)
	pids, err := r.numbers("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, pid := range append([]int(nil), pids...) {
		data, err := r.file(pid, "status")
		if err != nil || int(value(data, "Uid:")) != uid {
			continue
		}
		if s, err := r.stat(pid); err == nil && !s.dead() {
			n++
		}
	}
	return n
}
