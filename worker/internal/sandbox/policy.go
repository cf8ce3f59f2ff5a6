package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/namespace"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

// Path is the PATH of submissions, behind the directory that the policy puts
// in front of it.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Config is what a worker wants of its sandbox.
type Config struct {
	// Name is the worker's, unique on the machine: of letters, digits, - and _.
	Name string
	// Users says that each session has a user of its own.
	Users bool
	// Bin is put in front of Path for submissions; may be empty.
	Bin string
	// Runtime lists directories, beside the system's, that programs are run and
	// loaded from; Writable those that hold the directories of jobs, told apart
	// by their last element. Links resolved.
	Runtime, Writable []string
	// Anchor is a directory of the worker's on which a slot's root is mounted
	// while it is made, in namespaces of the slot's own; empty means the first
	// of Writable.
	Anchor string
	// Processes, OpenFiles: limits of a job; FileBytes: of a file it writes.
	Processes, OpenFiles int
	FileBytes            int64
	// Log is told what is wrong with the sandbox without being an error of any
	// job; may be nil.
	Log *slog.Logger
	// Without lists layers that are not to be put in force.
	Without []Layer
}

// Policy is what the worker enforces on every child: the Config and what of it
// this machine allows.
type Policy struct {
	Config
	layers map[Layer]state
	// baseTasks is how many tasks the worker's user had at start: without a
	// user for each session RLIMIT_NPROC counts those too.
	baseTasks int
	// kind is how namespaces are had, and root what a slot sees in them.
	kind namespace.Kind
	root *namespace.Policy
	// files is the Landlock policy of a slot, without the directories of jobs;
	// nil without that layer. Its paths are those inside.
	files *landlock.Policy
	abi   int
	// calls is the seccomp policy; nil without that layer.
	calls *seccomp.Policy
	// shm is /dev/shm where slots share it, nil where they don't.
	shm *sharedMemory
	// memory says how the memory of a job's processes together is bounded.
	memory memory
	// found is what the self-test saw, nil before it ran.
	found []Finding
}

// inside is where a slot's own directories are in its namespaces.
const inside = "/run/gradefleet"

// jobDir holds, in a slot's namespaces, the links that a job's /tmp goes
// through. The fork server sets them before a job; jobs can't.
const (
	jobDir  = inside + "/job"
	jobTemp = jobDir + "/tmp"
)

// here is where a job sees its session if a keeper mounts that.
const here = inside + "/here"

// shm is where POSIX semaphores and shared memory are files.
const shm = "/dev/shm"

// NewPolicy finds out, by trying, what this machine allows.
func NewPolicy(c Config) (*Policy, error) {
	for _, l := range c.Without {
		if !slices.Contains(layerNames, l) {
			return nil, fmt.Errorf("leave out layer %q: no such layer, there are %s", l, joinLayers(layerNames))
		}
	}
	p := &Policy{Config: c, layers: map[Layer]state{}}
	if p.Name == "" {
		p.Name = fmt.Sprint("pid", os.Getpid())
	}
	if !c.Users {
		n, err := countTasks(os.Getuid())
		if err != nil {
			return nil, fmt.Errorf("count processes: %w", err)
		}
		p.baseTasks = n
	}
	// What a lost fork server leaves comes to this process, which waits for it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	p.simpleLayers()
	p.namespaceLayer()
	p.callLayer()
	p.fileLayers()
	p.memoryLayer()
	return p, nil
}

func (p *Policy) log(what string, err error) {
	if p.Log != nil {
		p.Log.Warn(what, "error", err)
	}
}

// errWithout is why a layer that could be is not in force.
var errWithout = errors.New("left out by the configuration")

// try puts a layer's state down: in force with a detail, or not for a reason.
func (p *Policy) try(l Layer, attempt func() (detail string, err error)) bool {
	s := state{}
	var err error
	if slices.Contains(p.Without, l) {
		err = errWithout
	} else {
		s.detail, err = attempt()
	}
	if s.why = err; err != nil {
		s.detail = ""
	}
	p.layers[l] = s
	return err == nil
}

func (p *Policy) has(l Layer) bool {
	s, known := p.layers[l]
	return known && s.why == nil
}

func (p *Policy) simpleLayers() {
	p.try(Rlimits, func() (string, error) {
		return fmt.Sprintf("processes %d, open files %d, file size %d bytes, CPU and address space of each process", p.Processes, p.OpenFiles, p.FileBytes), nil
	})
	p.try(Users, func() (string, error) {
		if !p.Config.Users {
			return "", errors.New("the worker is not root: submissions run as its own user")
		}
		return "a user for each session", nil
	})
}

