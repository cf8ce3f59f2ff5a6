package session

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything that leads out is refused, and what is outside stays as it was.
func TestLinksThatLeadOut(t *testing.T) {
	for _, c := range []struct {
		name, link string // %O is the directory outside, %S the session's own
	}{
		{"absolute file", "%O/secret"},
		{"absolute directory", "%O"},
		{"absolute into the session", filepath.Join("%S", workName, "a")},
		{"relative", "../../../../outside/secret"},
		{"relative directory", "../../../../outside"},
		{"the session's own directory", ".."},
		{"meta.json", "../meta.json"},
		{"home", "../home"},
		{"out and in again", filepath.Join("..", workName, "a")},
		{"many levels", strings.Repeat("../", 40) + "etc/passwd"},
		{"proc", "/proc/self/root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			s := newSession(t, st)
			outside := filepath.Join(filepath.Dir(st.root), "outside")
			ok(t, os.Mkdir(outside, 0o777))
			ok(t, os.Chmod(outside, 0o777))
			ok(t, os.WriteFile(outside+"/secret", []byte("secret"), 0o666))
			ok(t, os.Chmod(outside+"/secret", 0o666))
			if s.UID() >= 0 { // only the way of resolving the path keeps the API out
				ok(t, errors.Join(os.Chown(outside, s.UID(), s.GID()), os.Chown(outside+"/secret", s.UID(), s.GID())))
			}
			ok(t, s.WriteFile("a", []byte("v")))
			as(t, s, func() error {
				target := strings.NewReplacer("%O", outside, "%S", s.path).Replace(c.link)
				return errors.Join(os.Symlink(target, s.WorkDir()+"/l"), os.Symlink("l", s.WorkDir()+"/l2"))
			})
			for _, l := range []string{"l", "l2", "l/secret", "l2/secret", "l/new", "l/d/new"} {
				_, err := s.ReadFile(l)
				wantKind(t, err, ErrRefused)
				wantKind(t, s.WriteFile(l, []byte("evil")), ErrRefused)
				wantKind(t, s.DeleteFile(l), ErrRefused)
				wantKind(t, s.RenameFile(l, "x"), ErrRefused)
				if strings.Contains(l, "/") {
					wantKind(t, s.RenameFile("a", l), ErrRefused)
				}
			}
			entries, err := os.ReadDir(outside)
			ok(t, err)
			data, err := os.ReadFile(outside + "/secret")
			ok(t, err)
			if len(entries) != 1 || string(data) != "secret" {
				t.Fatalf("outside holds %v, secret is %q", entries, data)
			}
			if _, err := readMetaOf(s); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func readMetaOf(s *Session) (meta, error) {
	dir, err := s.open()
	if err != nil {
		return meta{}, err
	}
	defer unix.Close(dir)
	return readMeta(dir)
}

func TestSpecialFiles(t *testing.T) {
	kinds := []struct {
		name string
		mode uint32
		dev  int
	}{{"FIFO", unix.S_IFIFO, 0}, {"socket", unix.S_IFSOCK, 0}}
	if os.Geteuid() == 0 {
		kinds = append(kinds, struct {
			name string
			mode uint32
			dev  int
		}{"device", unix.S_IFCHR, int(unix.Mkdev(1, 3))})
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newSession(t, newStore(t))
			ok(t, unix.Mknod(s.WorkDir()+"/x", k.mode|0o666, k.dev))
			ok(t, os.Chmod(s.WorkDir()+"/x", 0o666))
			as(t, s, func() error { return os.Symlink("x", s.WorkDir()+"/l") })
			for _, name := range []string{"x", "l"} {
				within(t, name, func() {
					step{"read", name, "", ErrRefused, ""}.run(t, s)
					step{"write", name, "v", ErrRefused, ""}.run(t, s)
					step{"write", name + "/y", "v", ErrConflict, ""}.run(t, s)
					step{"read", name + "/y", "", ErrNotExist, ""}.run(t, s)
					step{"delete", name, "", ErrRefused, ""}.run(t, s)
					step{"rename", name, "y", ErrNotExist, textOldMissing}.run(t, s)
				})
			}
			if !exists(t, s.WorkDir()+"/x") {
				t.Error("it is gone")
			}
		})
	}
}

// A job's lease on a file makes a plain open wait for up to 45 seconds.
func TestLease(t *testing.T) {
	s := newSession(t, newStore(t))
	ok(t, s.WriteFile("a", []byte("v")))
	startRole(t, s.UID(), roleLease, s.WorkDir()+"/a")
	within(t, "a lease", func() {
		step{"read", "a", "", ErrConflict, ""}.run(t, s)
		step{"write", "a", "x", ErrConflict, ""}.run(t, s)
	})
}

// The session's user can't touch what is the worker's.
func TestUserIsConfined(t *testing.T) {
	asRoot(t)
	st := newStore(t)
	s := newSession(t, st)
	other, err := st.Create("other", 1)
	ok(t, err)
	ok(t, other.WriteFile("a", []byte("v")))
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"read meta.json", func() error { _, err := os.ReadFile(s.path + "/meta.json"); return err }},
		{"rename work", func() error { return os.Rename(s.WorkDir(), s.path+"/w") }},
		{"remove home", func() error { return os.Remove(s.HomeDir()) }},
		{"make beside", func() error { return os.Mkdir(s.path+"/x", 0o777) }},
		{"list sessions", func() error { _, err := os.ReadDir(st.root + "/sessions"); return err }},
		{"list its own directory's parent", func() error { _, err := os.ReadDir(s.path); return err }},
		{"another's file", func() error { _, err := os.ReadFile(other.WorkDir() + "/a"); return err }},
		{"another's directory", func() error { _, err := os.Stat(other.WorkDir()); return err }},
		{"staging", func() error { _, err := os.ReadDir(st.root + "/staging"); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := asUser(s.UID(), c.do); !errors.Is(err, os.ErrPermission) {
				t.Errorf("error is %v, want permission denied", err)
			}
		})
	}
	as(t, s, func() error { return os.WriteFile(s.WorkDir()+"/mine", nil, 0o600) })
}

// A hard link is no link to refuse; only the owner tells that it isn't the session's.
func TestHardLinkToAnothersFile(t *testing.T) {
	asRoot(t)
	for _, c := range []struct {
		name string
		mode os.FileMode
	}{{"open to all", 0o666}, {"root's own", 0o600}} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			s := newSession(t, st)
			secret := filepath.Join(filepath.Dir(st.root), "secret")
			ok(t, os.WriteFile(secret, []byte("secret"), 0o600))
			ok(t, os.Chmod(secret, c.mode))
			ok(t, os.Link(secret, s.WorkDir()+"/l"))
			step{"read", "l", "", ErrRefused, ""}.run(t, s)
			step{"write", "l", "evil", ErrRefused, ""}.run(t, s)
			_, err := st.Fork(t.Context(), "session", "copy", 1)
			wantKind(t, err, ErrRefused)
			data, err := os.ReadFile(secret)
			ok(t, err)
			if uid, _, mode := owner(t, secret); string(data) != "secret" || uid != 0 || mode != c.mode {
				t.Errorf("it is %q, of user %d, %v", data, uid, mode)
			}
		})
	}
}
