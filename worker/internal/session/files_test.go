package session

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCleanPath(t *testing.T) {
	const invalid = "Invalid path"
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name, rel, want, text string
	}{
		{"plain", "a.txt", "a.txt", ""},
		{"nested", "a/b/c.txt", "a/b/c.txt", ""},
		{"dot first", "./x.txt", "x.txt", ""},
		{"double slash", "a//b.txt", "a/b.txt", ""},
		{"trailing slash", "a/", "a", ""},
		{"parent inside", "a/../b.txt", "b.txt", ""},
		{"hidden", ".hidden", ".hidden", ""},
		{"dots in a name", "..a/b..", "..a/b..", ""},
		{"spaces", "my file (1).txt", "my file (1).txt", ""},
		{"not ASCII", "ünï/日本.txt", "ünï/日本.txt", ""},
		{"backslash is no separator", `..\a`, `..\a`, ""},
		{"newline", "a\nb", "a\nb", ""},
		{"longest name", long, long, ""},
		{"parent", "../evil.txt", "", invalid},
		{"parent after a name", "a/../../evil.txt", "", invalid},
		{"only parent", "..", "", invalid},
		{"absolute", "/etc/evil", "", invalid},
		{"root", "/", "", invalid},
		{"dot", ".", "", invalid + ": it names the session's directory, not a file"},
		{"cleaned to dot", "a/..", "", invalid + ": it names the session's directory, not a file"},
		{"empty", "", "", invalid + ": it is empty"},
		{"NUL", "a\x00b", "", invalid + ": it contains a NUL byte"},
		{"long name", "d/" + long + "n", "", invalid + `: the name "nnnnnnnnnnnnnnnnnnnn"… is 256 bytes, the limit is 255`},
		{"long path", strings.Repeat("a/", 2049), "", invalid + ": 4098 bytes, the limit is 4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := cleanPath(c.rel)
			if c.text == "" {
				ok(t, err)
			} else {
				wantKind(t, err, ErrInvalidPath)
				wantText(t, err, c.text)
			}
			if got != c.want {
				t.Errorf("cleanPath(%q) = %q, want %q", c.rel, got, c.want)
			}
		})
	}
}

// step is one file operation and what must come of it.
type step struct {
	op, path, arg string // op: write, read, delete, rename
	kind          error
	text          string // of the error, if it is known to users
}

func (st step) run(t *testing.T, s *Session) {
	t.Helper()
	var err error
	switch st.op {
	case "write":
		err = s.WriteFile(st.path, []byte(st.arg))
	case "read":
		var data []byte
		if data, err = s.ReadFile(st.path); err == nil && string(data) != st.arg {
			t.Fatalf("%s holds %q, want %q", st.path, data, st.arg)
		}
	case "delete":
		err = s.DeleteFile(st.path)
	case "rename":
		err = s.RenameFile(st.path, st.arg)
	default:
		t.Fatalf("unknown operation %q", st.op)
	}
	if st.kind == nil {
		if err != nil {
			t.Fatalf("%s %q: %v", st.op, st.path, err)
		}
		return
	}
	wantKind(t, err, st.kind)
	if st.text != "" {
		wantText(t, err, st.text)
	}
}

