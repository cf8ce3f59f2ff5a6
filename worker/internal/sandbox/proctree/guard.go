package proctree

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What a Guard does if its Options don't say.
const (
	DefaultInterval     = 50 * time.Millisecond
	DefaultDiskInterval = 500 * time.Millisecond
	DefaultFall         = 32 << 20 // bytes
)

// share is how much of a core looking may take: after a look comes a pause of
// so many times what it took. Memory and disk have one such share each, so
// together they stay below 5 %.
const share = 40

// again is after how long a tree that is over its memory limit is looked at a
// second time: the two processes of a vfork seem to have twice the memory.
const again = 5 * time.Millisecond

// Limits of one job. Zero means no limit.
type Limits struct {
	// Memory is the resident memory of the whole tree, in bytes; see
	// [MeasureExact]; files in memory are looked for every DiskInterval only.
	Memory int64
	// CPU is user and system time of the whole tree. What root collects before
	// the first look counts as spent before the job.
	CPU time.Duration
	// DiskBytes and DiskFiles bound what the disk function finds, and the
	// deleted files that are still open.
	DiskBytes, DiskFiles int64
	// Starved tells whether the kernel has ended a process of the job for want of
	// memory: between two looks it may be quicker, and what is left within the limit.
	// May be nil; must not block.
	Starved func() bool
}

// Kind is the name of a limit.
type Kind string

// What a tree can be over.
const (
	Memory    Kind = "memory"
	CPU       Kind = "cpu"
	DiskBytes Kind = "disk bytes"
	DiskFiles Kind = "disk files"
)

// Breach says which limit a tree is over: Value and Limit are bytes, files, or
// nanoseconds of CPU time. Value is 0 where the kernel has acted on the limit of
// memory.
type Breach struct {
	Kind         Kind
	Value, Limit int64
}

// Options of a Guard; zero values mean the defaults above.
type Options struct {
	// Dir is a directory on the file system that jobs write to; its free space
	// says when to look at a job's files early. Empty: only every DiskInterval.
	Dir string
	// Interval is the time to the first look, and between looks at memory and CPU.
	Interval time.Duration
	// DiskInterval is the time between looks at files and at memory that is in
	// no process.
	DiskInterval time.Duration
	// Fall is how much less free space makes a look at files due, in bytes.
	Fall int64
	// Fault is called, at most once a job, when a look failed; the Guard goes
	// on. May be nil. Like the callback for a breach, it must not block.
	Fault func(error)
}

// Guard watches the tree of one slot's root, one job after the other.
type Guard struct {
	o  Options
	fd int // of Dir, -1 without
}

// NewGuard returns a Guard. It has no goroutine while no job is long.
func NewGuard(o Options) (*Guard, error) {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.DiskInterval == 0 {
		o.DiskInterval = DefaultDiskInterval
	}
	if o.Fall == 0 {
		o.Fall = DefaultFall
	}
	g := &Guard{o: o, fd: -1}
	if o.Dir != "" {
		fd, err := open(o.Dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, fmt.Errorf("watch free space: %w", err)
		}
		g.fd = fd
	}
	return g, nil
}

// Close frees what the Guard has. No job may be watched any more.
func (g *Guard) Close() error {
	if g.fd < 0 {
		return nil
	}
	return unix.Close(g.fd)
}

// free returns the free bytes of the file system.
func (g *Guard) free() int64 {
	var fs unix.Statfs_t
	if g.fd < 0 || unix.Fstatfs(g.fd, &fs) != nil {
		return 0
	}
	return int64(fs.Bfree) * int64(fs.Bsize)
}

// watch is one job. What is below mu belongs to whoever holds it: the look, or
// stop once no look runs.
type watch struct {
	g      *Guard
	root   int
	limits Limits
	disk   func() (bytes, files int64, err error)
	breach func(Breach)
	began  time.Time
	// stopping makes a look end early.
	stopping atomic.Bool

	mu       sync.Mutex
	done     bool
	timer    *time.Timer
	looked   bool          // whether reaped is known
	reaped   time.Duration // root's, before the job
	over     bool          // whether memory was over the limit in the last look
	free     int64         // at the last look at the files
	diskTime time.Time     // of the next look at the files
	diskRest time.Time     // before which none may be
	unnamed  int64         // memory in files without a name, at that look
	faulted  bool
}

// Start watches the tree beneath root until it is over a limit or stop is
// called. disk returns what the job has on disk, as a walk of its directories
// finds it; it may be nil. breach is called at most once, from a goroutine of
// the Guard's; it must neither block nor call stop. When stop returns, neither
// function runs nor will be called; it may be called more than once.
func (g *Guard) Start(root int, limits Limits, disk func() (bytes, files int64, err error), breach func(Breach)) (stop func()) {
	return g.start(root, limits, disk, breach).stop
}

