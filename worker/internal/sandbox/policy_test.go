package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

func TestReportSaysWhatIsMissing(t *testing.T) {
	p := &Policy{Users: true, Processes: 8, OpenFiles: 9, FileBytes: 10, abi: 7, files: &landlock.Policy{}, calls: &seccomp.Policy{}}
	want := "basic: rlimits (processes 8, open files 9, file size 10 bytes, CPU and memory a job), no_new_privs, subreaper, a user for each session, " +
		"Landlock ABI 7 (files outside the runtime, the sessions and the temporary directories; TCP; signals and abstract sockets to the outside refused), " +
		"seccomp (sockets, tracing, mounts, namespaces, kernel settings and other calls of no use refused); not in force: namespaces, cgroups"
	if got := p.Report(); got != want {
		t.Errorf("report %q", got)
	}
	p = &Policy{why: "the kernel has none", whyCalls: "no filters here"}
	for _, want := range []string{"a user for each session (the worker is not root", "Landlock (the kernel has none)", "seccomp (no filters here)"} {
		if got := p.Report(); !strings.Contains(got, want) {
			t.Errorf("report %q, want %q in it", got, want)
		}
	}
	p, err := NewPolicy(Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if p.baseTasks == 0 {
		t.Error("the tasks of the worker's own user were not counted")
	}
	if abi, err := landlock.ABI(); err == nil && (p.files == nil || p.abi != abi) {
		t.Errorf("the kernel has Landlock ABI %d, the policy doesn't use it: %s", abi, p.why)
	}
}

func TestLaunchRestrictsFiles(t *testing.T) {
	if _, err := landlock.ABI(); err != nil {
		t.Skip(err)
	}
	work := t.TempDir()
	secret := filepath.Join("/var/lib", fmt.Sprintf("gradefleet-test-%d", os.Getpid()))
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		secret = "/boot"
	} else {
		defer os.Remove(secret)
	}
	p, err := NewPolicy(Policy{Writable: []string{work}})
	if err != nil {
		t.Fatal(err)
	}
	worker := os.Getpid()
	out, err := p.Command("/bin/sh", "-c", fmt.Sprintf("cat %s; ls /root; echo x > /etc/gradefleet-test; kill -0 %d && echo signalled; echo ok > %s/made && cat %s/made", secret, worker, work, work)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); strings.Contains(got, "s3cret") || strings.Contains(got, "signalled") || !strings.HasSuffix(got, "ok\n") || strings.Count(got, "enied")+strings.Count(got, "not permitted") < 4 {
		t.Errorf("inside: %s", got)
	}
}

func TestLaunchConfinesBeforeExec(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	p := &Policy{}
	out, err := p.Command("/bin/sh", "-c", "grep NoNewPrivs /proc/self/status; env").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.Contains(got, "NoNewPrivs:\t1") || strings.Contains(got, "SECRET") {
		t.Errorf("inside: %s", got)
	}
}

func TestLaunchRestrictsCalls(t *testing.T) {
	if err := seccomp.Probe(context.Background()); err != nil {
		t.Skip(err)
	}
	p, err := NewPolicy(Policy{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Command("/usr/bin/env", "python3", "-I", "-c", `
import os, socket, subprocess
for name, f in [("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), ("chroot", lambda: os.chroot("/")), ("unshare", lambda: subprocess.run(["unshare", "-U", "true"], check=True))]:
    try:
        f()
        print(name, "done")
    except Exception as e:
        print(name, "refused")
print(subprocess.run(["echo", "child"], capture_output=True).stdout)
`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); strings.Contains(got, "done") || strings.Count(got, "refused") != 3 || !strings.Contains(got, "b'child") {
		t.Errorf("inside: %s", got)
	}
}

func TestLaunchNamesTheFailedStep(t *testing.T) {
	out, err := (&Policy{}).Command("/no/such/python").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "execute /no/such/python") {
		t.Errorf("error %v, output %s", err, out)
	}
}

// enter runs enter.py's function in a Python of its own.
func enter(t *testing.T, spec, then string) string {
	t.Helper()
	cmd := exec.Command("python3", "-I", "-c", EnterSource+"\nimport os, resource\ntry:\n    enter("+spec+")\n"+then+"\nexcept OSError as e:\n    print(e)\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestEnter(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	if got := enter(t, `(-1, -1, "/", ((resource.RLIMIT_NOFILE, 33, 33),), {"A": "b"})`, "    print(os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE), os.environ['A'])"); got != "/ (33, 33) b" {
		t.Errorf("inside: %s", got)
	}
	if got := enter(t, `(-1, -1, "/no/such", (), {})`, "    pass"); !strings.Contains(got, "enter sandbox: chdir: No such file") {
		t.Errorf("the error doesn't name the step: %s", got)
	}
	if os.Getuid() == 0 {
		if got := enter(t, `(219007, 219008, "/", (), {})`, "    print(os.getresuid(), os.getresgid(), os.getgroups())"); got != "(219007, 219007, 219007) (219008, 219008, 219008) []" {
			t.Errorf("inside: %s", got)
		}
	}
}