func TestFileOperations(t *testing.T) {
	const gone, oldGone = "File does not exist", "Old file does not exist"
	big := strings.Repeat("0123456789abcdef", 32768)
	for _, c := range []struct {
		name  string
		setup func(work string) error // done by a job
		steps []step
	}{
		{"write and read", nil, []step{{"write", "a.py", "print(1)", nil, ""}, {"read", "a.py", "print(1)", nil, ""}}},
		{"nested", nil, []step{{"write", "a/b/c.txt", "deep", nil, ""}, {"read", "a/b/c.txt", "deep", nil, ""}}},
		{"empty", nil, []step{{"write", "p", "", nil, ""}, {"read", "p", "", nil, ""}}},
		{"line ends stay", nil, []step{{"write", "a", "a\r\nb\r\n", nil, ""}, {"read", "a", "a\r\nb\r\n", nil, ""}}},
		{"big", nil, []step{{"write", "big", big, nil, ""}, {"read", "big", big, nil, ""}}},
		{"shorter over longer", nil, []step{{"write", "a", big, nil, ""}, {"write", "a", "two", nil, ""}, {"read", "a", "two", nil, ""}}},
		{"longer over shorter", nil, []step{{"write", "a", "one", nil, ""}, {"write", "a", big, nil, ""}, {"read", "a", big, nil, ""}}},
		{"empty over something", nil, []step{{"write", "a", "one", nil, ""}, {"write", "a", "", nil, ""}, {"read", "a", "", nil, ""}}},
		{"below a file", nil, []step{{"write", "a", "file", nil, ""}, {"write", "a/b.txt", "x", ErrConflict, ""}, {"write", "a/b/c.txt", "x", ErrConflict, ""},
			{"read", "a/b.txt", "", ErrNotExist, gone}, {"delete", "a/b.txt", "", ErrNotExist, gone}, {"rename", "a/b.txt", "c", ErrNotExist, oldGone}, {"read", "a", "file", nil, ""}}},
		{"onto a directory", nil, []step{{"write", "d/x", "1", nil, ""}, {"write", "d", "2", ErrConflict, ""}, {"read", "d/x", "1", nil, ""}}},
		{"invalid paths", nil, []step{{"write", "../a", "", ErrInvalidPath, "Invalid path"}, {"read", "/etc/passwd", "", ErrInvalidPath, "Invalid path"},
			{"delete", "..", "", ErrInvalidPath, "Invalid path"}, {"rename", "../a", "b", ErrInvalidPath, "Invalid path"}, {"rename", "a", "/b", ErrInvalidPath, "Invalid path"}}},
		{"missing", nil, []step{{"read", "b", "", ErrNotExist, gone}, {"read", "d/b", "", ErrNotExist, gone}, {"delete", "b", "", ErrNotExist, gone},
			{"rename", "b", "c", ErrNotExist, oldGone}, {"rename", "b", "made/c", ErrNotExist, oldGone}, {"write", "made", "no directory was made", nil, ""}}},
		{"directory for a file", nil, []step{{"write", "d/x", "1", nil, ""}, {"read", "d", "", ErrNotExist, gone}, {"delete", "d", "", ErrNotExist, gone},
			{"rename", "d", "e", ErrNotExist, oldGone}, {"read", "d/x", "1", nil, ""}}},
		{"empty directory is not deleted", func(w string) error { return os.Mkdir(w+"/d", 0o755) }, []step{{"delete", "d", "", ErrNotExist, gone}, {"write", "d", "", ErrConflict, ""}}},
		{"delete", nil, []step{{"write", "a", "", nil, ""}, {"delete", "a", "", nil, ""}, {"read", "a", "", ErrNotExist, gone}, {"delete", "a", "", ErrNotExist, gone}}},
		{"rename", nil, []step{{"write", "a", "v", nil, ""}, {"rename", "a", "b", nil, ""}, {"read", "b", "v", nil, ""}, {"read", "a", "", ErrNotExist, gone}}},
		{"rename into a new directory", nil, []step{{"write", "a", "v", nil, ""}, {"rename", "a", "x/y/z", nil, ""}, {"read", "x/y/z", "v", nil, ""}}},
		{"rename over a file", nil, []step{{"write", "a", "1", nil, ""}, {"write", "b", "2", nil, ""}, {"rename", "a", "b", nil, ""}, {"read", "b", "1", nil, ""}, {"read", "a", "", ErrNotExist, gone}}},
		{"rename to itself", nil, []step{{"write", "a", "v", nil, ""}, {"rename", "a", "./a", nil, ""}, {"read", "a", "v", nil, ""}}},
		{"rename onto a directory", nil, []step{{"write", "a", "v", nil, ""}, {"write", "d/x", "1", nil, ""}, {"rename", "a", "d", ErrConflict, ""}, {"read", "a", "v", nil, ""}}},
		{"rename onto an empty directory", func(w string) error { return os.Mkdir(w+"/d", 0o755) }, []step{{"write", "a", "v", nil, ""}, {"rename", "a", "d", ErrConflict, ""}, {"read", "a", "v", nil, ""}}},
		{"rename below a file", nil, []step{{"write", "a", "v", nil, ""}, {"write", "b", "", nil, ""}, {"rename", "a", "b/c", ErrConflict, ""}, {"rename", "a", "a/c", ErrConflict, ""}, {"read", "a", "v", nil, ""}}},

		{"link inside", func(w string) error { return os.Symlink("d/a", w+"/l") }, []step{{"write", "d/a", "in", nil, ""}, {"read", "l", "in", nil, ""}, {"write", "l", "new", nil, ""}, {"read", "d/a", "new", nil, ""}}},
		{"link to a directory inside", func(w string) error { return os.Symlink("d", w+"/l") }, []step{{"write", "d/a", "in", nil, ""}, {"read", "l/a", "in", nil, ""}, {"write", "l/b/c", "new", nil, ""}, {"read", "d/b/c", "new", nil, ""}, {"delete", "l", "", ErrNotExist, gone}}},
		{"link with .. inside", func(w string) error {
			return errors.Join(os.Mkdir(w+"/d", 0o755), os.Symlink("../a", w+"/d/l"))
		}, []step{{"write", "a", "in", nil, ""}, {"read", "d/l", "in", nil, ""}}},
		{"link to what isn't there", func(w string) error { return os.Symlink("d/../new", w+"/l") }, []step{{"read", "l", "", ErrNotExist, gone}, {"write", "d/x", "", nil, ""}, {"write", "l", "v", nil, ""}, {"read", "new", "v", nil, ""}, {"read", "l", "v", nil, ""}}},
		{"links one after the other to nothing", func(w string) error {
			return errors.Join(os.Mkdir(w+"/d", 0o755), os.Symlink("d/l2", w+"/l"), os.Symlink("../new", w+"/d/l2"))
		}, []step{{"write", "l", "v", nil, ""}, {"read", "new", "v", nil, ""}}},
		{"link into a missing directory", func(w string) error { return os.Symlink("no/new", w+"/l") }, []step{{"write", "l", "v", ErrConflict, ""}}},
		{"dangling link is deleted", func(w string) error { return os.Symlink("no", w+"/l") }, []step{{"rename", "l", "m", ErrNotExist, oldGone}, {"delete", "l", "", nil, ""}, {"delete", "l", "", ErrNotExist, gone}}},
		{"link is deleted, not its file", func(w string) error { return os.Symlink("a", w+"/l") }, []step{{"write", "a", "v", nil, ""}, {"delete", "l", "", nil, ""}, {"read", "a", "v", nil, ""}, {"read", "l", "", ErrNotExist, gone}}},
		{"link is renamed, not its file", func(w string) error { return os.Symlink("a", w+"/l") }, []step{{"write", "a", "v", nil, ""}, {"rename", "l", "m", nil, ""}, {"read", "m", "v", nil, ""}, {"read", "a", "v", nil, ""}, {"read", "l", "", ErrNotExist, gone}}},
		{"rename over a link", func(w string) error { return os.Symlink("a", w+"/l") }, []step{{"write", "a", "v", nil, ""}, {"write", "b", "w", nil, ""}, {"rename", "b", "l", nil, ""}, {"read", "l", "w", nil, ""}, {"read", "a", "v", nil, ""}}},
		{"loop of links", func(w string) error { return errors.Join(os.Symlink("l", w+"/m"), os.Symlink("m", w+"/l")) }, []step{{"read", "l", "", ErrRefused, ""}, {"write", "l", "", ErrRefused, ""}, {"write", "l/x", "", ErrRefused, ""}, {"delete", "l", "", ErrRefused, ""}, {"rename", "l", "x", ErrRefused, ""}}},
		{"link to itself", func(w string) error { return os.Symlink("l", w+"/l") }, []step{{"read", "l", "", ErrRefused, ""}, {"write", "l", "", ErrRefused, ""}}},
		{"forbidden by mode", func(w string) error {
			return errors.Join(os.WriteFile(w+"/ro", []byte("v"), 0o444), os.WriteFile(w+"/no", nil, 0o000), os.Mkdir(w+"/d", 0o000))
		}, []step{{"read", "ro", "v", nil, ""}, {"write", "ro", "x", ErrRefused, ""}, {"read", "no", "", ErrRefused, ""}, {"read", "d/x", "", ErrRefused, ""}, {"write", "d/x", "", ErrRefused, ""}, {"write", "d/e/x", "", ErrRefused, ""}, {"delete", "ro", "", nil, ""}}},
		{"the work directory itself forbidden", func(w string) error { return os.Chmod(w, 0o000) }, []step{{"write", "a", "v", nil, ""}, {"read", "a", "v", nil, ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSession(t, newStore(t))
			if c.setup != nil {
				as(t, s, func() error { return c.setup(s.WorkDir()) })
			}
			for _, st := range c.steps {
				st.run(t, s)
			}
		})
	}
}

func TestOwnersAndModes(t *testing.T) {
	st := newStore(t)
	s := newSession(t, st)
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	ok(t, s.WriteFile("d/e/f", []byte("v")))
	ok(t, s.WriteFile("g", []byte("v")))
	ok(t, s.RenameFile("g", "h/i/g"))
	uid, gid := s.UID(), s.GID()
	if uid < 0 {
		uid, gid = os.Geteuid(), os.Getegid()
	}
	own := os.ModeDir | 0o700
	if s.UID() >= 0 {
		own = os.ModeDir | 0o710
	}
	for _, c := range []struct {
		path     string
		uid, gid int
		mode     os.FileMode
	}{
		{s.path, os.Geteuid(), gid, own},
		{s.path + "/meta.json", os.Geteuid(), os.Getegid(), 0o600},
		{s.WorkDir(), uid, gid, os.ModeDir | 0o700},
		{s.TmpDir(), uid, gid, os.ModeDir | 0o700},
		{s.HomeDir(), uid, gid, os.ModeDir | 0o700},
		{s.WorkDir() + "/d", uid, gid, os.ModeDir | 0o755},
		{s.WorkDir() + "/d/e", uid, gid, os.ModeDir | 0o755},
		{s.WorkDir() + "/d/e/f", uid, gid, 0o644},
		{s.WorkDir() + "/h/i", uid, gid, os.ModeDir | 0o755},
		{s.WorkDir() + "/h/i/g", uid, gid, 0o644},
	} {
		if u, g, m := owner(t, c.path); u != c.uid || g != c.gid || m != c.mode {
			t.Errorf("%s is %d:%d %v, want %d:%d %v", c.path, u, g, m, c.uid, c.gid, c.mode)
		}
	}
	as(t, s, func() error { return os.Chmod(s.WorkDir()+"/d/e/f", 0o755) })
	ok(t, s.WriteFile("d/e/f", []byte("w")))
	if _, _, m := owner(t, s.WorkDir()+"/d/e/f"); m != 0o755 {
		t.Errorf("mode is %v after a write, want it as it was", m)
	}
}

func TestSizeLimits(t *testing.T) {
	s := newSession(t, newStore(t, func(c *Config) { c.MaxFileBytes = 10 }))
	ok(t, s.WriteFile("a", bytes.Repeat([]byte("x"), 10)))
	step{"read", "a", "xxxxxxxxxx", nil, ""}.run(t, s)
	step{"write", "a", "01234567890", ErrTooLarge, "File is too large to write: 11 bytes, the limit is 10"}.run(t, s)
	step{"read", "a", "xxxxxxxxxx", nil, ""}.run(t, s)
	as(t, s, func() error { return os.Truncate(s.WorkDir()+"/a", 1<<40) })
	step{"read", "a", "", ErrTooLarge, "File is too large to read: 1099511627776 bytes, the limit is 10"}.run(t, s)
	step{"write", "a", "x", nil, ""}.run(t, s)
	step{"read", "a", "x", nil, ""}.run(t, s)
}

// When the disk is full, an existing file keeps its content.
func TestDiskFull(t *testing.T) {
	asRoot(t)
	dir := filepath.Join(reachable(t), "disk")
	ok(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0755"); err != nil {
		t.Skipf("can't mount a small disk: %v", err)
	}
	t.Cleanup(func() { ok(t, unix.Unmount(dir, 0)) })
	st := openStore(t, testConfig(dir+"/data"))
	s := newSession(t, st)
	ok(t, s.WriteFile("a", []byte("precious")))
	huge := strings.Repeat("x", 1<<20)
	step{"write", "a", huge, ErrNoSpace, ""}.run(t, s)
	step{"write", "new", huge, ErrNoSpace, ""}.run(t, s)
	step{"read", "a", "precious", nil, ""}.run(t, s)
	step{"read", "new", "", ErrNotExist, ""}.run(t, s)
	step{"write", "b", "there is room again", nil, ""}.run(t, s)

	ok(t, s.WriteFile("big", bytes.Repeat([]byte("x"), 150<<10)))
	_, err := st.Fork(t.Context(), "session", "copy", 1)
	wantKind(t, err, ErrNoSpace)
	if entries, err := os.ReadDir(dir + "/data/staging"); err != nil || len(entries) > 0 {
		t.Errorf("staging holds %v, %v", entries, err)
	}
	ok(t, st.Remove("session"))
}
