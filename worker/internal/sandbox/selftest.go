package sandbox

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
)

// SelfTestSource is Python source that defines selftest(…), which tries what a
// hostile submission would and returns what it got; to be run as a submission
// is, with the arguments of [SelfTest.Arguments].
//
//go:embed selftest.py
var SelfTestSource string

// SelfTestEntry is the name of its function.
const SelfTestEntry = "selftest"

// Finding is the outcome of one try.
type Finding struct {
	Name string
	// Level is the least at which it must be refused.
	Level Level
	// Seen says what the try got; empty if it was refused.
	Seen string
}

// tries are those of selftest.py, with the level that each is needed for.
var tries = []struct {
	name  string
	level Level
}{
	{"limits", Basic},
	{"rights", Container},
	{"files of the worker", Container},
	{"files of another session", Container},
	{"modes of another session", Container},
	{"files of the host", Container},
	{"other users", Container},
	{"signals", Container},
	{"memory of others", Container},
	{"sockets", Container},
	{"system calls", Container},
	{"temporary directories", Container},
	{"own processes", Strict},
	{"own network", Strict},
}

// SelfTest is what the self-test is told to try, beside what it knows itself.
type SelfTest struct {
	// Secrets are files of the worker's, Others files of another session: they
	// exist, and hold text that a submission mustn't see.
	Secrets, Others []string
	// Places are files outside sessions that don't exist.
	Places []string
	// temporary is a name to be made in temporary directories.
	temporary string
}

// Arguments are the keyword arguments of selftest(), as marshal data.
func (p *Policy) Arguments(t *SelfTest) []byte {
	t.temporary = fmt.Sprintf("gradefleet-selftest-%d", os.Getpid())
	worker := os.Getpid()
	b := pymarshal.BeginDict(nil)
	list := func(name string, items []string) {
		b = pymarshal.AppendString(b, name)
		b = pymarshal.AppendList(b, len(items))
		for _, it := range items {
			b = pymarshal.AppendString(b, it)
		}
	}
	// Both as the worker names them and as they are called inside.
	both := func(paths []string) []string {
		all := slices.Clone(paths)
		for _, path := range paths {
			if in := p.bound(path); in != path {
				all = append(all, in)
			}
		}
		return all
	}
	list("secrets", both(t.Secrets))
	list("others", both(t.Others))
	list("places", both(t.Places))
	b = pymarshal.AppendString(b, "signalled")
	b = pymarshal.AppendList(b, 1)
	b = pymarshal.AppendInt(b, int64(worker))
	list("environs", []string{fmt.Sprintf("/proc/%d/environ", worker), fmt.Sprintf("/proc/%d/mem", worker)})
	b = pymarshal.AppendString(b, "numbers")
	b = pymarshal.AppendList(b, len(forbidden))
	for _, call := range forbidden {
		b = pymarshal.AppendTuple(b, 2)
		b = pymarshal.AppendInt(b, int64(call[0]))
		b = pymarshal.AppendTuple(b, len(call)-1)
		for _, arg := range call[1:] {
			b = pymarshal.AppendInt(b, int64(arg))
		}
	}
	b = pymarshal.AppendString(b, "temporary_name")
	b = pymarshal.AppendString(b, t.temporary)
	return pymarshal.EndDict(b)
}

// forbidden are system calls with arguments that need no rights: they work
// where no filter refuses them.
var forbidden = [][]int{
	{unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
	{unix.SYS_UNSHARE, unix.CLONE_NEWNS},
	{unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_SESSION_KEYRING, 1},
	{unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0, 0},
	{unix.SYS_USERFAULTFD, 1},
}

// Conclude takes in what selftest() returned, name by name, "" for a refusal,
// and decides which level is in force.
func (p *Policy) Conclude(t *SelfTest, seen map[string]string) error {
	for _, dir := range temporary {
		path := filepath.Join(dir, t.temporary)
		if err := os.Remove(path); err == nil {
			seen["temporary directories"] = "a file in " + dir + " is there for everybody"
		}
	}
	p.found = nil
	for _, try := range tries {
		got, done := seen[try.name]
		if !done {
			return fmt.Errorf("self-test: nothing was reported of %q", try.name)
		}
		if try.name == "limits" && !p.has(Rlimits) {
			got = "" // left out: Report says so, and no more than Basic is in force
		}
		p.found = append(p.found, Finding{try.name, try.level, got})
	}
	return nil
}

// ErrIsolation is in the chain of the error of [Policy.Require].
var ErrIsolation = errors.New("isolation too weak")

// Level returns the level in force: what the self-test saw decides, and for
// Strict also that no layer is missing. Basic before it ran.
func (p *Policy) Level() Level {
	if p.found == nil {
		return Basic
	}
	level := Strict
	for _, f := range p.found {
		if f.Seen != "" && f.Level != Basic && level.AtLeast(f.Level) {
			level = levels[slices.Index(levels, f.Level)-1]
		}
	}
	if level == Strict && len(p.missing()) > 0 {
		level = Container
	}
	if level == Container && !(p.has(Memory) && p.has(Rlimits)) {
		level = Basic
	}
	return level
}

// missing lists the layers that Strict needs and that aren't in force.
func (p *Policy) missing() []string {
	var list []string
	for _, l := range layerNames {
		if !p.has(l) {
			list = append(list, fmt.Sprintf("%s (%v)", l, p.layers[l].why))
		}
	}
	if p.has(Memory) && p.memory.groups == nil {
		list = append(list, "a memory cgroup ("+p.memory.why+")")
	}
	return list
}

// open lists what the self-test got through, below the level it is needed for.
func (p *Policy) open() []string {
	var list []string
	for _, f := range p.found {
		if f.Seen != "" && f.Level != Strict {
			list = append(list, f.Name+" ("+f.Seen+")")
		}
	}
	return list
}

// Require returns an error that says what is missing for a level, and what to
// do, unless it is in force.
func (p *Policy) Require(want Level) error {
	for _, f := range p.found {
		if f.Level == Basic && f.Seen != "" {
			return fmt.Errorf("%w: the self-test got through what every level refuses: %s: %s", ErrIsolation, f.Name, f.Seen)
		}
	}
	have := p.Level()
	if have.AtLeast(want) {
		return nil
	}
	lacks := p.open()
	if want == Strict || !p.has(Memory) {
		lacks = append(lacks, p.missing()...)
	}
	for _, f := range p.found {
		if want == Strict && f.Level == Strict && f.Seen != "" {
			lacks = append(lacks, f.Name+" ("+f.Seen+")")
		}
	}
	return fmt.Errorf("%w: this machine gives %q, the configuration asks for %q; missing: %s; give the worker what is missing, or accept less with --isolation %s",
		ErrIsolation, have, want, strings.Join(lacks, "; "), have)
}

// temporary are the system's directories for temporary files.
var temporary = []string{"/tmp", "/var/tmp", shm}
