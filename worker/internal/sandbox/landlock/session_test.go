package landlock

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair makes a directory for sessions with two of them, each with work and tmp,
// all of one user, and a policy for the shared layer over them.
func pair(t testing.TB, uid int) (shared Policy, a, b string) {
	t.Helper()
	root, _ := stage(t, uid)
	for _, dir := range []string{"s1", "s2"} {
		for _, d := range []string{dir, dir + "/work", dir + "/tmp"} {
			path := filepath.Join(root, d)
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		secret := filepath.Join(root, dir, "work", "file")
		if err := os.WriteFile(secret, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(secret, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return Runtime("/usr/bin").Writable(root), filepath.Join(root, "s1"), filepath.Join(root, "s2")
}

// layer makes the ruleset of a session as a file to inherit.
func layer(t testing.TB, h *Held, dirs ...string) *os.File {
	t.Helper()
	fd, err := h.Ruleset(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "ruleset")
	t.Cleanup(func() { f.Close() })
	return f
}

func hold(t testing.TB, p Policy) *Held {
	t.Helper()
	h, err := p.Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestSessionLayerNarrowsTheSharedOne(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		shared, a, b := pair(t, uid)
		_, elsewhere := stage(t, uid)
		cases := []struct {
			name         string
			step         step
			shared, both string
		}{
			{"its own file", step{"readback", filepath.Join(a, "work", "file")}, "ok", "ok"},
			{"rename from work to tmp", step{"rename", filepath.Join(a, "work", "file"), a + "/tmp/file"}, "ok", "ok"},
			{"link from tmp to work", step{"link", a + "/tmp/file", filepath.Join(a, "work", "file")}, "ok", "ok"},
			{"run sh", step{"exec", "/bin/sh", "-c", "echo ok", "ok"}, "ok", "ok"},
			{"signal its own child", step{"killchild"}, "ok", "ok"},
			{"the directory above", step{"list", filepath.Dir(a)}, "ok", "EACCES"},
			{"the session's top", step{"mkdir", a + "/more"}, "ok", "EACCES"},
			{"the other's file", step{"read", filepath.Join(b, "work", "file")}, "ok", "EACCES"},
			{"write the other's file", step{"readback", filepath.Join(b, "work", "file")}, "ok", "EACCES"},
			{"rename to the other", step{"rename", filepath.Join(a, "work", "file"), filepath.Join(b, "work", "got")}, "ok", "EACCES"},
			{"what the shared layer refuses", step{"read", elsewhere + "/a/file"}, "EACCES", "EACCES"},
			{"TCP, which the shared layer refuses", step{"bind"}, "EACCES", "EACCES"},
		}
		o := order{Policies: []Policy{shared}, Rulesets: []int{3}}
		for _, c := range cases {
			o.Steps = append(o.Steps, c.step)
		}
		// The session's layer names a directory that the shared one doesn't.
		f := layer(t, hold(t, shared.Writable()), a+"/work", a+"/tmp", elsewhere)
		for i, got := range carryOut(t, uid, o, f) {
			if c := cases[i]; got != c.both {
				t.Errorf("%s, both layers: %s, want %s", c.name, got, c.both)
			}
		}
		o.Rulesets = nil
		os.Remove(filepath.Join(a, "work", "file"))
		os.Rename(a+"/tmp/file", filepath.Join(a, "work", "file"))
		for i, got := range carryOut(t, uid, o) {
			if c := cases[i]; got != c.shared {
				t.Errorf("%s, shared layer only: %s, want %s", c.name, got, c.shared)
			}
		}
	})
}

// forkedChild is a fork server in small: it forks two children, one after the
// other, of which only the second enters the session's layer (fd 3), and
// reports what each could do, by the name of the errno.
const forkedChild = `
import ctypes, errno, json, os, signal, sys
own, other = sys.argv[1:]
syscall = ctypes.CDLL(None, use_errno=True).syscall
def write(path):
    open(path, "w").close()
def child(enter, out):
    if enter and syscall(446, 3, 0):
        os.write(out, b'"landlock_restrict_self: %d"' % ctypes.get_errno())
        return
    server, said = os.getppid(), {}
    for name, do in {
        "own": lambda: write(os.path.join(own, "work", "new")),
        "other": lambda: write(os.path.join(other, "work", "new")),
        "kill server": lambda: os.kill(server, 0),
        "read server": lambda: open("/proc/%d/mem" % server, "rb").close(),
        "root": lambda: os.listdir("/"),
    }.items():
        try:
            do()
            said[name] = "ok"
        except OSError as e:
            said[name] = errno.errorcode[e.errno]
    os.write(out, json.dumps(said).encode())
def serve(enter):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(enter, w)
            os.close(w)
            signal.pause()
        finally:
            os._exit(1)
    os.close(w)
    said = b""
    while part := os.read(r, 4096):
        said += part
    os.kill(pid, signal.SIGKILL)
    return json.loads(said), os.WTERMSIG(os.waitpid(pid, 0)[1])
print(json.dumps([serve(False), serve(True), os.listdir(other + "/work")]))
`

// TestSessionLayerInForkedChild goes the way of a job: the worker makes the
// ruleset, a launcher restricts itself and executes Python, Python forks, the
// child enters.
func TestSessionLayerInForkedChild(t *testing.T) {
	need(t, 6)
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip(err)
	}
	users(t, func(t *testing.T, uid int) {
		shared, a, b := pair(t, uid)
		f := layer(t, hold(t, shared.Writable()), a+"/work", a+"/tmp")
		// The child of the test executes Python in its place.
		cmd := command(t, uid, order{Policies: []Policy{shared}, Steps: []step{{"become", python, "-B", "-I", "-c", forkedChild, a, b}}}, f)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		const killed = `,9]`
		want := `[[{"kill server":"ok","other":"ok","own":"ok","read server":"ok","root":"EACCES"}` + killed +
			`,[{"kill server":"EPERM","other":"EACCES","own":"ok","read server":"EACCES","root":"EACCES"}` + killed + `,["file","new"]]`
		if got := canonical(t, out); got != want {
			t.Errorf("said %s\nwant %s", got, want)
		}
	})
}

// canonical is JSON with sorted keys and no spaces.
func canonical(t *testing.T, data []byte) string {
	t.Helper()
	var v []any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if names, ok := v[len(v)-1].([]any); ok && len(names) == 2 && names[0] == "new" {
		names[0], names[1] = names[1], names[0] // a directory has no order
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestRulesetIsClosedOnExec(t *testing.T) {
	need(t, 1)
	p := Policy{ReadOnly: []string{"/usr"}, MinABI: 1}
	fd, err := p.Ruleset()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// TestRulesetHoldsForTheDirectoryOfThen pins what the package documentation
// says of directories that are made anew.
func TestRulesetHoldsForTheDirectoryOfThen(t *testing.T) {
	need(t, 6)
	shared, a, _ := pair(t, os.Getuid())
	f := layer(t, hold(t, shared.Writable()), a+"/work")
	if err := os.Rename(a+"/work", a+"/moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a+"/work", 0o755); err != nil {
		t.Fatal(err)
	}
	o := order{Rulesets: []int{3}, Steps: []step{{"list", a + "/work"}, {"list", a + "/moved"}}}
	if got := carryOut(t, os.Getuid(), o, f); got[0] != "EACCES" || got[1] != "ok" {
		t.Errorf("made anew: %s, moved: %s", got[0], got[1])
	}
}
