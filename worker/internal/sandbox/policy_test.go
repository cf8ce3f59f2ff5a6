package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/cgroup"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/seccomp"
)

func TestReportSaysWhatIsMissing(t *testing.T) {
	p := &Policy{layers: map[Layer]state{
		Rlimits: {detail: "processes 8"}, Users: {why: errors.New("the worker is not root")}, Seccomp: {detail: "calls"},
		Landlock: {detail: "ABI 7"}, SessionLandlock: {detail: "files"}, Namespaces: {why: errWithout}, Memory: {detail: "watched"},
	}}
	want := "basic: no_new_privs, subreaper, rlimits (processes 8), seccomp (calls), landlock (ABI 7), session-landlock (files), memory (watched); " +
		"not in force: users (the worker is not root), namespaces (left out by the configuration)"
	if got := p.Report(); got != want {
		t.Errorf("report %q", got)
	}
}

// findings are those of a self-test that was refused everything but what open names.
func findings(open ...string) []Finding {
	var list []Finding
	for _, try := range tries {
		f := Finding{Name: try.name, Level: try.level}
		if slices.Contains(open, try.name) {
			f.Seen = "got it"
		}
		list = append(list, f)
	}
	return list
}

func TestLevelIsWhatTheSelfTestSaw(t *testing.T) {
	all := map[Layer]state{}
	for _, l := range layerNames {
		all[l] = state{detail: "x"}
	}
	less := map[Layer]state{Users: {why: errWithout}}
	none := map[Layer]state{Memory: {why: errWithout}}
	for _, l := range layerNames {
		if _, ok := less[l]; !ok {
			less[l] = all[l]
		}
		if _, ok := none[l]; !ok {
			none[l] = all[l]
		}
	}
	for _, c := range []struct {
		name   string
		layers map[Layer]state
		found  []Finding
		want   Level
	}{
		{"not tested", all, nil, Basic},
		{"everything refused", all, findings(), Strict},
		{"sees other processes", all, findings("own processes"), Container},
		{"a layer missing", less, findings(), Container},
		{"memory not bounded", none, findings(), Basic},
		{"reads another session", all, findings("files of another session"), Basic},
		{"both", all, findings("own network", "sockets"), Basic},
	} {
		p := &Policy{layers: c.layers, found: c.found, memory: memory{groups: &cgroup.Root{}}}
		if got := p.Level(); got != c.want {
			t.Errorf("%s: level %s, want %s", c.name, got, c.want)
		}
		if err := p.Require(c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != Strict {
			if err := p.Require(Strict); !errors.Is(err, ErrIsolation) || !strings.Contains(err.Error(), "--isolation "+string(c.want)) {
				t.Errorf("%s: error %v doesn't say what to do", c.name, err)
			}
		}
	}
	if err := (&Policy{layers: all, found: findings("limits")}).Require(Basic); !errors.Is(err, ErrIsolation) {
		t.Errorf("no limits: error %v", err)
	}
	if _, err := NewPolicy(Config{Without: []Layer{"walls"}}); err == nil || !strings.Contains(err.Error(), "session-landlock") {
		t.Errorf("an unknown layer: error %v", err)
	}
}

// cell returns a policy's cell, and the policy.
func cell(t *testing.T, c Config) (*Policy, *Cell) {
	t.Helper()
	if c.Writable == nil {
		c.Writable = []string{t.TempDir()}
	}
	c.Processes, c.OpenFiles, c.FileBytes = 64, 256, 64<<20
	p, err := NewPolicy(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.calls != nil {
		p.calls.Tell = false // nobody listens here
	}
	made, err := p.NewCell("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	return p, made
}

func TestLaunchRestrictsFiles(t *testing.T) {
	if _, err := landlock.ABI(); err != nil {
		t.Skip(err)
	}
	secret := filepath.Join("/var/lib", fmt.Sprintf("gradefleet-test-%d", os.Getpid()))
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		secret = "/boot"
	} else {
		defer os.Remove(secret)
	}
	for _, without := range [][]Layer{nil, {Namespaces}, {Landlock, SessionLandlock}} {
		work := t.TempDir()
		p, c := cell(t, Config{Writable: []string{work}, Without: without})
		if len(without) == 2 && !p.has(Namespaces) {
			continue // then nothing is left that could refuse
		}
		if p.keeps() {
			continue // then nothing can be written before a place is mounted: package execute
		}
		dir := p.Inside(work)
		out, err := c.Command("/bin/sh", "-c", fmt.Sprintf("cat %s; ls /root; echo x > /etc/gradefleet-test; kill -0 %d && echo signalled; echo ok > %s/made && cat %s/made",
			secret, os.Getpid(), dir, dir)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := string(out); strings.Contains(got, "s3cret") || strings.Contains(got, "signalled") || !strings.HasSuffix(got, "ok\n") || strings.Count(got, "cannot")+strings.Count(got, "enied")+strings.Count(got, "No such")+strings.Count(got, "not permitted") < 4 {
			t.Errorf("without %v, inside: %s", without, got)
		}
		if made, err := os.ReadFile(filepath.Join(work, "made")); string(made) != "ok\n" {
			t.Errorf("without %v: the file is not where jobs write: %v", without, err)
		}
	}
}

func TestLaunchConfinesBeforeExec(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	_, c := cell(t, Config{})
	out, err := c.Command("/bin/sh", "-c", "grep -E 'NoNewPrivs|CapEff' /proc/self/status; cat /proc/self/oom_score_adj; env").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rights := "CapEff:\t00000000000000e0" // CAP_KILL, CAP_SETGID, CAP_SETUID
	if os.Getuid() != 0 {
		rights = "CapEff:\t0000000000000000"
	}
	if got := string(out); !strings.Contains(got, "NoNewPrivs:\t1") || strings.Contains(got, "SECRET") || !strings.Contains(got, rights) || !strings.Contains(got, "\n1000\n") {
		t.Errorf("inside: %s", got)
	}
}

func TestLaunchRestrictsCalls(t *testing.T) {
	if err := seccomp.Probe(context.Background()); err != nil {
		t.Skip(err)
	}
	_, c := cell(t, Config{})
	out, err := c.Command("/usr/bin/python3", "-I", "-c", `
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
	_, c := cell(t, Config{})
	out, err := c.Command("/no/such/python").CombinedOutput()
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
	if got := enter(t, `(-1, -1, "/", ((resource.RLIMIT_NOFILE, 33, 33),), {"A": "b", "HOME": "/"}, None)`, "    print(os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE), os.environ['A'])"); got != "/ (33, 33) b" {
		t.Errorf("inside: %s", got)
	}
	if got := enter(t, `(-1, -1, "/no/such", (), {}, None)`, "    pass"); !strings.Contains(got, "enter sandbox: chdir: No such file") {
		t.Errorf("the error doesn't name the step: %s", got)
	}
	if os.Getuid() == 0 {
		if got := enter(t, `(750007, 750008, "/", (), {}, None)`, "    print(os.getresuid(), os.getresgid(), os.getgroups())"); got != "(750007, 750007, 750007) (750008, 750008, 750008) []" {
			t.Errorf("inside: %s", got)
		}
	}
}
