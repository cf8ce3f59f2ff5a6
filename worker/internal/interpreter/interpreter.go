// Package interpreter finds the Python that runs submissions: the one on this
// machine that is new enough, that sessions' users can execute, and that has
// most of the packages submissions use.
package interpreter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Interpreter is a Python that was found and asked about itself.
type Interpreter struct {
	// Path is its executable, links resolved.
	Path string `json:"executable"`
	// Version as in sys.version_info, first three.
	Version [3]int `json:"version"`
	// SysPath is what it imports from, site and distribution packages included.
	SysPath []string `json:"path"`
	// Prefixes are the directories that it is installed in.
	Prefixes []string `json:"prefixes"`
	// Has lists those of Wanted that it can import.
	Has []string `json:"has"`
}

// String names it as logs and heartbeats do.
func (i *Interpreter) String() string {
	s := fmt.Sprintf("Python %d.%d.%d at %s", i.Version[0], i.Version[1], i.Version[2], i.Path)
	if len(i.Has) == 0 {
		return s + ", standard library only"
	}
	return s + " with " + strings.Join(i.Has, ", ")
}

// Wanted lists packages that submissions use beyond the standard library.
var Wanted = []string{"numpy", "pandas", "sortedcontainers", "scipy", "sympy"}

// MinVersion is the oldest Python taken.
var MinVersion = [2]int{3, 11}

// probeTimeout bounds one candidate's answer.
const probeTimeout = 15 * time.Second

// names of executables looked for on PATH, after the system's own.
var names = []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"}

// system places are tried first: distribution packages of numpy and the like
// go to the distribution's Python, which need not be the first on PATH.
var system = []string{"/usr/bin/python3", "/usr/local/bin/python3"}

const question = `
import importlib.util, json, os, sys
print(json.dumps({
    "executable": os.path.realpath(sys.executable),
    "version": list(sys.version_info[:3]),
    "path": [p for p in sys.path if p],
    "prefixes": sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}),
    "has": [n for n in sys.argv[1:] if importlib.util.find_spec(n) is not None],
}))
`

// Find returns the most suitable interpreter. If path is not empty only that
// one is asked. user, if not nil, is whom it must work for.
func Find(ctx context.Context, path string, user *syscall.Credential) (*Interpreter, error) {
	if path != "" {
		i, err := probe(ctx, path, user)
		if err != nil {
			return nil, fmt.Errorf("python %s: %w", path, err)
		}
		return i, nil
	}
	var best *Interpreter
	var errs []error
	for _, c := range candidates() {
		i, err := probe(ctx, c, user)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c, err))
			continue
		}
		if best == nil || len(i.Has) > len(best.Has) {
			best = i
		}
	}
	if best == nil {
		return nil, fmt.Errorf("find Python %d.%d or newer that the sessions' users can run: install python3 or name one with --python: %w",
			MinVersion[0], MinVersion[1], errors.Join(append(errs, errNone)...))
	}
	return best, nil
}

var errNone = errors.New("no suitable interpreter")

// candidates lists executables, each once, in order of preference.
func candidates() []string {
	var list []string
	seen := map[string]bool{}
	add := func(p string) {
		real, err := filepath.EvalSymlinks(p)
		if err != nil || seen[real] {
			return
		}
		seen[real] = true
		list = append(list, p)
	}
	for _, p := range system {
		add(p)
	}
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			add(p)
		}
	}
	return list
}

// probe asks one executable about itself.
func probe(ctx context.Context, path string, user *syscall.Credential) (*Interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-I", "-B", "-c", question}, Wanted...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	if user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr[:min(len(exit.Stderr), 500)])))
		}
		return nil, err
	}
	i := &Interpreter{}
	if err := json.Unmarshal(out, i); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	if i.Version[0] != MinVersion[0] || i.Version[1] < MinVersion[1] {
		return nil, fmt.Errorf("version %d.%d.%d is older than %d.%d", i.Version[0], i.Version[1], i.Version[2], MinVersion[0], MinVersion[1])
	}
	return i, nil
}
