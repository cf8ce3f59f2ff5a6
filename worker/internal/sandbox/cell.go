package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/namespace"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/proctree"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

// Cell is a slot's part of the sandbox: what its fork server is started in, and
// what each of its jobs is confined by. It is for one goroutine at a time.
type Cell struct {
	p    *Policy
	name string
	pid  int // the fork server's, as we see it
	held *landlock.Held
	// keeper is our end of the keeper's socket and theirs the other until the
	// keeper has it; mounted is the place that it has mounted.
	keeper, theirs *os.File
	mounted        mountedPlace
	// rulesets are the Landlock layers of the last places.
	rulesets rulesets
	// usual is where most jobs of the slot run.
	usual *Place
	limiter
}

// NewCell makes a slot's part; the name is unique in the worker.
func (p *Policy) NewCell(name string) (*Cell, error) {
	c := &Cell{p: p, name: name}
	if err := c.limiter.open(p, name); err != nil {
		return nil, fmt.Errorf("make cell %s: %w", name, err)
	}
	return c, nil
}

// Usual says where most jobs will run: processes started from then on have that
// place's environment, so that a job there needn't set it.
func (c *Cell) Usual(at Place) { c.usual = &at }

// Command returns a command that starts a program in the cell, confined.
func (c *Cell) Command(program string, args ...string) *exec.Cmd {
	cmd := c.p.command(c.limiter.joinFiles(), program, args...)
	if c.usual != nil && c.usual.Work != "" {
		for _, v := range c.p.variables(*c.usual) {
			cmd.Env = append(cmd.Env, v[0]+"="+v[1])
		}
	}
	if c.p.keeps() {
		c.release()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			cmd.Err = fmt.Errorf("make keeper's socket: %w", err)
			return cmd
		}
		c.keeper, c.theirs = os.NewFile(uintptr(pair[0]), "keeper"), os.NewFile(uintptr(pair[1]), "requests")
		cmd.ExtraFiles = []*os.File{c.theirs} // behind Control
	}
	return cmd
}

// keeps says whether the fork server has a keeper.
func (p *Policy) keeps() bool { return p.root != nil && p.root.Here != "" }

// mountedPlace is a place's directory, and which one of that name.
type mountedPlace struct {
	dir      string
	dev, ino uint64
}

// visit has the keeper mount a place, unless it has.
func (c *Cell) visit(at Place) error {
	if c.keeper == nil {
		return nil
	}
	dir := filepath.Dir(at.Work)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look at session directory: %w", err)
	}
	now := mountedPlace{dir, st.Dev, st.Ino}
	if now == c.mounted {
		return nil
	}
	c.mounted = mountedPlace{}
	if err := namespace.Ask(c.keeper, c.p.bound(dir)); err != nil {
		return fmt.Errorf("mount session: %w", err)
	}
	c.mounted = now
	return nil
}

// Started tells the cell its fork server, which has executed its interpreter.
func (c *Cell) Started(pid int) error {
	if c.held != nil {
		c.held.Close()
		c.held = nil
	}
	c.rulesets.close()
	if c.theirs != nil {
		c.theirs.Close()
		c.theirs = nil
		children, err := proctree.Descendants(pid)
		if err != nil || len(children) == 0 {
			return fmt.Errorf("find the fork server beneath its keeper: %w", errors.Join(err, errNoChild))
		}
		pid = children[0]
	}
	c.pid = pid
	if !c.p.has(SessionLandlock) {
		return nil
	}
	root := ""
	if c.p.kind != namespace.None {
		root = fmt.Sprintf("/proc/%d/root", c.pid)
	}
	held, err := c.p.files.HoldIn(root)
	if err != nil {
		return fmt.Errorf("hold the runtime of cell %s: %w", c.name, err)
	}
	c.held = held
	return nil
}

func (c *Cell) release() {
	if c.held != nil {
		c.held.Close()
		c.held = nil
	}
	c.rulesets.close()
	for _, f := range [...]**os.File{&c.keeper, &c.theirs} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
	c.mounted = mountedPlace{}
}

var errNoChild = errors.New("no child")

// Confined reports whether signals from the fork server reach nothing but the
// processes of its slot: then it can end all of them at once.
func (c *Cell) Confined() bool {
	return c.p.kind != namespace.None || c.p.files != nil && c.p.abi >= 6
}

// Blocked answers one system call that waits at the listener that the launcher
// sent: it is refused, and its name returned; "" if none waits any more.
func Blocked(listener int) string {
	call, _ := seccomp.Refuse(listener)
	return call
}

// Delay is how long a process beneath the fork server has waited for a processor.
func Delay(server int) time.Duration { return proctree.Delay(server) }

