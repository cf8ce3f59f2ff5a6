package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/namespace"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

// launchName is argv[0] of a process that is to confine itself and become an
// interpreter. The worker starts itself under this name: the settings below
// belong to a process, survive its exec, and can't be made through os/exec.
const launchName = "gradefleet-launch"

// A process under launchName never reaches main: not in the worker, nor in the
// binary of a test.
func init() {
	if len(os.Args) < 3 || os.Args[0] != launchName {
		return
	}
	runtime.LockOSThread()
	err := launch(os.Args[1], os.Args[2:])
	fmt.Fprintf(os.Stderr, "%s: %v\n", launchName, err)
	unix.Exit(126)
}

// shared is what a launched process puts itself under, as its first argument
// in JSON; nil for a layer that is not to be.
type shared struct {
	// Groups are the files of control groups to join.
	Groups []string          `json:"groups"`
	Root   *namespace.Policy `json:"root"`
	// Leave is set for the second of two processes: the first, the keeper, has
	// built this root.
	Leave *namespace.Policy `json:"leave"`
	Files *landlock.Policy  `json:"files"`
	Calls *seccomp.Policy   `json:"calls"`
	// Limits are resources and their limits, soft and hard.
	Limits map[int]uint64 `json:"limits"`
}

// oomScore makes the kernel end a submission before anything else when the
// machine runs out of memory (proc(5), /proc/<pid>/oom_score_adj).
const oomScore = "1000"

// maxLocked is how much memory a process may lock, in bytes.
const maxLocked = 64 << 10

// launch confines this process and replaces it by argv. The order matters:
// groups are joined while their files can be seen, mounts made before Landlock
// forbids them, rights given up when nothing needs them any more.
func launch(policy string, argv []string) error {
	var layers shared
	if err := json.Unmarshal([]byte(policy), &layers); err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	// Nothing started from here gains rights by executing a file: no setuid
	// programs, no file capabilities. prctl(2), PR_SET_NO_NEW_PRIVS.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// Orphans of submissions come to the fork server, which ends them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	unix.Umask(0o022)
	for _, file := range layers.Groups {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0) // raising it is a courtesy to the machine
	if layers.Root != nil {
		if err := layers.Root.Build(); err != nil {
			return fmt.Errorf("enter namespaces: %w", err)
		}
		if layers.Root.Here != "" {
			return keep(layers, argv)
		}
	}
	if layers.Leave != nil {
		if err := layers.Leave.Leave(); err != nil {
			return fmt.Errorf("leave the keeper: %w", err)
		}
	}
	if err := dropRights(); err != nil {
		return err
	}
	if layers.Files != nil {
		if err := layers.Files.Restrict(); err != nil {
			return fmt.Errorf("restrict files: %w", err)
		}
	}
	if layers.Calls != nil {
		if err := restrictCalls(*layers.Calls); err != nil {
			return fmt.Errorf("restrict system calls: %w", err)
		}
	}
	for resource, most := range layers.Limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("set limit of resource %d to %d: %w", resource, most, err)
		}
	}
	if err := unix.Exec(argv[0], argv, os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", argv[0], err)
	}
	return nil
}

// requests is the descriptor on which a keeper is asked.
const requests = Control + 1

// keep becomes the keeper of the slot's sessions, and starts the rest as its
// child. It returns when that ended.
func keep(layers shared, argv []string) error {
	root := *layers.Root
	layers.Root, layers.Leave, layers.Groups = nil, &root, nil
	policy, err := json.Marshal(layers)
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	unix.CloseOnExec(requests)
	control := []*os.File{os.NewFile(Control, "control")}
	err = root.Keep(os.NewFile(requests, "requests"), control, launchName, append([]string{string(policy)}, argv...)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		unix.Exit(exit.ExitCode()) // it said itself what was wrong
	}
	if err != nil {
		return fmt.Errorf("fork server: %w", err)
	}
	unix.Exit(0)
	return nil
}

// Self is a program that can be launched though it isn't in the slot's root: the
// worker's own binary.
const Self = "/proc/self/exe"

// Control is the descriptor of a launched program on which the launcher sends
// the worker, before the program begins, the byte 'L' with the listener of its
// seccomp filter, if there is one.
const Control = 3

// restrictCalls installs the filter; with a listener, if that can be had, which
// goes to the worker.
func restrictCalls(calls seccomp.Policy) error {
	if !calls.Tell {
		return calls.Install()
	}
	fd, err := calls.InstallListener()
	if errors.Is(err, seccomp.ErrUnavailable) {
		return calls.Install()
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(Control, []byte("L"), unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send listener: %w", err)
	}
	return nil
}

// kept are the capabilities of a fork server that is root: it makes children
// another user and ends them. One that isn't root keeps none.
var kept = []uint{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL}

// dropRights takes all other capabilities from this thread, and from what it
// executes.
func dropRights() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	var keep uint64
	if os.Geteuid() == 0 {
		for _, c := range kept {
			keep |= 1 << c
		}
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep>>c&1 == 0 {
			// EINVAL: newer than the kernel. EPERM: not ours to drop, without
			// CAP_SETPCAP; no_new_privs keeps what is executed from getting it.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL && err != unix.EPERM {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range have {
		have[i].Permitted &= uint32(keep >> (32 * i))
		have[i].Effective = have[i].Permitted
		have[i].Inheritable = 0
	}
	if err := unix.Capset(&header, &have[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// command returns a command that starts program with args inside the shared
// part of the sandbox, with none of the worker's environment.
func (p *Policy) command(groups []string, program string, args ...string) *exec.Cmd {
	layers := shared{Groups: groups, Root: p.root, Calls: p.calls}
	if p.has(Rlimits) {
		// What all jobs have in common costs none of them a call.
		layers.Limits = map[int]uint64{
			unix.RLIMIT_FSIZE: uint64(p.FileBytes), unix.RLIMIT_NOFILE: uint64(p.OpenFiles),
			unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: maxLocked, unix.RLIMIT_MSGQUEUE: 0,
		}
	}
	if p.files != nil {
		files := *p.files
		if program == Self {
			// Not for jobs: their own layer doesn't have it.
			files.ReadExecute = append(slices.Clone(files.ReadExecute), Self)
		}
		switch {
		case p.keeps():
			// What is mounted at Here changes: its parent's rule holds for all.
			files.ReadWrite = append(files.ReadWrite, inside)
		default:
			for _, dir := range p.Writable {
				files.ReadWrite = append(files.ReadWrite, p.Inside(dir))
			}
			if p.root != nil {
				files.ReadWrite = append(files.ReadWrite, jobDir)
			}
		}
		layers.Files = &files
	}
	policy, err := json.Marshal(layers)
	if err != nil {
		panic(err) // structs of strings and flags always encode
	}
	cmd := exec.Command(Self)
	cmd.Args = append([]string{launchName, string(policy), program}, args...)
	cmd.Env = p.environment()
	cmd.Dir = "/"
	cmd.SysProcAttr = p.kind.Attributes()
	return cmd
}