func (p *Policy) namespaceLayer() {
	p.try(Namespaces, func() (string, error) {
		root, err := namespace.System(slices.Concat(p.Runtime)...)
		if err != nil {
			return "", err
		}
		root.Anchor, root.Private = p.Anchor, jobDir
		if root.Anchor == "" && len(p.Writable) > 0 {
			root.Anchor = p.Writable[0]
		}
		if root.Anchor == "" {
			return "", errors.New("no directory to mount a slot's root on")
		}
		for _, dir := range p.Writable {
			root.Binds = append(root.Binds, namespace.Bind{From: dir, To: inside + "/" + filepath.Base(dir), Writable: true})
		}
		if p.Bin != "" {
			root.Binds = append(root.Binds, namespace.Bind{From: p.Bin, To: inside + "/bin"})
		}
		for _, link := range []string{"/tmp", "/var/tmp", shm} {
			root.Links[link] = jobTemp
		}
		for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
			root.Links["/dev/"+link] = target
		}
		kind := namespace.KindHere()
		if kind == namespace.AsUser {
			// Sessions have no users here: nothing but the lack of a path keeps
			// one from the modes of another.
			root = root.KeepIn(here)
		}
		if err := kind.Probe(context.Background(), root); err != nil {
			return "", err
		}
		p.kind, p.root = kind, &root
		detail := "processes, mounts, network, IPC and host name of the slot's own; /tmp, /var/tmp and /dev/shm are the session's"
		if kind == namespace.AsUser {
			detail += "; in a user namespace"
		}
		return detail, nil
	})
}

func (p *Policy) callLayer() {
	p.try(Seccomp, func() (string, error) {
		if err := seccomp.Probe(context.Background()); err != nil {
			return "", err
		}
		p.calls = &seccomp.Policy{Tell: seccomp.CanListen()}
		return "sockets, tracing, mounts, namespaces, kernel settings and other calls of no use refused", nil
	})
}

func (p *Policy) fileLayers() {
	p.try(Landlock, func() (string, error) {
		abi, err := landlock.Probe(context.Background())
		if err != nil {
			return "", err
		}
		runtime := slices.Clone(p.Runtime)
		files := landlock.Runtime(runtime...)
		if p.Bin != "" {
			// Its path inside need not exist out here.
			files.ReadExecute = append(files.ReadExecute, p.Inside(p.Bin))
		}
		files.MinABI = 1 // what there is; the report says what an older kernel leaves open
		p.files, p.abi = &files, abi
		var b strings.Builder
		fmt.Fprintf(&b, "ABI %d: files outside the runtime", abi)
		if abi >= 4 {
			b.WriteString("; TCP")
		}
		if abi >= 6 {
			b.WriteString("; signals and abstract sockets to the outside")
		}
		b.WriteString(" refused")
		return b.String(), nil
	})
	p.try(SessionLandlock, func() (string, error) {
		if p.files == nil {
			return "", errors.New("there is no Landlock")
		}
		detail := "files outside the session, signals to the fork server"
		if p.abi < 6 {
			detail = "files outside the session"
		}
		if p.kind != namespace.None {
			return detail, nil
		}
		// Without mounts of its own a job can't have a /tmp of its own.
		detail += ", /tmp and /var/tmp refused"
		if info, err := os.Stat(shm); err == nil && info.IsDir() && p.has(Users) {
			// Semaphores of multiprocessing live there. Users keep them apart.
			p.files.Shared = []string{shm}
			p.shm = &sharedMemory{dir: shm}
			return detail + "; /dev/shm for files by name", nil
		}
		return detail + "; /dev/shm refused", nil
	})
}

// Inside is the path of a directory as a slot's processes see it: with a keeper,
// of a job's own place.
func (p *Policy) Inside(path string) string {
	if p.keeps() {
		for _, dir := range p.Writable {
			if rest, ok := strings.CutPrefix(path, dir+"/"); ok {
				_, rest, _ := strings.Cut(rest, "/")
				return here + "/" + rest
			}
		}
	}
	return p.bound(path)
}

// bound is the path of a directory in the slot's root as it was built.
func (p *Policy) bound(path string) string {
	if p.root == nil {
		return path
	}
	for _, b := range p.root.Binds {
		if path == b.From {
			return b.To
		}
		if rest, ok := strings.CutPrefix(path, b.From+"/"); ok {
			return b.To + "/" + rest
		}
	}
	return path
}

// environment is what all jobs share: nothing of the worker's own.
func (p *Policy) environment() []string {
	path := Path
	if p.Bin != "" {
		path = p.Inside(p.Bin) + ":" + Path
	}
	return []string{
		"PATH=" + path,
		"USER=session", "LOGNAME=session", "SHELL=/bin/sh", "LANG=C.UTF-8",
		"MPLBACKEND=Agg", "PYTHONDONTWRITEBYTECODE=1",
		// One thread each: the slot is one core's worth, and address space is limited.
		"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1",
	}
}
