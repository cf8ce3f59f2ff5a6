package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where this process may make groups.
type Root struct {
	files layout
	// bases are the directories in which each group has one of its own: the
	// first for memory, the second for pids, the third for CPU time. They are
	// the same in v2; the third is empty without.
	bases [3]string
	// mkdir makes a group's directory.
	mkdir func(string) error
}

// layout is how the files of a version are called.
type layout struct {
	version                          int
	limit, swap, usage, peak, events string
	pids, cpu                        string
	unlimited                        string // what means that there is no limit of memory
}

var (
	layoutV1 = layout{1, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", "pids.max", "cpuacct.usage", "-1"}
	layoutV2 = layout{2, "memory.max", "memory.swap.max", "memory.current", "memory.peak", "memory.events", "pids.max", "cpu.stat", "max"}
)

// needed are the controllers without which a group is of no use.
var needed = []string{"memory", "pids"}

// Find looks for a place where this process may make groups with limits of
// memory and processes, and tries it. It may move this process, see the
// package's comment. The error says why there is none, and what to do.
func Find() (*Root, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find own cgroup: %w", err)
	}
	o, err := parseOwn(data)
	if err != nil {
		return nil, fmt.Errorf("read /proc/self/cgroup: %w", err)
	}
	if data, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		return nil, fmt.Errorf("find cgroup mounts: %w", err)
	}
	mounts := parseMounts(data)
	r, err := findV2(o, mounts)
	if err == nil {
		return r, nil
	}
	r, errV1 := findV1(o, mounts)
	if errV1 == nil {
		return r, nil
	}
	return nil, fmt.Errorf("no cgroup for memory and processes: v2: %w; v1: %w", err, errV1)
}

func findV1(o own, mounts []mount) (*Root, error) {
	r := &Root{files: layoutV1, mkdir: mkdir}
	for i, controller := range [...]string{"memory", "pids", "cpuacct"} {
		dir, _, err := locate(o, mounts, controller)
		if err != nil && i < len(needed) {
			return nil, fmt.Errorf("controller %s: %w", controller, err)
		}
		r.bases[i] = dir
	}
	if err := r.try(); err != nil {
		return nil, explain(err)
	}
	return r, nil
}

func findV2(o own, mounts []mount) (*Root, error) {
	dir, top, err := locate(o, mounts, "")
	if err != nil {
		return nil, err
	}
	base, err := prepare(dir, top, needed)
	if err != nil {
		return nil, explain(err)
	}
	r := &Root{files: layoutV2, bases: [3]string{base, base, base}, mkdir: mkdir}
	if err := r.try(); err != nil {
		return nil, explain(err)
	}
	return r, nil
}

func mkdir(dir string) error { return os.Mkdir(dir, 0o755) }

// try makes a group, sets limits, has a process join, and removes it.
func (r *Root) try() error {
	g, err := r.New(fmt.Sprintf("gradefleet-probe-%d", os.Getpid()))
	if err != nil {
		return err
	}
	err = g.Limit(64<<20, 16)
	if err == nil {
		cmd := exec.Command("/bin/sh", append([]string{"-c", `for f; do echo 0 >"$f" || exit 1; done`, "sh"}, g.JoinFiles()...)...)
		if out, runErr := cmd.CombinedOutput(); runErr != nil {
			err = fmt.Errorf("join %s: %w: %s", strings.Join(g.JoinFiles(), ", "), runErr, strings.TrimSpace(string(out)))
		}
	}
	return errors.Join(err, g.Close())
}

// explain adds what to do about an error.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w (mounted read-only, as in a plain container: it needs a writable cgroup mount of its own)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (not delegated to this user: with systemd, set Delegate=yes in the worker's unit)", err)
	}
	return err
}

// String is a short description, such as "cgroup v2 memory+pids".
func (r *Root) String() string {
	return fmt.Sprintf("cgroup v%d memory+pids", r.files.version)
}

// Version is that of the cgroups, 1 or 2.
func (r *Root) Version() int { return r.files.version }

// Close is the end of the Root. Groups are closed, or swept, before. A process
// that Find moved stays where it is.
func (r *Root) Close() error { return nil }

// dirs are the directories of a group, each once.
func (r *Root) dirs(name string) []string {
	var dirs []string
	for i, base := range r.bases {
		if base == "" || i > 0 && base == r.bases[0] || i > 1 && base == r.bases[1] {
			continue
		}
		dirs = append(dirs, filepath.Join(base, name))
	}
	return dirs
}

// Sweep ends all processes in the groups whose names begin with prefix, removes
// the groups, and returns how many there were: what a worker that died left.
// The prefix must be no living worker's.
func (r *Root) Sweep(prefix string) (removed int, err error) {
	if err := checkName(prefix); err != nil {
		return 0, fmt.Errorf("sweep cgroups: %w", err)
	}
	names := map[string]bool{}
	for _, dir := range r.dirs("") {
		entries, readErr := os.ReadDir(dir)
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("sweep cgroups: %w", readErr))
		}
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
				names[e.Name()] = true
			}
		}
	}
	for name := range names {
		g := r.group(name)
		if sweepErr := errors.Join(g.Kill(), g.Close()); sweepErr != nil {
			err = errors.Join(err, fmt.Errorf("sweep cgroup %s: %w", name, sweepErr))
			continue
		}
		removed++
	}
	return removed, err
}

// checkName refuses names that are paths, or that could be a file of the kernel's.
func checkName(name string) error {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("name %q has characters other than letters, digits, - and _", name)
		}
	}
	if name == "" {
		return errors.New("name is empty")
	}
	return nil
}