// Close gives up what the cell holds. Its fork server has ended.
func (c *Cell) Close() error {
	c.release()
	return c.limiter.close()
}

// Place is where and as whom a job runs.
type Place struct {
	// UID and GID of the session; -1 keeps the worker's.
	UID, GID int
	// Work, Tmp and Home are absolute paths, made and owned already.
	Work, Tmp, Home string
	// Usage measures what they hold, while a job runs; DiskBytes and DiskFiles
	// are the most they may hold, 0 for no limit. nil: not measured.
	Usage                func() (bytes, files int64, err error)
	DiskBytes, DiskFiles int64
}

// Limits of one job.
type Limits struct {
	// CPUSeconds is the first process' soft limit; the hard limit is
	// CPUTotal+1 for all cases it may run. Both a process, not a tree.
	CPUSeconds, CPUTotal int
	// MemoryBytes bounds the address space of each process.
	MemoryBytes int64
}

// Room is a place prepared for the processes of one job.
type Room struct {
	c  *Cell
	at Place
	// Ruleset is a descriptor that a process of the job puts in force on
	// itself, -1 if there is none. It is the cell's, good until the room is closed.
	Ruleset int
}

// Open prepares a place for a job. The caller closes the room after it.
func (c *Cell) Open(at Place) (*Room, error) {
	r := &Room{c: c, at: at, Ruleset: -1}
	if c.p.shm != nil {
		c.p.shm.enter(at.UID)
	}
	if err := r.Renew(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Renew prepares the place anew, after the cell got another fork server.
func (r *Room) Renew() error {
	if err := r.c.visit(r.at); err != nil {
		return err
	}
	if r.c.held == nil {
		return nil
	}
	var err error
	if r.Ruleset, err = r.c.rulesets.of(r.c.held, r.at); err != nil {
		return fmt.Errorf("confine to a session: %w", err)
	}
	return nil
}

// Work is the working directory as the job sees it.
func (r *Room) Work() string { return r.c.p.Inside(r.at.Work) }

// Close gives the room up. The processes of its job have ended.
func (r *Room) Close() {
	if r.c.p.shm != nil {
		r.c.p.shm.leave(r.at.UID)
	}
	r.Ruleset = -1
}

// Confine returns the confinement that the child's enter() takes, as marshal
// data: see enter.py.
func (r *Room) Confine(l Limits) []byte {
	p, at := r.c.p, r.at
	uid, gid := at.UID, at.GID
	if !p.has(Users) {
		uid, gid = -1, -1
	}
	b := make([]byte, 0, 512)
	b = pymarshal.AppendTuple(b, 6)
	b = pymarshal.AppendInt(b, int64(uid))
	b = pymarshal.AppendInt(b, int64(gid))
	b = pymarshal.AppendString(b, p.Inside(at.Work))
	b = r.limits(b, l)
	tmp := p.Inside(at.Tmp)
	b = pymarshal.AppendDict(b, p.variables(at))
	if p.root != nil {
		b = pymarshal.AppendTuple(b, 2)
		b = pymarshal.AppendString(b, jobTemp)
		b = pymarshal.AppendString(b, tmp)
	} else {
		b = pymarshal.AppendNone(b)
	}
	return b
}

// variables is what the environment of a place's jobs has in addition.
func (p *Policy) variables(at Place) [][2]string {
	tmp := p.Inside(at.Tmp)
	return [][2]string{
		{"HOME", p.Inside(at.Home)}, {"TMPDIR", tmp}, {"TMP", tmp}, {"TEMP", tmp}, {"PWD", p.Inside(at.Work)},
	}
}

// limits are those that differ from job to job, or that the fork server can't
// have itself: as root it isn't counted, but it must be able to fork.
func (r *Room) limits(b []byte, l Limits) []byte {
	p := r.c.p
	if !p.has(Rlimits) {
		return pymarshal.AppendTuple(b, 0)
	}
	processes := int64(p.Processes)
	if p.kind != namespace.AsUser {
		// In a user namespace, only its own are counted: user_namespaces(7).
		processes += int64(p.baseTasks)
	}
	limits := [...]struct {
		resource   int
		soft, hard int64
	}{
		{unix.RLIMIT_CPU, int64(l.CPUSeconds), int64(l.CPUTotal) + 1},
		{unix.RLIMIT_AS, l.MemoryBytes, l.MemoryBytes},
		{unix.RLIMIT_NPROC, processes, processes},
	}
	b = pymarshal.AppendTuple(b, len(limits))
	for _, x := range limits {
		b = pymarshal.AppendTuple(b, 3)
		b = pymarshal.AppendInt(b, int64(x.resource))
		b = pymarshal.AppendInt(b, x.soft)
		b = pymarshal.AppendInt(b, x.hard)
	}
	return b
}
