package landlock

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultMinABI is the ABI version that a policy needs when it names none: the
// first with everything that the sandbox promises.
const DefaultMinABI = 6

// Policy is what a process may use; everything else that the kernel's ABI
// version can refuse is refused. The zero Policy allows nothing. All paths are
// absolute and clean; a directory stands for the tree beneath it. A path may be
// in several lists: it gets the rights of all.
type Policy struct {
	// ReadExecute: files may be read and executed, directories listed.
	ReadExecute []string `json:"read_execute,omitempty"`
	// ReadOnly: files may be read, directories listed.
	ReadOnly []string `json:"read_only,omitempty"`
	// ReadWrite lists directories where everything may be done but make device
	// nodes. The directory itself can't be a symbolic link, so that whoever
	// owns its parent can't point it elsewhere.
	ReadWrite []string `json:"read_write,omitempty"`
	// ReadWriteFiles lists files, such as /dev/null, that may be opened for
	// reading and writing, without ioctls that are the device's own.
	ReadWriteFiles []string `json:"read_write_files,omitempty"`
	// Shared lists directories that others use too, such as /dev/shm: files in
	// them may be made, used and removed by name; the directory can't be
	// listed, and nothing but files can be made there.
	Shared []string `json:"shared,omitempty"`
	// Optional lists those paths of the lists above that may be missing; a rule
	// for a missing one is left out. Any other missing path is an error.
	Optional []string `json:"optional,omitempty"`
	// MinABI is the least ABI version of the kernel that will do; on an older
	// one nothing is restricted and an [ErrUnavailable] is returned. 0 means
	// [DefaultMinABI]. 1 takes what there is: see what [Policy.String] says of it.
	MinABI int `json:"min_abi,omitempty"`
}

// What the system's part of a runtime is. Not here, for a reason: /tmp, /var,
// /run, /home, /root (not part of a runtime), /opt (an interpreter there comes
// with its own directories), /dev/tty, /dev/ptmx and /dev/shm (shared with
// everybody; a private one goes to ReadWrite).
var (
	systemExecute = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	// BLAS libraries count processors in /sys. Secrets in /etc are kept by the
	// permissions of their files.
	systemRead    = []string{"/etc", "/proc", "/sys/devices/system/cpu"}
	systemDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
)

// Runtime returns a policy that lets programs run and write nothing: the
// system's programs, libraries and settings, /proc, the harmless devices, and
// the directories that an interpreter loads from (its prefix and sys.path).
// Those that don't exist are left out, as interpreters do. So are those that
// lie inside another one: every rule costs each child some time.
func Runtime(interpreter ...string) Policy {
	p := Policy{
		ReadOnly:       slices.Clone(systemRead),
		ReadWriteFiles: slices.Clone(systemDevices),
		// Not in every container.
		Optional: []string{"/sys/devices/system/cpu"},
	}
	for _, path := range slices.Concat(systemExecute, interpreter) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || slices.ContainsFunc(p.ReadExecute, func(dir string) bool { return within(dir, real) }) {
			continue
		}
		p.ReadExecute = append(slices.DeleteFunc(p.ReadExecute, func(dir string) bool { return within(real, dir) }), real)
	}
	return p
}

// within says whether a clean path is dir or lies beneath it.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Writable returns a copy of the policy in which dirs are all that may be
// written beside ReadWriteFiles.
func (p Policy) Writable(dirs ...string) Policy {
	p.ReadWrite = slices.Clone(dirs)
	return p
}

// lists returns the lists of paths with their names and the rights they give.
func (p Policy) lists() [5]list {
	return [5]list{
		{"ReadExecute", "read+execute", p.ReadExecute, readExecute},
		{"ReadOnly", "read", p.ReadOnly, readOnly},
		{"ReadWrite", "all", p.ReadWrite, readWrite},
		{"ReadWriteFiles", "read+write files", p.ReadWriteFiles, readWriteFile},
		{"Shared", "files by name in", p.Shared, sharedDir},
	}
}

type list struct {
	field, label string
	paths        []string
	rights       uint64
}

// validate checks the policy as such, without a look at the file system.
func (p Policy) validate() error {
	var all []string
	for _, l := range p.lists() {
		for _, path := range l.paths {
			if !filepath.IsAbs(path) || filepath.Clean(path) != path {
				return fmt.Errorf("landlock policy: %s has the path %q: give an absolute path without \"..\", \"//\" or a slash at its end", l.field, path)
			}
		}
		all = append(all, l.paths...)
	}
	for _, path := range p.Optional {
		if !slices.Contains(all, path) {
			return fmt.Errorf("landlock policy: Optional has the path %q, which no other list has: add it to one or remove it", path)
		}
	}
	if p.MinABI < 0 || p.MinABI > Newest {
		return fmt.Errorf("landlock policy: MinABI is %d: give 1 to %d, or 0 for %d", p.MinABI, Newest, DefaultMinABI)
	}
	return nil
}

// minABI is MinABI with its default.
func (p Policy) minABI() int {
	if p.MinABI == 0 {
		return DefaultMinABI
	}
	return p.MinABI
}

// String says in one line what the policy allows and refuses on this kernel. A
// path with a question mark is allowed if it exists.
func (p Policy) String() string {
	abi, err := ABI()
	if err != nil {
		return "landlock: not in force: " + err.Error()
	}
	return p.describe(min(abi, Newest))
}

// describe is String for an ABI version.
func (p Policy) describe(abi int) string {
	if least := p.minABI(); abi < least {
		return fmt.Sprintf("landlock: not in force: the kernel has ABI %d, the policy needs %d", abi, least)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "landlock ABI %d:", abi)
	for _, l := range p.lists() {
		if len(l.paths) == 0 {
			continue
		}
		fmt.Fprintf(&b, " %s", l.label)
		for _, path := range l.paths {
			b.WriteByte(' ')
			b.WriteString(path)
			if slices.Contains(p.Optional, path) {
				b.WriteByte('?')
			}
		}
		b.WriteByte(';')
	}
	b.WriteString(" all other files refused")
	if abi < 2 {
		b.WriteString(", every rename between directories refused")
	}
	var missing []string
	for _, f := range features {
		switch {
		case abi < f.abi:
			missing = append(missing, fmt.Sprintf("%s (ABI %d)", f.name, f.abi))
		case f.outward:
			fmt.Fprintf(&b, ", %s to outside refused", f.name)
		default:
			fmt.Fprintf(&b, ", %s refused", f.name)
		}
	}
	if missing != nil {
		fmt.Fprintf(&b, "; not covered: %s", strings.Join(missing, ", "))
	}
	return b.String()
}
