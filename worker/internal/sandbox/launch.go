package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
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
	os.Exit(126)
}

// shared is what a launched process puts itself under, as its first argument
// in JSON; nil for a layer that is not to be.
type shared struct {
	Files *landlock.Policy `json:"files"`
	Calls *seccomp.Policy  `json:"calls"`
}

// launch confines this process and replaces it by argv.
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
	if layers.Files != nil {
		if err := layers.Files.Restrict(); err != nil {
			return fmt.Errorf("restrict files: %w", err)
		}
	}
	if layers.Calls != nil {
		if err := layers.Calls.Install(); err != nil {
			return fmt.Errorf("restrict system calls: %w", err)
		}
	}
	if err := unix.Exec(argv[0], argv, os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", argv[0], err)
	}
	return nil
}

// Command returns a command that starts program with args inside the shared
// part of the sandbox, with none of the worker's environment.
func (p *Policy) Command(program string, args ...string) *exec.Cmd {
	policy, err := json.Marshal(shared{p.files, p.calls})
	if err != nil {
		panic(err) // structs of strings and flags always encode
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{launchName, string(policy), program}, args...)
	cmd.Env = p.environment()
	cmd.Dir = "/"
	return cmd
}
