package seccomp

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// probeName is argv[0] of a process that is to restrict itself and see whether
// it holds: no process can take a filter back, so the worker starts itself
// under this name.
const probeName = "gradefleet-seccomp-probe"

// probeTimeout bounds the start and the answer of that process.
const probeTimeout = 15 * time.Second

// A process under probeName never reaches main.
func init() {
	if len(os.Args) == 0 || os.Args[0] != probeName {
		return
	}
	runtime.LockOSThread()
	if err := try(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		unix.Exit(1)
	}
	unix.Exit(0)
}

// Probe installs the filter in a process of its own and sees what that process
// is refused. An error says why filters can't be relied on here, and is an
// [ErrUnavailable]: there are kernels and engines that accept a filter and
// don't apply it.
func Probe(ctx context.Context) error {
	if _, err := architectureOf(runtime.GOARCH); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.Env = []string{}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: try it in a process: %w: %s", ErrUnavailable, err, bytes.TrimSpace(out[:min(len(out), 500)]))
	}
	return nil
}

// try restricts this process and checks one thing of each kind.
func try() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := (Policy{}).Install(); err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func() error
		want error
	}{
		{"allowed by its arguments", func() error { return pair(unix.SOCK_STREAM) }, nil},
		{"refused by its arguments", func() error { return pair(unix.SOCK_DGRAM) }, unix.EPERM},
		{"refused", func() error {
			_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			return err
		}, unix.EPERM},
		{"said to be absent", func() error {
			_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
			return errno
		}, unix.ENOSYS},
	}
	for _, s := range steps {
		if err := s.do(); err != s.want {
			return fmt.Errorf("a call that is %s: got %v, want %v", s.name, err, s.want)
		}
	}
	return nil
}

// pair makes a pair of unix sockets.
func pair(kind int) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Close(fds[0])
	return unix.Close(fds[1])
}
