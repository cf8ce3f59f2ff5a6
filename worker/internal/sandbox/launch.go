package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
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

// launch confines this process and replaces it by argv. files is a Landlock
// policy in JSON, or "null" for none.
func launch(files string, argv []string) error {
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
	var policy *landlock.Policy
	if err := json.Unmarshal([]byte(files), &policy); err != nil {
		return fmt.Errorf("read Landlock policy: %w", err)
	}
	if policy != nil {
		if err := policy.Restrict(); err != nil {
			return fmt.Errorf("restrict files: %w", err)
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
	files, err := json.Marshal(p.files)
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{launchName, string(files), program}, args...)
	cmd.Env = p.environment()
	cmd.Dir = "/"
	return cmd
}
