package namespace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is in the chain of errors that say that namespaces can't be
// had here.
var ErrUnavailable = errors.New("namespaces unavailable")

// probeName is argv[0] of a process that is to enter namespaces and look around.
const probeName = "gradefleet-namespace-probe"

// probeTimeout bounds the start and the answer of that process.
const probeTimeout = 15 * time.Second

// A process under probeName never reaches main.
func init() {
	if len(os.Args) != 2 || os.Args[0] != probeName {
		return
	}
	runtime.LockOSThread()
	if err := try(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		unix.Exit(1)
	}
	unix.Exit(0)
}

// Probe builds the policy in a process of its own and sees whether it holds. An
// error says why namespaces can't be relied on here, and is an [ErrUnavailable].
func (k Kind) Probe(ctx context.Context, p Policy) error {
	policy, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("%w: encode policy: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName, string(policy)}
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = k.Attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w: the kernel or a container engine refuses them: %w", ErrUnavailable, err)
		}
		if text := bytes.TrimSpace(out[:min(len(out), 500)]); len(text) > 0 {
			return fmt.Errorf("%w: %s", ErrUnavailable, text)
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// try builds the policy and checks one thing of each kind.
func try(policy string) error {
	var p Policy
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	if pid := os.Getpid(); pid != 1 {
		return fmt.Errorf("process id is %d in a new namespace, want 1", pid)
	}
	if err := p.Build(); err != nil {
		return err
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != "1" {
		return fmt.Errorf("/proc is not this namespace's: self is %q: %v", self, err)
	}
	if err := os.WriteFile("/usr/gradefleet-probe", nil, 0o600); err == nil {
		os.Remove("/usr/gradefleet-probe")
		return errors.New("the runtime can be written to")
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			return fmt.Errorf("network interface %s is up", i.Name)
		}
	}
	return nil
}
