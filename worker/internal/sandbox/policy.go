package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

// Path is the PATH of submissions, behind the directory that the policy puts
// in front of it.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Level names how much isolation is in force.
type Level string

// The levels, least first.
const (
	// Basic is rlimits, no_new_privs, a watched wall clock and clean-up, a user
	// for each session when the worker runs as root, and Landlock and seccomp
	// where the kernel has them.
	Basic Level = "basic"
)

// Policy is what the worker enforces on every child.
type Policy struct {
	// Users says that each session has a user of its own.
	Users bool
	// Bin is put in front of Path for submissions; may be empty.
	Bin string
	// Runtime lists directories, beside the system's, that programs are run and
	// loaded from; Writable those that hold the directories of jobs.
	Runtime, Writable []string
	// Processes, OpenFiles: limits of a job; FileBytes: of a file it writes.
	Processes, OpenFiles int
	FileBytes            int64
	// baseTasks is how many tasks the worker's user had at start: without a
	// user for each session RLIMIT_NPROC counts those too.
	baseTasks int
	// files is the Landlock policy in force, nil if there is none, for the
	// reason in why.
	files *landlock.Policy
	abi   int
	why   string
	// calls is the seccomp policy in force, nil if there is none, for the
	// reason in whyCalls.
	calls    *seccomp.Policy
	whyCalls string
}

// temporary are the system's directories for temporary files. They are shared
// by all jobs, told apart by their users only: programs expect them.
var temporary = []string{"/tmp", "/var/tmp", "/dev/shm"}

// What the kernel has doesn't change while a process runs.
var (
	probeLandlock = sync.OnceValues(func() (int, error) { return landlock.Probe(context.Background()) })
	probeSeccomp  = sync.OnceValue(func() error { return seccomp.Probe(context.Background()) })
)

// NewPolicy fills in what depends on the machine, by trying it.
func NewPolicy(p Policy) (*Policy, error) {
	if !p.Users {
		n, err := countTasks(os.Getuid())
		if err != nil {
			return nil, fmt.Errorf("count processes: %w", err)
		}
		p.baseTasks = n
	}
	if err := probeSeccomp(); err != nil {
		p.whyCalls = err.Error()
	} else {
		p.calls = &seccomp.Policy{}
	}
	abi, err := probeLandlock()
	if err != nil {
		p.why = err.Error()
		return &p, nil
	}
	runtime := p.Runtime
	if p.Bin != "" {
		runtime = append(slices.Clone(runtime), p.Bin)
	}
	files := landlock.Runtime(runtime...).Writable(p.Writable...)
	for _, dir := range temporary {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			files.ReadWrite = append(files.ReadWrite, dir)
		}
	}
	files.MinABI = 1 // what there is; Report says what an older kernel leaves open
	p.files, p.abi = &files, abi
	return &p, nil
}

// Level returns the level in force.
func (p *Policy) Level() Level { return Basic }

// Report says in one line what is in force and what is not, and why.
func (p *Policy) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: rlimits (processes %d, open files %d, file size %d bytes, CPU and memory a job), no_new_privs, subreaper", p.Level(), p.Processes, p.OpenFiles, p.FileBytes)
	if p.Users {
		b.WriteString(", a user for each session")
	}
	if p.files != nil {
		fmt.Fprintf(&b, ", Landlock ABI %d (files outside the runtime, the sessions and the temporary directories", p.abi)
		if p.abi >= 4 {
			b.WriteString("; TCP")
		}
		if p.abi >= 6 {
			b.WriteString("; signals and abstract sockets to the outside")
		}
		b.WriteString(" refused)")
	}
	if p.calls != nil {
		b.WriteString(", seccomp (sockets, tracing, mounts, namespaces, kernel settings and other calls of no use refused)")
	}
	b.WriteString("; not in force:")
	if !p.Users {
		b.WriteString(" a user for each session (the worker is not root: submissions run as its own user),")
	}
	if p.files == nil {
		fmt.Fprintf(&b, " Landlock (%s),", p.why)
	}
	if p.calls == nil {
		fmt.Fprintf(&b, " seccomp (%s),", p.whyCalls)
	}
	b.WriteString(" namespaces, cgroups")
	return b.String()
}

// Place is where and as whom a job runs.
type Place struct {
	// UID and GID of the session; -1 keeps the worker's.
	UID, GID int
	// Work, Tmp and Home are absolute paths, made and owned already.
	Work, Tmp, Home string
}

// Limits of one job's process.
type Limits struct {
	// CPUSeconds is the first process' soft limit; the hard limit is
	// CPUTotal+1 for all cases it may run. Both a process, not a tree.
	CPUSeconds, CPUTotal int
	// MemoryBytes bounds the address space of each process.
	MemoryBytes int64
}

// Confine returns the confinement that the child's enter() takes, as marshal
// data: see enter.py.
func (p *Policy) Confine(at Place, l Limits) []byte {
	b := make([]byte, 0, 512)
	b = pymarshal.AppendTuple(b, 5)
	b = pymarshal.AppendInt(b, int64(at.UID))
	b = pymarshal.AppendInt(b, int64(at.GID))
	b = pymarshal.AppendString(b, at.Work)
	limits := [...]struct {
		resource   int
		soft, hard int64
	}{
		{unix.RLIMIT_CPU, int64(l.CPUSeconds), int64(l.CPUTotal) + 1},
		{unix.RLIMIT_AS, l.MemoryBytes, l.MemoryBytes},
		{unix.RLIMIT_FSIZE, p.FileBytes, p.FileBytes},
		{unix.RLIMIT_NPROC, int64(p.baseTasks + p.Processes), int64(p.baseTasks + p.Processes)},
		{unix.RLIMIT_NOFILE, int64(p.OpenFiles), int64(p.OpenFiles)},
		{unix.RLIMIT_CORE, 0, 0},
		{unix.RLIMIT_MEMLOCK, 64 << 10, 64 << 10},
		{unix.RLIMIT_MSGQUEUE, 0, 0},
	}
	b = pymarshal.AppendTuple(b, len(limits))
	for _, r := range limits {
		b = pymarshal.AppendTuple(b, 3)
		b = pymarshal.AppendInt(b, int64(r.resource))
		b = pymarshal.AppendInt(b, r.soft)
		b = pymarshal.AppendInt(b, r.hard)
	}
	return pymarshal.AppendDict(b, [][2]string{{"HOME", at.Home}, {"TMPDIR", at.Tmp}, {"PWD", at.Work}})
}

// environment is what all jobs share: nothing of the worker's own.
func (p *Policy) environment() []string {
	path := Path
	if p.Bin != "" {
		path = p.Bin + ":" + Path
	}
	return []string{
		"PATH=" + path,
		"USER=session", "LOGNAME=session", "SHELL=/bin/sh", "LANG=C.UTF-8",
		"MPLBACKEND=Agg", "PYTHONDONTWRITEBYTECODE=1",
		// One thread each: the slot is one core's worth, and address space is limited.
		"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1",
	}
}

// countTasks counts the threads of a user, as RLIMIT_NPROC does.
func countTasks(uid int) (int, error) {
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	total := 0
	for _, name := range statuses {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		var owner, threads int
		for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
			fmt.Sscanf(sc.Text(), "Uid:\t%d", &owner)
			fmt.Sscanf(sc.Text(), "Threads:\t%d", &threads)
		}
		if owner == uid {
			total += threads
		}
	}
	return total, nil
}
