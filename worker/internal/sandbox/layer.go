package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// Layer names a part of the sandbox that holds by itself.
type Layer string

// The layers, in the order of reports.
const (
	// Rlimits bound what each process uses.
	Rlimits Layer = "rlimits"
	// Users gives each session a user and group of its own.
	Users Layer = "users"
	// Seccomp refuses system calls.
	Seccomp Layer = "seccomp"
	// Landlock refuses a slot's processes files outside the runtime and the
	// sessions, TCP and signals to the outside.
	Landlock Layer = "landlock"
	// SessionLandlock refuses a job files outside its session.
	SessionLandlock Layer = "session-landlock"
	// Namespaces give a slot its own processes, mounts and network.
	Namespaces Layer = "namespaces"
	// Memory bounds the memory of all processes of a job together.
	Memory Layer = "memory"
)

var layerNames = []Layer{Rlimits, Users, Seccomp, Landlock, SessionLandlock, Namespaces, Memory}

// Layers lists the names of all layers.
func Layers() []Layer { return slices.Clone(layerNames) }

func joinLayers(list []Layer) string {
	names := make([]string, len(list))
	for i, l := range list {
		names[i] = string(l)
	}
	return strings.Join(names, ", ")
}

// state is whether a layer is in force.
type state struct {
	detail string
	why    error // why it isn't
}

// Level names how much isolation is in force.
type Level string

// The levels, least first.
const (
	// Basic: a submission that means no harm does none. One that does can
	// reach other sessions, or the worker.
	Basic Level = "basic"
	// Container: what the self-test tries of other sessions, the worker, the
	// host and the network is refused, and temporary directories are the
	// session's or refused. What a plain, unprivileged container allows.
	Container Level = "container"
	// Strict: Container by every layer: a user, namespaces and a memory cgroup
	// beside Landlock and seccomp.
	Strict Level = "strict"
)

var levels = []Level{Basic, Container, Strict}

// ParseLevel reads a level's name.
func ParseLevel(s string) (Level, error) {
	if l := Level(s); slices.Contains(levels, l) {
		return l, nil
	}
	return "", fmt.Errorf("isolation level is %q, want strict, container or basic", s)
}

// AtLeast says whether l is as much as want.
func (l Level) AtLeast(want Level) bool { return slices.Index(levels, l) >= slices.Index(levels, want) }

// Report says in one line what is in force and what is not, and why.
func (p *Policy) Report() string {
	var in, out []string
	for _, l := range layerNames {
		switch s := p.layers[l]; {
		case s.why != nil:
			out = append(out, fmt.Sprintf("%s (%v)", l, s.why))
		default:
			in = append(in, fmt.Sprintf("%s (%s)", l, s.detail))
		}
	}
	report := fmt.Sprintf("%s: no_new_privs, subreaper, %s", p.Level(), strings.Join(in, ", "))
	if len(out) > 0 {
		report += "; not in force: " + strings.Join(out, ", ")
	}
	if open := p.open(); len(open) > 0 {
		report += "; the self-test got through: " + strings.Join(open, ", ")
	}
	return report
}

// InForce says which layers are in force, for metrics.
func (p *Policy) InForce() map[Layer]bool {
	m := map[Layer]bool{}
	for _, l := range layerNames {
		m[l] = p.has(l)
	}
	return m
}
