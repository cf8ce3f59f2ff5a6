package sandbox

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestReportSaysWhatIsMissing(t *testing.T) {
	with, err := NewPolicy(Policy{Users: true, Processes: 8, OpenFiles: 9, FileBytes: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := "basic: rlimits (processes 8, open files 9, file size 10 bytes, CPU and memory a job), no_new_privs, subreaper, a user for each session; no seccomp, Landlock, namespaces or cgroups"
	if got := with.Report(); got != want {
		t.Errorf("report %q", got)
	}
	without, err := NewPolicy(Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if got := without.Report(); !strings.Contains(got, "no user for each session") {
		t.Errorf("report %q", got)
	}
	if without.baseTasks == 0 {
		t.Error("the tasks of the worker's own user were not counted")
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
