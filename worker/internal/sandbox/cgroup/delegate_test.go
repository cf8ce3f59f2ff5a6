package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// unified returns where v2 is mounted and a controller that it has: any will
// do for its rules about processes and delegation, which are the kernel's own.
func unified(t *testing.T) (top, controller string) {
	t.Helper()
	_, mounts := ownAndMounts(t)
	for _, m := range mounts {
		if !m.v2 || !isRoot(m.point) {
			continue
		}
		for _, c := range []string{"memory", "hugetlb", "io", "rdma", "misc"} {
			if have, err := words(filepath.Join(m.point, "cgroup.controllers")); err == nil && slices.Contains(have, c) && unix.Access(m.point, unix.W_OK) == nil {
				return m.point, c
			}
		}
	}
	t.Skip("no cgroup v2 with a controller")
	return "", ""
}

// delegated returns a group for which the controller is there.
func delegated(t *testing.T, top, controller string) string {
	t.Helper()
	before, err := words(filepath.Join(top, "cgroup.subtree_control"))
	if err != nil {
		t.Fatal(err)
	}
	if err := enable(top, []string{controller}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, unique("delegated"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{filepath.Join(dir, leaf), filepath.Join(dir, "sub"), dir} {
			if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
		if !slices.Contains(before, controller) {
			if err := writeFile(filepath.Join(top, "cgroup.subtree_control"), "-"+controller); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

// inGroup makes cmd start in a v2 group.
func inGroup(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}

// prepareIn has a process in a group prepare it; it returns what it made of it,
// its error, and the group it is in then.
func prepareIn(t *testing.T, dir, top, controller string) (base, failed, own string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{preparing, dir, top, controller}
	inGroup(t, cmd, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.SplitN(string(out), "\n", 3)
	for line := range strings.Lines(lines[2]) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			own = filepath.Join(top, strings.TrimSpace(rest))
		}
	}
	return lines[0], lines[1], own
}

func TestPrepareMovesAsideWhenAlone(t *testing.T) {
	top, controller := unified(t)
	dir := delegated(t, top, controller)
	base, failed, own := prepareIn(t, dir, top, controller)
	if base != dir || failed != "<nil>" || own != filepath.Join(dir, leaf) {
		t.Errorf("got %s, %s, in %s; want to be in %s of it", base, failed, own, leaf)
	}
	if enabled, err := words(filepath.Join(dir, "cgroup.subtree_control")); err != nil || !slices.Contains(enabled, controller) {
		t.Errorf("enabled are %v, %v", enabled, err)
	}
	// The next finds it done.
	if base, failed, own = prepareIn(t, filepath.Join(dir, leaf), top, controller); base != dir || failed != "<nil>" || own != filepath.Join(dir, leaf) {
		t.Errorf("again: got %s, %s, in %s", base, failed, own)
	}
}

func TestPrepareInAGroupMadeForIt(t *testing.T) {
	top, controller := unified(t)
	dir := delegated(t, top, controller)
	aside := filepath.Join(dir, leaf)
	if err := os.Mkdir(aside, 0o755); err != nil {
		t.Fatal(err)
	}
	if base, failed, own := prepareIn(t, aside, top, controller); base != dir || failed != "<nil>" || own != aside {
		t.Errorf("got %s, %s, in %s", base, failed, own)
	}
}

func TestPrepareLeavesOthersAlone(t *testing.T) {
	top, controller := unified(t)
	dir := delegated(t, top, controller)
	other := exec.Command("/bin/cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	inGroup(t, other, dir)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer in.Close()
	_, failed, own := prepareIn(t, dir, top, controller)
	if !strings.Contains(failed, "2 processes") || !strings.Contains(failed, "DelegateSubgroup=worker") || own != dir {
		t.Errorf("got %q, in %s", failed, own)
	}
	if _, err := os.Stat(filepath.Join(dir, leaf)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a group was made: %v", err)
	}
	if pids, err := members(dir); err != nil || !slices.Equal(pids, []int{other.Process.Pid}) {
		t.Errorf("in it are %v, %v; want the other only", pids, err)
	}
}

func TestPrepareSaysWhatIsNotDelegated(t *testing.T) {
	top, controller := unified(t)
	dir := filepath.Join(delegated(t, top, controller), "sub")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, failed, own := prepareIn(t, dir, top, controller)
	if !strings.Contains(failed, "Delegate=yes") || own != dir {
		t.Errorf("got %q, in %s", failed, own)
	}
	if err := enable(top, []string{"no-such"}); err == nil || !strings.Contains(err.Error(), "the kernel lacks it") {
		t.Errorf("got %v", err)
	}
}

// In the root nothing moves: it may have processes and groups.
func TestPrepareInTheRoot(t *testing.T) {
	top, controller := unified(t)
	delegated(t, top, controller) // so that what it enables is turned off again
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if base, err := prepare(top, top, []string{controller}); err != nil || base != top {
		t.Errorf("got %s, %v", base, err)
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || string(after) != string(before) {
		t.Errorf("moved from %s to %s (%v)", before, after, err)
	}
}

// The kernel's own cgroup.kill and cpu.stat need no controller.
func TestV2KillAndCPU(t *testing.T) {
	top, _ := unified(t)
	r := &Root{files: layoutV2, bases: [3]string{top, top, top}, mkdir: mkdir}
	for _, c := range []struct {
		name string
		kill bool
	}{{"with cgroup.kill", true}, {"one by one", false}} {
		t.Run(c.name, func(t *testing.T) {
			g := r.group(unique("v2-" + strconv.FormatBool(c.kill)))
			if err := mkdir(g.dirs[0]); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			}()
			if !c.kill {
				g.root = &Root{files: layoutV1, bases: r.bases} // doesn't know the file
			}
			var err error
			if g.cpu, err = unix.Open(filepath.Join(g.dirs[0], "cpu.stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
			m := join(t, g, `
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
os.setresuid(`+fmt.Sprint(670_000+os.Getpid()%4096)+`, -1, -1)
for _ in range(50):
    if os.fork() == 0: signal.pause()
say("ready")
signal.pause()`)
			m.hear()
			if c.kill {
				if used, err := g.CPU(); err != nil || used <= 0 {
					t.Errorf("CPU: %v, %v", used, err)
				}
			}
			if err := g.Kill(); err != nil {
				t.Error(err)
			}
			if pids, err := members(g.dirs[0]); len(pids) > 0 || err != nil {
				t.Errorf("left: %v, %v", pids, err)
			}
		})
	}
}
