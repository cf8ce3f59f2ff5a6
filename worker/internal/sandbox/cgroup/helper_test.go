package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// preparing is argv[0] of a process that prepares the v2 group it is in.
const preparing = "cgroup-test-preparing"

// finding is argv[0] of a process that says what Find finds, with all cgroup
// file systems mounted read-only if its argument says so.
const finding = "cgroup-test-finding"

func TestMain(m *testing.M) {
	if os.Args[0] == finding {
		if err := sayFound(os.Args[1] == "read-only"); err != nil {
			fmt.Println(err)
		}
		unix.Exit(0)
	}
	if os.Args[0] == preparing {
		base, err := prepare(os.Args[1], os.Args[2], os.Args[3:])
		own, _ := os.ReadFile("/proc/self/cgroup")
		fmt.Printf("%s\n%v\n%s", base, err, own)
		unix.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func sayFound(readOnly bool) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if readOnly {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		for _, m := range parseMounts(data) {
			if err := unix.Mount("", m.point, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("remount %s: %w", m.point, err)
			}
		}
	}
	r, err := Find()
	if err == nil {
		fmt.Println("found", r)
	}
	return err
}

// python is the interpreter itself, not a script that starts it.
var python = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("python3", "-I", "-S", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(out)), err
})

// find returns the Root of this machine.
func find(t testing.TB) *Root {
	t.Helper()
	r, err := Find()
	if err == nil {
		return r
	}
	if dir := couldMake(t); dir != "" {
		t.Fatalf("groups can be made in %s: %v", dir, err)
	}
	t.Skipf("no cgroups here: %v", err)
	return nil
}

// couldMake returns a directory where Find should have succeeded, "" if there
// is none: a test that this machine could run must not be skipped.
func couldMake(t testing.TB) string {
	t.Helper()
	o, mounts := ownAndMounts(t)
	for _, controller := range []string{"", "memory"} {
		dir, _, err := locate(o, mounts, controller)
		if err != nil {
			continue
		}
		if enabled, err := words(filepath.Join(dir, "cgroup.subtree_control")); controller == "" && (err != nil || !slices.Contains(enabled, "memory")) {
			continue
		}
		if controller != "" && os.Mkdir(filepath.Join(dir, unique("could")), 0o755) != nil {
			continue
		}
		os.Remove(filepath.Join(dir, unique("could")))
		return dir
	}
	return ""
}

func ownAndMounts(t testing.TB) (own, []mount) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	o, err := parseOwn(data)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		t.Fatal(err)
	}
	return o, parseMounts(data)
}

// newGroup returns a group that is removed after the test.
func newGroup(t testing.TB, r *Root, name string) *Group {
	t.Helper()
	g, err := r.New(unique(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// unique makes a name this process' own.
func unique(name string) string { return fmt.Sprintf("gradefleet-test-%d-%s", os.Getpid(), name) }

// member is a process in a group.
type member struct {
	t   testing.TB
	cmd *exec.Cmd
	out *bufio.Scanner
	in  *os.File
}

// join starts a Python program in a group; it says lines and hears bytes.
func join(t testing.TB, g *Group, program string) *member {
	t.Helper()
	exe, err := python()
	if err != nil {
		t.Fatalf("find python3: %v", err)
	}
	script := "import mmap, os, signal, sys, threading, time\n" + `
for name in sys.argv[1:]:
    with open(name, "w") as f: f.write("0")
def say(*words): os.write(1, (" ".join(map(str, words)) + "\n").encode())
def hear(): os.read(0, 1)
def touch(size):
    m = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096): m[at] = 1
    return m
` + program
	m := &member{t: t, cmd: exec.Command(exe, append([]string{"-I", "-S", "-c", script}, g.JoinFiles()...)...)}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	m.cmd.Stdin, m.cmd.Stderr, m.out, m.in = in, os.Stderr, bufio.NewScanner(out), w
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		m.cmd.Process.Kill()
		m.cmd.Wait()
	})
	return m
}

// hear returns the next line it says.
func (m *member) hear() string {
	m.t.Helper()
	if !m.out.Scan() {
		m.t.Fatalf("it says no more: %v", m.out.Err())
	}
	return m.out.Text()
}

// goOn lets it go on where it hears.
func (m *member) goOn() {
	m.t.Helper()
	if _, err := m.in.Write([]byte{'\n'}); err != nil {
		m.t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