func (g *Guard) start(root int, limits Limits, disk func() (bytes, files int64, err error), breach func(Breach)) *watch {
	w := &watch{g: g, root: root, limits: limits, disk: disk, breach: breach, began: time.Now()}
	if w.watchesDisk() {
		w.free = g.free()
	}
	w.mu.Lock() // the timer's function needs to know its timer
	w.timer = time.AfterFunc(g.o.Interval, w.look)
	w.mu.Unlock()
	return w
}

func (w *watch) watchesDisk() bool { return w.limits.DiskBytes > 0 || w.limits.DiskFiles > 0 }

func (w *watch) stop() {
	w.stopping.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}

// look is one look at the tree; it sets the timer for the next.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	r := readers.Get().(*reader)
	defer readers.Put(r)
	begin := time.Now()
	b, err := w.lookAtProcesses(r)
	pause := max(w.g.o.Interval, share*time.Since(begin))
	if w.over {
		pause = again
	}
	if b == (Breach{}) && err == nil && !w.stopping.Load() && w.diskDue() {
		b, err = w.lookAtFiles(r)
	}
	switch {
	case w.stopping.Load():
		w.done = true
	case b != Breach{}:
		w.done = true
		w.breach(b)
	case gone(err): // root is: nothing is left to watch
		w.done = true
	default:
		if err != nil {
			w.fault(err)
		}
		w.timer.Reset(pause)
	}
}

// fault reports an error, if it is the job's first.
func (w *watch) fault(err error) {
	if !w.faulted && w.g.o.Fault != nil {
		w.faulted = true
		w.g.o.Fault(fmt.Errorf("watch process tree: %w", err))
	}
}

// lookAtProcesses looks at CPU time and memory.
func (w *watch) lookAtProcesses(r *reader) (Breach, error) {
	if w.limits.CPU == 0 && w.limits.Memory == 0 {
		return Breach{}, nil
	}
	top, procs, err := r.walk(w.root)
	if err != nil {
		return Breach{}, err
	}
	u := r.sum(top, procs)
	if !w.looked {
		w.looked, w.reaped = true, top.reaped
	}
	if used := u.CPU - w.reaped; w.limits.CPU > 0 && used > w.limits.CPU {
		return Breach{CPU, int64(used), int64(w.limits.CPU)}, nil
	}
	if w.limits.Starved != nil && w.limits.Starved() {
		return Breach{Memory, 0, w.limits.Memory}, nil
	}
	over := false
	if limit := w.limits.Memory; limit > 0 && u.MemoryBytes+w.unnamed > limit {
		exact := r.exact(top, procs, w.unnamed)
		over = exact > limit
		if over && w.over {
			return Breach{Memory, exact, limit}, nil
		}
	}
	w.over = over
	return Breach{}, nil
}

// diskDue says whether it is time to look at files: seldom, or when the file
// system got fuller by much.
func (w *watch) diskDue() bool {
	if !w.watchesDisk() && w.limits.Memory == 0 {
		return false
	}
	now := time.Now()
	if w.diskTime.IsZero() {
		w.diskTime = w.began.Add(w.g.o.DiskInterval)
	}
	if now.Before(w.diskRest) {
		return false
	}
	return !now.Before(w.diskTime) || w.watchesDisk() && w.free-w.g.free() > w.g.o.Fall
}

// lookAtFiles looks at the files with and without a name.
func (w *watch) lookAtFiles(r *reader) (Breach, error) {
	begin := time.Now()
	free := w.g.free()
	defer func() {
		now := time.Now()
		rest := share * now.Sub(begin)
		w.free, w.diskRest, w.diskTime = free, now.Add(rest), now.Add(max(w.g.o.DiskInterval, rest))
	}()
	_, procs, err := r.walk(w.root)
	if err != nil {
		return Breach{}, err
	}
	h := r.held(procs)
	w.unnamed = h.memoryBytes
	if !w.watchesDisk() {
		return Breach{}, nil
	}
	size, files := h.diskBytes, int64(h.diskFiles)
	if w.disk != nil && !w.stopping.Load() {
		more, n, err := w.disk()
		if err != nil {
			w.fault(fmt.Errorf("measure files: %w", err))
		}
		size, files = size+more, files+n
	}
	switch l := w.limits; {
	case l.DiskBytes > 0 && size > l.DiskBytes:
		return Breach{DiskBytes, size, l.DiskBytes}, nil
	case l.DiskFiles > 0 && files > l.DiskFiles:
		return Breach{DiskFiles, files, l.DiskFiles}, nil
	}
	return Breach{}, nil
}
