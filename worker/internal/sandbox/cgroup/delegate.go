package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// leaf is the name of the group that the worker itself is in, where it makes
// groups beside itself. DelegateSubgroup=worker has systemd make it.
const leaf = "worker"

// prepare returns the v2 directory in which groups can be made that have the
// controllers. dir is the own group, top where its hierarchy is mounted.
func prepare(dir, top string, controllers []string) (string, error) {
	if filepath.Base(dir) == leaf && dir != top {
		// Made for this, by us or by who started us: groups go beside it.
		return filepath.Dir(dir), enable(filepath.Dir(dir), controllers)
	}
	if err := enable(dir, controllers); err == nil || !errors.Is(err, errOccupied) {
		return dir, err
	}
	return dir, moveAside(dir, controllers)
}

// errOccupied is in the chain when a group has processes of its own.
var errOccupied = errors.New("the group has processes, so that groups beneath it can't have limits")

// enable lets groups beneath dir have the controllers.
func enable(dir string, controllers []string) error {
	enabled, err := words(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("find enabled controllers: %w", err)
	}
	offered, err := words(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("find controllers: %w", err)
	}
	var add []string
	for _, c := range controllers {
		if !slices.Contains(offered, c) {
			return fmt.Errorf("controller %s is not there in %s (%s): %s", c, dir, orNone(offered), missing(dir))
		}
		if !slices.Contains(enabled, c) {
			add = append(add, "+"+c)
		}
	}
	if len(add) == 0 {
		return nil
	}
	// The kernel's own root may have both, processes and groups with limits.
	if !isRoot(dir) {
		if pids, err := words(filepath.Join(dir, "cgroup.procs")); err != nil {
			return fmt.Errorf("find processes: %w", err)
		} else if len(pids) > 0 {
			return fmt.Errorf("enable controllers in %s: %w", dir, errOccupied)
		}
	}
	if err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), strings.Join(add, " ")); err != nil {
		return fmt.Errorf("enable controllers: %w", err)
	}
	return nil
}

// isRoot says whether a directory is the hierarchy's root, not only the highest
// that a namespace shows: the root has no type.
func isRoot(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, fs.ErrNotExist)
}

// missing says what to do about a controller that is not there.
func missing(dir string) string {
	if isRoot(dir) {
		return "the kernel lacks it, or has it in v1 (systemd.unified_cgroup_hierarchy=1 on the kernel's command line gives it to v2)"
	}
	return "not delegated: with systemd, set Delegate=yes in the worker's unit"
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "there is none"
	}
	return "there is " + strings.Join(list, ", ")
}

// moveAside moves this process into a group of its own beneath dir, if it is
// alone in dir, and enables the controllers.
func moveAside(dir string, controllers []string) error {
	pids, err := words(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("find processes: %w", err)
	}
	if len(pids) != 1 || pids[0] != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("%d processes are in the worker's group %s: %w; start the worker alone in a group (with systemd, as a unit with Delegate=yes and DelegateSubgroup=%s)", len(pids), dir, errOccupied, leaf)
	}
	aside := filepath.Join(dir, leaf)
	if err := os.Mkdir(aside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a group for the worker itself: %w", err)
	}
	if err := writeFile(filepath.Join(aside, "cgroup.procs"), "0"); err != nil {
		return errors.Join(fmt.Errorf("move the worker: %w", err), os.Remove(aside))
	}
	if err := enable(dir, controllers); err != nil {
		back := writeFile(filepath.Join(dir, "cgroup.procs"), "0")
		return errors.Join(err, back, os.Remove(aside))
	}
	return nil
}

// writeFile writes to a file that is there.
func writeFile(name, content string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}
