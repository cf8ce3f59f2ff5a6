package namespace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childName is argv[0] of a process that builds a policy and executes a command.
const childName = "namespace-test-child"

func TestMain(m *testing.M) {
	if os.Args[0] == childName {
		runtime.LockOSThread()
		var p Policy
		err := json.Unmarshal([]byte(os.Args[1]), &p)
		if err == nil {
			err = p.Build()
		}
		if err == nil {
			err = unix.Exec(os.Args[2], os.Args[2:], []string{"PATH=/usr/bin:/bin"})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// stage makes a policy with one writable bind, and says where that is out here.
func stage(t *testing.T) (p Policy, outside string) {
	t.Helper()
	p, err := System()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	outside = filepath.Join(dir, "jobs")
	for _, d := range []string{outside, filepath.Join(dir, "anchor"), filepath.Join(dir, "bin")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.Anchor, p.Private = filepath.Join(dir, "anchor"), "/run/test/private"
	p.Binds = []Bind{{From: outside, To: "/run/test/jobs", Writable: true}, {From: filepath.Join(dir, "bin"), To: "/run/test/bin"}}
	p.Links["/tmp"] = "/run/test/jobs"
	if err := KindHere().Probe(context.Background(), p); err != nil {
		t.Skip(err) // TestEnvironment says whether that may be
	}
	return p, outside
}

// inside runs a shell command in the policy's namespaces.
func inside(t *testing.T, p Policy, script string) string {
	t.Helper()
	policy, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{childName, string(policy), "/bin/sh", "-c", script}
	cmd.SysProcAttr = KindHere().Attributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestWhatIsInside(t *testing.T) {
	p, outside := stage(t)
	if err := os.WriteFile(filepath.Join(outside, "there"), []byte("seen"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, script, want string }{
		{"the first process", "echo $$", "1"},
		{"only its own processes", "cd /proc; echo [0-9]*", "1"}, // sh, which looks itself
		{"no network", "grep -c : /proc/net/dev; wc -l < /proc/net/route", "1\n0"},
		{"its host's name", "cat /proc/sys/kernel/hostname", Hostname},
		{"jobs' files", "cat /run/test/jobs/there", "seen"},
		{"the link", "cat /tmp/there; echo x > /tmp/made", "seen"},
		{"nothing else at the top", "ls / | tr '\\n' ' '", topOf(p)},
		{"a private directory", "echo x > /run/test/private/f && cat /run/test/private/f", "x"},
		{"devices", "head -c 3 /dev/zero | wc -c; echo x > /dev/null; ls /dev | tr '\\n' ' '", "3\nfull null random urandom zero"},
		{"a runtime that works", "ls /usr/bin/env", "/usr/bin/env"},
	} {
		if got := inside(t, p, c.script); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "made")); err != nil {
		t.Errorf("what was written through the link: %v", err)
	}
	for _, script := range []string{"echo x > /usr/made", "echo x > /made", "echo x > /etc/made", "echo x > /run/test/bin/made", "ls " + filepath.Dir(outside)} {
		if got := inside(t, p, script+" && echo done; true"); strings.Contains(got, "done") {
			t.Errorf("%s: %s", script, got)
		}
	}
}

// topOf is what the policy has at the top, sorted as ls does.
func topOf(p Policy) string {
	names := map[string]bool{"dev": true, "proc": true, "run": true}
	for _, path := range p.ReadOnly {
		names[strings.Split(path, "/")[1]] = true
	}
	for path := range p.Links {
		names[strings.Split(path, "/")[1]] = true
	}
	var list []string
	for n := range names {
		list = append(list, n)
	}
	out, _ := exec.Command("sh", append([]string{"-c", "printf '%s\\n' \"$@\" | sort | tr '\\n' ' '", "sh"}, list...)...).Output()
	return strings.TrimSpace(string(out))
}

func TestNoMountShowsOutside(t *testing.T) {
	p, _ := stage(t)
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	inside(t, p, "true")
	if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
		t.Error("the mounts out here changed")
	}
}

func TestProbeSaysWhy(t *testing.T) {
	p, err := System()
	if err != nil {
		t.Fatal(err)
	}
	p.Anchor = "/no/such/anchor"
	if err := KindHere().Probe(context.Background(), p); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without an anchor: %v", err)
	}
	dir := t.TempDir() // below /tmp, unless that is elsewhere
	if !strings.HasPrefix(dir, "/tmp/") {
		t.Skip("temporary directories are not below /tmp")
	}
	if _, err := System(dir); err == nil || !strings.Contains(err.Error(), "below /tmp") {
		t.Errorf("an interpreter below /tmp: %v", err)
	}
}

// The machines that the tests run on have namespaces, but for containers.
func TestEnvironment(t *testing.T) {
	if os.Getenv("CI") == "" {
		t.Skip("only where CI says what the machine has")
	}
	if _, err := os.Stat("/.dockerenv"); err == nil {
		t.Skip("in a container")
	}
	p, err := System()
	if err != nil {
		t.Fatal(err)
	}
	p.Anchor, p.Private = t.TempDir(), "/run/test/private"
	if err := KindHere().Probe(context.Background(), p); err != nil {
		t.Errorf("a bare machine without namespaces: %v", err)
	}
}
