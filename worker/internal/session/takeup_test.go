package session

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRestart(t *testing.T) {
	c := testConfig(filepath.Join(reachable(t), "data"))
	st := openStore(t, c)
	a, err := st.Create("a", 1)
	ok(t, err)
	b, err := st.Create("b.2", 2)
	ok(t, err)
	ok(t, a.WriteFile("d/f", []byte("v")))
	ok(t, b.WriteFile("g", []byte("w")))
	for _, s := range st.List() {
		_, err := s.Refresh() // what was written since is estimated
		ok(t, err)
	}
	_, bytes := st.Stats()
	ok(t, st.Close())

	st = openStore(t, c)
	if count, got := st.Stats(); count != 2 || got != bytes {
		t.Errorf("stats say %d sessions of %d bytes, want 2 of %d", count, got, bytes)
	}
	for _, was := range []*Session{a, b} {
		is, found := st.Get(was.ID())
		if !found || is.UID() != was.UID() || is.Epoch() != was.Epoch() || is.WorkDir() != was.WorkDir() {
			t.Fatalf("session %s is %+v, was %+v", was.ID(), is, was)
		}
	}
	a, _ = st.Get("a")
	step{"read", "d/f", "v", nil, ""}.run(t, a)
	step{"write", "d/g", "w", nil, ""}.run(t, a)
	n, err := st.Create("new", 1)
	ok(t, err)
	if n.UID() >= 0 && (n.UID() == a.UID() || n.UID() == b.UID()) {
		t.Errorf("a new session shares user id %d", n.UID())
	}
}

// A broken session is logged and left alone, and neither hinders the others nor
// gives its user away.
func TestBrokenSessions(t *testing.T) {
	meta := func(text string) func(string) error {
		return func(dir string) error { return os.WriteFile(dir+"/meta.json", []byte(text), 0o600) }
	}
	edit := func(old, new string) func(string) error {
		return func(dir string) error {
			data, err := os.ReadFile(dir + "/meta.json")
			if err != nil {
				return err
			}
			return os.WriteFile(dir+"/meta.json", bytes.Replace(data, []byte(old), []byte(new), 1), 0o600)
		}
	}
	user := func(n int) string { return fmt.Sprintf(`"uid":%d`, testUIDBase+n) }
	for _, c := range []struct {
		name   string
		damage func(dir string) error
		pooled bool // only where sessions have users
	}{
		{"empty", meta(""), false},
		{"not JSON", meta("{"), false},
		{"endless", meta(strings.Repeat(" ", maxMetaBytes+1)), false},
		{"another version", edit(`"version":1`, `"version":2`), false},
		{"another's", edit(`"id":"broken"`, `"id":"fine"`), false},
		{"no epoch", edit(`"epoch":1`, `"epoch":0`), false},
		{"a link", func(dir string) error {
			os.Remove(dir + "/meta.json")
			return os.Symlink("/dev/zero", dir+"/meta.json")
		}, false},
		{"a FIFO", func(dir string) error {
			os.Remove(dir + "/meta.json")
			return unix.Mkfifo(dir+"/meta.json", 0o600)
		}, false},
		{"a directory", func(dir string) error {
			os.Remove(dir + "/meta.json")
			return os.Mkdir(dir+"/meta.json", 0o700)
		}, false},
		{"work is a file", func(dir string) error {
			os.RemoveAll(dir + "/work")
			return os.WriteFile(dir+"/work", nil, 0o600)
		}, false},
		{"work is a link", func(dir string) error {
			os.RemoveAll(dir + "/work")
			return os.Symlink("/", dir+"/work")
		}, false},
		{"outside of the pool", edit(user(1), `"uid":0`), true},
		{"user of another session", edit(user(1), user(0)), true},
		{"no user", edit(user(1), `"uid":-1`), true},
		{"work of another user", func(dir string) error { return os.Chown(dir+"/work", 0, 0) }, true},
	} {
		if c.pooled && os.Geteuid() != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			cfg := testConfig(filepath.Join(reachable(t), "data"))
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			st := openStore(t, cfg)
			_, err := st.Create("a-fine", 1)
			ok(t, err)
			broken, err := st.Create("broken", 1)
			ok(t, err)
			ok(t, os.WriteFile(broken.path+"/evidence", nil, 0o600))
			ok(t, st.Close())
			ok(t, c.damage(broken.path))

			within(t, "Open", func() { st = openStore(t, cfg) })
			if _, found := st.Get("a-fine"); !found || len(st.List()) != 1 {
				t.Errorf("sessions are %v, want only the other", st.List())
			}
			if !strings.Contains(log.String(), "broken") {
				t.Errorf("the log says %q", log.String())
			}
			if !exists(t, broken.path+"/evidence") {
				t.Error("the broken session was touched")
			}
			fresh, err := st.Create("new", 1)
			ok(t, err)
			if broken.UID() >= 0 && fresh.UID() == broken.UID() {
				t.Errorf("a new session got user id %d of the broken one", fresh.UID())
			}
			if _, err := st.Create("broken", 1); err == nil || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("error is %v, want one that says what to do", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		setup  func(t *testing.T, c *Config)
		want   string
		asRoot bool
	}{
		{"no root", func(t *testing.T, c *Config) { c.Root = "" }, "session root is empty", false},
		{"negative limit", func(t *testing.T, c *Config) { c.QuotaFiles = -1 }, "can't be negative", false},
		{"negative count", func(t *testing.T, c *Config) { c.UIDCount = -1 }, "use 0 for none", false},
		{"other files", func(t *testing.T, c *Config) {
			ok(t, os.MkdirAll(c.Root, 0o755))
			ok(t, os.WriteFile(c.Root+"/precious", nil, 0o600))
		}, `holds "precious"`, false},
		{"another layout", func(t *testing.T, c *Config) {
			ok(t, os.MkdirAll(c.Root, 0o755))
			ok(t, os.WriteFile(c.Root+"/layout", []byte("gradefleet sessions 2\n"), 0o600))
		}, "this worker knows", false},
		{"in use", func(t *testing.T, c *Config) { openStore(t, *c) }, "another worker uses it", false},
		{"users out of reach", func(t *testing.T, c *Config) {
			ok(t, os.Chmod(filepath.Dir(c.Root), 0o700))
		}, "run chmod o+x", true},
		{"system's ids", func(t *testing.T, c *Config) { c.UIDBase = 999 }, "between 1000", true},
		{"ids too large", func(t *testing.T, c *Config) { c.UIDBase = maxUID }, "between 1000", true},
		{"nobody", func(t *testing.T, c *Config) { c.UIDBase = nobody - 1 }, "nobody", true},
	} {
		if c.asRoot && os.Geteuid() != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(filepath.Join(reachable(t), "data"))
			c.setup(t, &cfg)
			st, err := Open(cfg)
			if err == nil {
				st.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("users without root", func(t *testing.T) {
		if os.Geteuid() == 0 {
			return // see TestAsOrdinaryUser
		}
		_, err := Open(Config{Root: t.TempDir() + "/data", UIDBase: testUIDBase, UIDCount: 1})
		if err == nil || !strings.Contains(err.Error(), "runs as root") {
			t.Errorf("error is %v", err)
		}
	})
}

// A new volume is not quite empty.
func TestOpenOnAVolume(t *testing.T) {
	c := testConfig(filepath.Join(reachable(t), "data"))
	ok(t, os.MkdirAll(c.Root+"/lost+found", 0o700))
	openStore(t, c)
	if !exists(t, c.Root+"/lost+found") {
		t.Error("lost+found is gone")
	}
}
