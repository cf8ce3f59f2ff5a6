package landlock

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	abi, err := ABI()
	got, probeErr := Probe(t.Context())
	if got != abi || (probeErr == nil) != (err == nil) {
		t.Errorf("probe %d, %v; kernel %d, %v", got, probeErr, abi, err)
	}
}

func TestProbeSaysWhyNot(t *testing.T) {
	need(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	abi, err := Probe(ctx)
	if abi != 0 || !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("probe %d, %v", abi, err)
	}
}

// The process of the probe fails where one of its checks doesn't find what it
// should: here, in a process that is not restricted.
func TestProbeChecks(t *testing.T) {
	need(t, 6)
	if err := check(6); err == nil || err.Error() != "list a directory outside: got <nil>, want permission denied" {
		t.Errorf("unrestricted: %v", err)
	}
	for name, do := range map[string]func() error{"list": func() error { return openAndClose("/", unix.O_RDONLY) }, "connect": connectNowhere} {
		if err := do(); err == unix.EACCES {
			t.Errorf("%s, unrestricted: %v", name, err)
		}
	}
}

func TestABIReason(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.ENOSYS:     "older than 5.13",
		unix.EOPNOTSUPP: "lsm=",
		unix.EPERM:      "seccomp",
	} {
		err := unavailable(errno)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
