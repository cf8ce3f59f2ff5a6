package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/proctree"
)

// memory says how the memory of a job's processes together is bounded.
type memory struct {
	// grouped: by a control group; why says why not.
	grouped bool
	why     string
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
		p.memory.why = errors.New("none").Error()
		return "the processes of a job watched every " + proctree.DefaultInterval.String(), nil
	})
}

// limiter is a cell's means against what its processes use together.
type limiter struct {
	guard *proctree.Guard
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
	return err
}

func (l *limiter) joinFiles() []string { return nil }

func (l *limiter) close() error {
	if l.guard == nil {
		return nil
	}
	return l.guard.Close()
}

// cpuSlack is by how much all processes of a job together may exceed its CPU
// time: a single one is ended by its own limit first, with a signal of its own.
const cpuSlack = 500 * time.Millisecond

// Guard returns what watches the processes of one job for what they use
// together, as pyrunner takes it; nil if nothing does. end is given a [Breach].
func (r *Room) Guard(l Limits) func(server int, end func(any)) (stop func()) {
	c := r.c
	if c.guard == nil {
		return nil
	}
	limits := proctree.Limits{Memory: l.MemoryBytes, CPU: time.Duration(l.CPUTotal)*time.Second + cpuSlack}
	var disk func() (int64, int64, error)
	if at := r.at; at.Usage != nil {
		limits.DiskBytes, limits.DiskFiles = at.DiskBytes, at.DiskFiles
		disk = at.Usage
	}
	return func(server int, end func(any)) func() {
		return c.guard.Start(server, limits, disk, func(b proctree.Breach) { end(b) })
	}
}
