package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake returns a Root in a directory that looks like a v2 group, with what the
// kernel would put into a new one: the memory controller can be had in v1 or in
// v2, and where these tests run mostly in v1. It shows which files are written
// with what, not what the kernel makes of it.
func fake(t *testing.T, files map[string]string) *Root {
	t.Helper()
	base := t.TempDir()
	return &Root{files: layoutV2, bases: [3]string{base, base, base}, mkdir: func(dir string) error {
		if err := mkdir(dir); err != nil {
			return err
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				return err
			}
		}
		return nil
	}}
}

// fresh is a new group of Linux 6.12.
func fresh() map[string]string {
	return map[string]string{
		"cgroup.procs": "", "memory.max": "max\n", "memory.swap.max": "max\n", "memory.current": "4096\n", "memory.peak": "8192\n",
		"memory.events": "low 0\nhigh 0\nmax 5\noom 3\noom_kill 2\noom_group_kill 0\n",
		"pids.max":      "max\n", "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n", "memory.reclaim": "",
	}
}

func TestV2Files(t *testing.T) {
	r := fake(t, fresh())
	g, err := r.New("slot-0")
	if err != nil {
		t.Fatal(err)
	}
	first := func(name string) string {
		t.Helper()
		line, _, _ := strings.Cut(read(t, filepath.Join(r.bases[0], "slot-0", name)), "\n")
		return line
	}
	if got := first("memory.swap.max"); !strings.HasPrefix(got, "0") {
		t.Errorf("memory.swap.max is %s: swap is a way around the limit", got)
	}
	if err := g.Limit(1<<20, 7); err != nil {
		t.Error(err)
	}
	if m, p := first("memory.max"), first("pids.max"); m != "1048576" || p != "7" {
		t.Errorf("limits are %s, %s", m, p)
	}
	if n, err := g.Usage(); n != 4096 || err != nil {
		t.Errorf("usage: %d, %v", n, err)
	}
	if n, err := g.Peak(); n != 8192 || err != nil {
		t.Errorf("peak: %d, %v", n, err)
	}
	if n, err := g.OOMKills(); n != 2 || err != nil {
		t.Errorf("OOM kills: %d, %v", n, err)
	}
	if d, err := g.CPU(); d != 1500*time.Microsecond || err != nil {
		t.Errorf("CPU: %v, %v", d, err)
	}
	if files := g.JoinFiles(); len(files) != 1 || files[0] != filepath.Join(r.bases[0], "slot-0", "cgroup.procs") {
		t.Errorf("join by %v", files)
	}
	if err := g.ResetPeak(); err != nil {
		t.Errorf("reset: %v", err)
	}
	// What the kernel would kill for is refused; lower than before, but enough, is not.
	if err := g.Limit(4095, 7); !errors.Is(err, ErrBusy) {
		t.Errorf("below use: %v", err)
	}
	if m, reclaim := first("memory.max"), first("memory.reclaim"); m != "1048576" || reclaim != "1" {
		t.Errorf("limit is %s, to be freed were %s", m, reclaim)
	}
	if err := g.Limit(4096, 0); err != nil {
		t.Error(err)
	}
	if m, p := first("memory.max"), first("pids.max"); m != "4096" || p != "max" {
		t.Errorf("limits are %s, %s", m, p)
	}
	g.closeFiles()
}

func TestV2OlderKernels(t *testing.T) {
	files := fresh()
	for _, name := range []string{"memory.peak", "memory.reclaim", "memory.swap.max"} {
		delete(files, name)
	}
	g, err := fake(t, files).New("slot-0")
	if err != nil {
		t.Fatal(err)
	}
	defer g.closeFiles()
	if _, err := g.Peak(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("peak: %v", err)
	}
	if err := g.ResetPeak(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("reset: %v", err)
	}
	if err := g.Limit(1, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("below use: %v", err)
	}
	// Without what it is for there is no group.
	delete(files, "memory.max")
	if _, err := fake(t, files).New("slot-0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no memory.max: %v", err)
	}
}
