package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is in the chain of the error of a limit that is below what is in use.
// The old limit stays.
var ErrBusy = errors.New("more is in use")

// ErrUnsupported is in the chain where the kernel doesn't have it.
var ErrUnsupported = errors.ErrUnsupported

// Group is a group of its own in each hierarchy. Its methods may be called
// concurrently, Close excepted.
type Group struct {
	root *Root
	name string
	dirs []string

	mu sync.Mutex // for all below
	// Open files, -1 where the kernel has none.
	limit, swap, usage, peak, events, pids, cpu int
	resettable                                  bool  // whether peak is
	memory                                      int64 // in force, in bytes; 0 for none
	processes                                   int   // in force; 0 for none
	scratch                                     [512]byte
}

// New makes a group. It is an error if there is one of that name: see [Root.Sweep].
func (r *Root) New(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	g := r.group(name)
	for i, dir := range g.dirs {
		if err := r.mkdir(dir); err != nil {
			g.dirs = g.dirs[:i] // the others are not ours
			return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), g.Close())
		}
	}
	if err := g.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open cgroup: %w", err), g.Close())
	}
	return g, nil
}

// group is a group without open files.
func (r *Root) group(name string) *Group {
	return &Group{root: r, name: name, dirs: r.dirs(name), limit: -1, swap: -1, usage: -1, peak: -1, events: -1, pids: -1, cpu: -1}
}

// open opens the files that are used for each job.
func (g *Group) open() error {
	r, f := g.root, g.root.files
	for _, o := range []struct {
		fd    *int
		base  string
		file  string
		flags int
		must  bool
	}{
		{&g.limit, r.bases[0], f.limit, unix.O_RDWR, true},
		{&g.swap, r.bases[0], f.swap, unix.O_RDWR, false},
		{&g.usage, r.bases[0], f.usage, unix.O_RDONLY, true},
		{&g.peak, r.bases[0], f.peak, unix.O_RDWR, false},
		{&g.events, r.bases[0], f.events, unix.O_RDWR, true},
		{&g.pids, r.bases[1], f.pids, unix.O_RDWR, true},
		{&g.cpu, r.bases[2], f.cpu, unix.O_RDONLY, false},
	} {
		if o.base == "" {
			continue
		}
		path := filepath.Join(o.base, g.name, o.file)
		fd, err := unix.Open(path, o.flags|unix.O_CLOEXEC, 0)
		if o.fd == &g.peak {
			g.resettable = err == nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && o.flags == unix.O_RDWR {
			fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) // what the kernel lets be read only
		}
		if err == nil {
			*o.fd = fd
		} else if o.must {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return g.preferKilling()
}

// preferKilling sees to it that who needs more memory than there is, is killed:
// it neither waits nor swaps.
func (g *Group) preferKilling() error {
	dir := filepath.Join(g.root.bases[0], g.name)
	if g.root.files.version == 1 {
		// A group inherits a 1, which has processes wait for ever.
		if n, ok := g.counter(g.events, "oom_kill_disable"); ok && n != 0 {
			if err := g.write(g.events, "0"); err != nil {
				return fmt.Errorf("enable the OOM killer: %w", err)
			}
		}
		if g.swap < 0 { // swap can't be limited, but not used for this group
			if err := writeFile(filepath.Join(dir, "memory.swappiness"), "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("turn off swap: %w", err)
			}
		}
		return nil
	}
	if g.swap >= 0 {
		if err := g.write(g.swap, "0"); err != nil {
			return fmt.Errorf("turn off swap: %w", err)
		}
	}
	return nil
}

// JoinFiles are the files into which a process writes 0 to join the group, all
// of them, by absolute path.
func (g *Group) JoinFiles() []string {
	files := make([]string, len(g.dirs))
	for i, dir := range g.dirs {
		files[i] = filepath.Join(dir, "cgroup.procs")
	}
	return files
}

// Limit sets how much memory the group may use, in bytes, and how many
// processes and threads it may have; 0 means no limit. What is in force already
// costs nothing. An error with [ErrBusy] means that so much memory is in use
// and can't be freed; the old limit of memory stays then.
func (g *Group) Limit(memoryBytes int64, processes int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if memoryBytes != g.memory {
		if err := g.limitMemory(memoryBytes); err != nil {
			return fmt.Errorf("limit memory of cgroup %s to %d bytes: %w", g.name, memoryBytes, err)
		}
		g.memory = memoryBytes
	}
	if processes != g.processes {
		if err := g.limitProcesses(processes); err != nil {
			return fmt.Errorf("limit cgroup %s to %d processes: %w", g.name, processes, err)
		}
		g.processes = processes
	}
	return nil
}

func (g *Group) limitProcesses(n int) error {
	if n <= 0 {
		return g.write(g.pids, "max")
	}
	return g.writeNumber(g.pids, int64(n))
}

// limitMemory writes a limit of memory.
func (g *Group) limitMemory(n int64) error {
	lower := n > 0 && (g.memory == 0 || n < g.memory)
	if g.root.files.version == 2 {
		if lower {
			if err := g.makeRoom(n); err != nil {
				return err
			}
		}
		return g.writeMemory(g.limit, n)
	}
	// v1 wants memory, and memory and swap together, in order: at no time may
	// the first be above the second.
	if g.swap >= 0 && !lower {
		if err := g.writeMemory(g.swap, n); err != nil {
			return err
		}
	}
	err := g.writeMemory(g.limit, n)
	if err == unix.EBUSY {
		// The kernel tried to free what is above and gave up; a thorough try is
		// another file's.
		if empty := writeFile(filepath.Join(g.root.bases[0], g.name, "memory.force_empty"), "0"); empty == nil {
			err = g.writeMemory(g.limit, n)
		}
	}
	if err == nil && g.swap >= 0 && lower {
		if err = g.writeMemory(g.swap, n); err != nil {
			err = errors.Join(err, g.writeMemory(g.limit, g.memory))
		}
	}
	if errors.Is(err, unix.EBUSY) {
		used, _ := g.number(g.usage)
		return fmt.Errorf("%w: %d bytes: %w", ErrBusy, used, err)
	}
	return err
}

// makeRoom refuses a v2 limit that the kernel would kill for.
func (g *Group) makeRoom(n int64) error {
	used, err := g.number(g.usage)
	if err != nil || used <= n {
		return err
	}
	// Page cache can go; without the file (before 5.19) what is in use counts.
	writeFile(filepath.Join(g.root.bases[0], g.name, "memory.reclaim"), strconv.FormatInt(used-n, 10))
	if used, err = g.number(g.usage); err != nil || used <= n {
		return err
	}
	return fmt.Errorf("%w: %d bytes", ErrBusy, used)
}

func (g *Group) writeMemory(fd int, n int64) error {
	if n <= 0 {
		return g.write(fd, g.root.files.unlimited)
	}
	return g.writeNumber(fd, n)
}

// Usage returns the memory in use, in bytes, page cache among it.
func (g *Group) Usage() (current int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if current, err = g.number(g.usage); err != nil {
		return 0, fmt.Errorf("read memory use of cgroup %s: %w", g.name, err)
	}
	return current, nil
}

// Peak returns the most memory that was in use since the last ResetPeak, or
// ever without one, in bytes, page cache among it.
func (g *Group) Peak() (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.number(g.peak)
	if err != nil {
		return 0, fmt.Errorf("read peak memory of cgroup %s: %w", g.name, err)
	}
	return n, nil
}

// ResetPeak begins the peak anew, with what is in use now. v2 before Linux 6.12
// can't: [ErrUnsupported].
func (g *Group) ResetPeak() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := ErrUnsupported
	if g.resettable {
		err = g.write(g.peak, "0")
	}
	if err != nil {
		return fmt.Errorf("reset peak memory of cgroup %s: %w", g.name, err)
	}
	return nil
}

// OOMKills returns how many processes of the group were killed for want of
// memory, ever.
func (g *Group) OOMKills() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, ok := g.counter(g.events, "oom_kill")
	if !ok {
		return 0, fmt.Errorf("read OOM kills of cgroup %s: %w", g.name, ErrUnsupported)
	}
	return uint64(n), nil
}

