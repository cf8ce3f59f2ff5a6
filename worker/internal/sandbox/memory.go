package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/cgroup"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/proctree"
)

// memory says how the memory of a job's processes together is bounded.
type memory struct {
	// groups: by a control group for each slot; why says why not.
	groups *cgroup.Root
	why    string
}

// Breach says which limit of all its processes together a job is over.
type Breach = proctree.Breach

// BreachKind is what a job can have too much of.
type BreachKind = proctree.Kind

// The kinds of breaches.
const (
	BreachMemory    = proctree.Memory
	BreachCPU       = proctree.CPU
	BreachDiskBytes = proctree.DiskBytes
	BreachDiskFiles = proctree.DiskFiles
)

func (p *Policy) memoryLayer() {
	p.try(Memory, func() (string, error) {
		if _, err := proctree.Measure(os.Getpid()); err != nil {
			return "", fmt.Errorf("watch processes: %w", err)
		}
		watched := "the processes of a job watched every " + proctree.DefaultInterval.String()
		groups, err := cgroup.Find()
		if err == nil {
			// What a worker of this name left when it died.
			_, err = groups.Sweep(p.groupPrefix())
		}
		if err != nil {
			p.memory.why = err.Error()
			return watched + "; no control group: " + err.Error(), nil
		}
		p.memory.groups = groups
		return groups.String() + " for each slot; " + watched, nil
	})
}

// groupPrefix begins the names of the worker's control groups, and of no other's.
func (p *Policy) groupPrefix() string { return "gradefleet-" + p.Name + "-" }

// limiter is a cell's means against what its processes use together.
type limiter struct {
	guard *proctree.Guard
	// group is the slot's control group, nil if there are none; killed is how
	// many of its processes had been ended for want of memory, as last read.
	group  *cgroup.Group
	killed uint64
}

func (l *limiter) open(p *Policy, name string) error {
	if !p.has(Memory) {
		return nil
	}
	dir := ""
	if len(p.Writable) > 0 {
		dir = p.Writable[0]
	}
	var err error
	l.guard, err = proctree.NewGuard(proctree.Options{Dir: dir, Fault: func(err error) { p.log("watch job", err) }})
	if err == nil && p.memory.groups != nil {
		if l.group, err = p.memory.groups.New(p.groupPrefix() + name); err == nil {
			l.killed, err = l.group.OOMKills()
		}
	}
	return err
}

func (l *limiter) joinFiles() []string {
	if l.group == nil {
		return nil
	}
	return l.group.JoinFiles()
}

func (l *limiter) close() error {
	var errs []error
	if l.guard != nil {
		errs = append(errs, l.guard.Close())
	}
	if l.group != nil {
		errs = append(errs, l.group.Close())
	}
	return errors.Join(errs...)
}

// What a slot's group may have beyond its job's limits: the fork server itself
// and a child ahead of need, and what the watch, which tells more, takes to see
// a job over its limit.
const (
	groupSlackBytes     = 64 << 20
	groupSlackProcesses = 8
)

// bound sets the group's limits for a job; free of cost when they stay.
func (l *limiter) bound(p *Policy, limits Limits) {
	if l.group == nil {
		return
	}
	if err := l.group.Limit(limits.MemoryBytes+groupSlackBytes, p.Processes+groupSlackProcesses); err != nil {
		p.log("limit control group", err) // the watch is there still
	}
}

// OutOfMemory reports whether the kernel has ended processes of the slot for
// want of memory since it was last asked.
func (r *Room) OutOfMemory() bool {
	l := &r.c.limiter
	if l.group == nil {
		return false
	}
	n, err := l.group.OOMKills()
	if err != nil {
		r.c.p.log("read control group", err)
		return false
	}
	more := n > l.killed
	l.killed = n
	return more
}

// cpuSlack is by how much all processes of a job together may exceed its CPU
// time: a single one is ended by its own limit first, with a signal of its own.
const cpuSlack = 500 * time.Millisecond

// Guard returns what watches the processes of one job for what they use
// together, as pyrunner takes it; nil if nothing does. end is given a [Breach].
func (r *Room) Guard(l Limits) func(server int, end func(any)) (stop func()) {
	c := r.c
	c.bound(c.p, l)
	if c.guard == nil {
		return nil
	}
	limits := proctree.Limits{Memory: l.MemoryBytes, CPU: time.Duration(l.CPUTotal)*time.Second + cpuSlack}
	var disk func() (int64, int64, error)
	if at := r.at; at.Usage != nil {
		limits.DiskBytes, limits.DiskFiles = at.DiskBytes, at.DiskFiles
		disk = at.Usage
		if shm := c.p.shm; shm != nil {
			disk = func() (int64, int64, error) {
				bytes, files, err := at.Usage()
				b, f := shm.usage(at.UID)
				return bytes + b, files + f, err
			}
		}
	}
	return func(_ int, end func(any)) func() {
		limits := limits
		if c.group != nil {
			r.OutOfMemory() // what was ended before is no fault of this job
			before := c.killed
			limits.Starved = func() bool {
				n, err := c.group.OOMKills()
				return err == nil && n > before
			}
		}
		return c.guard.Start(c.pid, limits, disk, func(b proctree.Breach) { end(b) })
	}
}
