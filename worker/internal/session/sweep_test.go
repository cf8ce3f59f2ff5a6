package session

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nest makes directories one in the other below an open one. Every tenth has a
// file beside the next, and is closed to its owner afterwards.
func nest(dir, levels int) error {
	at, err := unix.Dup(dir)
	if err != nil {
		return err
	}
	for i := range levels {
		if err := unix.Mkdirat(at, "d", 0o700); err != nil {
			unix.Close(at)
			return err
		}
		next, err := openDirAt(at, "d")
		if err == nil && i%10 == 0 {
			var fd int
			if fd, err = openAt(at, "f", unix.O_CREAT|unix.O_WRONLY, 0o400); err == nil {
				unix.Close(fd)
				err = unix.Fchmod(at, 0)
			}
		}
		unix.Close(at)
		if err != nil {
			return err
		}
		at = next
	}
	return unix.Close(at)
}

type hostileTree struct {
	name string
	make func(dir string, fd int) error
}

// hostileTrees are what a job may leave, made in its directory. 10,000 levels
// and more files are no problem for a sweep, but take a disk's file system
// seconds to make.
func hostileTrees(levels, files int) []hostileTree {
	return []hostileTree{
		{fmt.Sprint(levels, " levels"), func(dir string, fd int) error { return nest(fd, levels) }},
		{"wide and deep", func(dir string, fd int) error {
			for i := range 5 {
				sub := fmt.Sprint(dir, "/", i)
				if err := os.Mkdir(sub, 0o700); err != nil {
					return err
				}
				child, err := openDirAt(fd, fmt.Sprint(i))
				if err != nil {
					return err
				}
				err = nest(child, 3*sweepDepth)
				unix.Close(child)
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{fmt.Sprint(files, " files"), func(dir string, fd int) error {
			for i := range files {
				if err := unix.Mknodat(fd, fmt.Sprint(i), unix.S_IFREG|0o600, 0); err != nil {
					return err
				}
			}
			return nil
		}},
		{"mode 000", func(dir string, fd int) error {
			for _, d := range []string{"/a", "/a/b", "/a/b/c"} {
				if err := os.Mkdir(dir+d, 0o700); err != nil {
					return err
				}
			}
			if err := os.WriteFile(dir+"/a/b/c/f", nil, 0o000); err != nil {
				return err
			}
			for _, d := range []string{"/a/b/c", "/a/b", "/a", ""} {
				if err := os.Chmod(dir+d, 0o000); err != nil {
					return err
				}
			}
			return nil
		}},
		{"read-only directories", func(dir string, fd int) error {
			if err := os.MkdirAll(dir+"/a/b", 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(dir+"/a/b/f", nil, 0o400); err != nil {
				return err
			}
			if err := os.Chmod(dir+"/a/b", 0o500); err != nil {
				return err
			}
			return os.Chmod(dir+"/a", 0o500)
		}},
		{"names that aren't UTF-8", func(dir string, fd int) error {
			for _, name := range []string{"\xff\xfe", "a\nb", "\x01", "-rf", " ", "..."} {
				if err := os.MkdirAll(dir+"/"+name+"/"+name, 0o700); err != nil {
					return err
				}
			}
			return nil
		}},
		{"special files and links", func(dir string, fd int) error {
			if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
				return err
			}
			if err := unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o600, 0); err != nil {
				return err
			}
			for name, target := range map[string]string{"up": "..", "etc": "/etc", "loop": "loop", "self": "."} {
				if err := os.Symlink(target, dir+"/"+name); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

func makeHostile(t *testing.T, p interface {
	UID() int
	WorkDir() string
}, build func(dir string, fd int) error) {
	t.Helper()
	fd, err := unix.Open(p.WorkDir(), dirFlags, 0)
	ok(t, err)
	defer unix.Close(fd)
	as(t, p, func() error { return build(p.WorkDir(), fd) })
}

// fastDir is a directory in memory where the machine has one.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "session")
	if err != nil {
		return reachable(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ok(t, os.Chmod(dir, 0o755))
	return dir
}

// fewDescriptors lowers the limit, so that a descriptor for each level is too many.
func fewDescriptors(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(300, old.Max), Max: old.Max}))
	t.Cleanup(func() { ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
}

func TestRemoveHostileTrees(t *testing.T) {
	fewDescriptors(t)
	for _, c := range hostileTrees(10_000, 20_000) {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t, func(c *Config) { c.Root = fastDir(t) + "/data" })
			s := newSession(t, st)
			makeHostile(t, s, c.make)
			start := time.Now()
			if _, err := s.Refresh(); err != nil {
				t.Errorf("measure: %v", err)
			}
			measured := time.Now()
			ok(t, st.Remove("session"))
			t.Logf("measured in %v, removed in %v", measured.Sub(start), time.Since(measured))
			for _, dir := range []string{"sessions", "staging"} {
				if entries, err := os.ReadDir(st.root + "/" + dir); err != nil || len(entries) > 0 {
					t.Errorf("%s holds %d entries, %v", dir, len(entries), err)
				}
			}
		})
	}
}

// Removing follows no link, whatever it is called.
func TestRemoveLeavesLinkTargets(t *testing.T) {
	st := newStore(t)
	s := newSession(t, st)
	outside := t.TempDir()
	ok(t, os.WriteFile(outside+"/f", nil, 0o666))
	ok(t, os.Chmod(outside, 0o777))
	as(t, s, func() error { return os.Symlink(outside, s.WorkDir()+"/l") })
	ok(t, st.Remove("session"))
	if !exists(t, outside+"/f") {
		t.Error("the file outside is gone")
	}
}

// Where jobs are the worker's own user, they can replace even the directories.
func TestReplacedDirectories(t *testing.T) {
	for _, c := range []struct {
		name    string
		replace func(path string) error
		kind    error // of a write; nil if it works again
	}{
		{"removed", os.Remove, nil},
		{"by a link", func(p string) error { os.Remove(p); return os.Symlink(os.TempDir(), p) }, ErrRefused},
		{"by a FIFO", func(p string) error { os.Remove(p); return unix.Mkfifo(p, 0o600) }, ErrRefused},
		{"by a file", func(p string) error { os.Remove(p); return os.WriteFile(p, nil, 0o600) }, ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			s := newSession(t, st)
			ok(t, c.replace(s.WorkDir()))
			within(t, "a write", func() {
				err := s.WriteFile("gradefleet-session-test", nil)
				if c.kind == nil {
					ok(t, err)
				} else {
					wantKind(t, err, c.kind)
				}
				_, err = s.ReadFile("gradefleet-session-test")
				if c.kind != nil {
					wantKind(t, err, c.kind)
				}
			})
			ok(t, st.Remove("session"))
		})
	}
}
