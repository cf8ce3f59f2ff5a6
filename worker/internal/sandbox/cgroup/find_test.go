package cgroup

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The error is for people: it has to say why, and what to do.
func TestFindSaysWhyNot(t *testing.T) {
	find(t)
	for _, c := range []struct {
		name, mode string
		attr       *syscall.SysProcAttr
		want       string
	}{
		{"mounted read-only", "read-only", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}, "plain container"},
		{"another user's", "plain", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 200600, Gid: 200600}}, "Delegate=yes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{finding, c.mode}
			cmd.Dir = "/"
			cmd.SysProcAttr = c.attr
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Skipf("needs root: %v: %s", err, out)
			}
			if !strings.Contains(string(out), c.want) || strings.Contains(string(out), "found") {
				t.Errorf("got %q, want words about %q", out, c.want)
			}
		})
	}
}
