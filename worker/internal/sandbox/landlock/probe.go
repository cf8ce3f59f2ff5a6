package landlock

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
// it holds: no process can take a restriction back, so the worker starts itself
// under this name.
const probeName = "gradefleet-landlock-probe"

// probeTimeout bounds the start and the answer of that process.
const probeTimeout = 15 * time.Second

// A process under probeName never reaches main.
func init() {
	if len(os.Args) == 0 || os.Args[0] != probeName {
		return
	}
	runtime.LockOSThread()
	// Not os.Exit: that writes coverage files where it may not, and sleeps for a
	// second in a binary with the race detector.
	if err := try(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		unix.Exit(1)
	}
	unix.Exit(0)
}

// Probe restricts a process of its own, sees what it is refused, and returns
// the kernel's ABI version, or 0 and the reason why Landlock can't be relied
// on: some kernels and container engines answer to the version only.
func Probe(ctx context.Context) (int, error) {
	abi, err := ABI()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.Env = []string{}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: try it in a process: %w: %s", ErrUnavailable, err, bytes.TrimSpace(out[:min(len(out), 500)]))
	}
	return abi, nil
}

// try restricts this thread and checks that it is.
func try() error {
	abi, err := ABI()
	if err != nil {
		return err
	}
	p := Policy{ReadOnly: []string{"/proc"}, MinABI: 1}
	if err := p.Restrict(); err != nil {
		return err
	}
	return check(abi)
}

// check tries one thing of each kind that an ABI version can refuse.
func check(abi int) error {
	steps := []struct {
		name string
		abi  int
		do   func() error
		want error
	}{
		{"read what is allowed", 1, func() error { return openAndClose("/proc/self/status", unix.O_RDONLY) }, nil},
		{"list a directory outside", 1, func() error { return openAndClose("/", unix.O_RDONLY|unix.O_DIRECTORY) }, unix.EACCES},
		{"write what may be read", 1, func() error { return openAndClose("/proc/self/comm", unix.O_WRONLY) }, unix.EACCES},
		{"connect over TCP", 4, connectNowhere, unix.EACCES},
		{"signal a process outside", 6, func() error { return unix.Kill(os.Getppid(), 0) }, unix.EPERM},
	}
	for _, s := range steps {
		if abi < s.abi {
			continue
		}
		if err := s.do(); err != s.want {
			return fmt.Errorf("%s: got %v, want %v", s.name, err, s.want)
		}
	}
	return nil
}

func openAndClose(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// connectNowhere connects to a port of this machine that nobody serves. A
// machine without IPv4 has nothing to refuse.
func connectNowhere() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return unix.EACCES
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
}