// CPU returns the user and system time of all that was ever in the group, to
// the nanosecond (v1) or microsecond (v2). [ErrUnsupported] where v1 has no
// cpuacct for us.
func (g *Group) CPU() (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.root.files.version == 2 {
		if n, ok := g.counter(g.cpu, "usage_usec"); ok {
			return time.Duration(n) * time.Microsecond, nil
		}
		return 0, fmt.Errorf("read CPU time of cgroup %s: %w", g.name, ErrUnsupported)
	}
	n, err := g.number(g.cpu)
	if err != nil {
		return 0, fmt.Errorf("read CPU time of cgroup %s: %w", g.name, err)
	}
	return time.Duration(n), nil
}

// write writes a file of the group.
func (g *Group) write(fd int, s string) error {
	return pwrite(fd, append(g.scratch[:0], s...))
}

func (g *Group) writeNumber(fd int, n int64) error {
	return pwrite(fd, append(strconv.AppendInt(g.scratch[:0], n, 10), '\n'))
}

// pwrite writes from the beginning, again when a signal interrupted it: a limit
// of memory has the kernel free what is above, which it leaves with EINTR even
// for those with SA_RESTART, and Go's scheduler sends such signals.
func pwrite(fd int, data []byte) error {
	for {
		if _, err := unix.Pwrite(fd, data, 0); err != unix.EINTR {
			return err
		}
	}
}

// read reads a file of the group; the result is good until the next call.
func (g *Group) read(fd int) ([]byte, error) {
	if fd < 0 {
		return nil, ErrUnsupported
	}
	n, err := unix.Pread(fd, g.scratch[:], 0)
	return g.scratch[:max(n, 0)], err
}

// number reads a file that is one number.
func (g *Group) number(fd int) (int64, error) {
	data, err := g.read(fd)
	if err != nil {
		return 0, err
	}
	return parse(data)
}

// counter reads the number after a name in a file with one such pair a line.
func (g *Group) counter(fd int, name string) (int64, bool) {
	data, err := g.read(fd)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(data) {
		if len(line) > len(name) && line[len(name)] == ' ' && string(line[:len(name)]) == name {
			n, err := parse(line[len(name)+1:])
			return n, err == nil
		}
	}
	return 0, false
}

// parse takes the decimal number at the beginning.
func parse(data []byte) (int64, error) {
	n, i := int64(0), 0
	for ; i < len(data) && data[i] >= '0' && data[i] <= '9'; i++ {
		n = n*10 + int64(data[i]-'0')
	}
	if i == 0 {
		return 0, fmt.Errorf("no number: %q", data)
	}
	return n, nil
}

// closeFiles closes what open opened.
func (g *Group) closeFiles() {
	for _, fd := range [...]*int{&g.limit, &g.swap, &g.usage, &g.peak, &g.events, &g.pids, &g.cpu} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
