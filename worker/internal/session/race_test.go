package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// swapUntil lets a job exchange two entries of work over and over while fn runs
// again and again: until there were enough runs and fn has both succeeded and
// been refused, so that the test has seen both sides of the swap.
func swapUntil(t *testing.T, s *Session, a, b string, fn func() error) {
	t.Helper()
	work, err := unix.Open(s.WorkDir(), dirFlags, 0)
	ok(t, err)
	defer unix.Close(work)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(work, a, work, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	var went, refused int
	deadline := time.Now().Add(patience / 2)
	for runs := 0; runs < 1500 || went == 0 || refused == 0; runs++ {
		err := fn()
		if err == nil {
			went++
			continue
		}
		refused++
		if _, typed := errors.AsType[*Error](err); !typed {
			t.Fatalf("error %v is no *Error", err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %d runs: %d succeeded, %d refused", runs, went, refused)
		}
	}
}

// A job swaps a directory, or a file, and a link out of the session while the
// API works on it. Nothing outside is ever read, made, changed or given away.
func TestSwappedForALinkOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		target string // of the link, outside
		dir    bool
		do     func(s *Session) error
	}{
		{"read in a directory", "", true, func(s *Session) error { return readsOwn(s, "x/f") }},
		{"write in a directory", "", true, func(s *Session) error { return s.WriteFile("x/f", []byte("evil")) }},
		{"make in a directory", "", true, func(s *Session) error { return s.WriteFile("x/new", []byte("evil")) }},
		{"make directories", "", true, func(s *Session) error { return s.WriteFile("x/a/b/c", []byte("evil")) }},
		{"delete in a directory", "", true, func(s *Session) error {
			return errors.Join(s.WriteFile("x/new", nil), s.DeleteFile("x/new"))
		}},
		{"rename out of a directory", "", true, func(s *Session) error { return s.RenameFile("x/f", "x/f") }},
		{"rename into a directory", "", true, func(s *Session) error {
			return errors.Join(s.WriteFile("moved", []byte("evil")), s.RenameFile("moved", "x/moved"))
		}},
		{"read a file", "/f", false, func(s *Session) error { return readsOwn(s, "x") }},
		{"write a file", "/f", false, func(s *Session) error { return s.WriteFile("x", []byte("evil")) }},
		{"make a file", "/new", false, func(s *Session) error { return s.WriteFile("x", []byte("evil")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			s := newSession(t, st)
			outside := filepath.Join(filepath.Dir(st.root), "outside")
			ok(t, os.Mkdir(outside, 0o777))
			ok(t, os.Chmod(outside, 0o777))
			ok(t, os.WriteFile(outside+"/f", []byte("secret"), 0o666))
			ok(t, os.Chmod(outside+"/f", 0o666))
			uid, gid := os.Geteuid(), os.Getegid()
			if s.UID() >= 0 {
				// The session's user may do anything there, so that it is the
				// way of resolving the path alone that keeps the API out.
				uid, gid = s.UID(), s.GID()
				ok(t, errors.Join(os.Chown(outside, uid, gid), os.Chown(outside+"/f", uid, gid)))
			}
			if c.dir {
				ok(t, s.WriteFile("x/f", []byte("own")))
			} else {
				ok(t, s.WriteFile("x", []byte("own")))
			}
			as(t, s, func() error { return os.Symlink(outside+c.target, s.WorkDir()+"/out") })
			swapUntil(t, s, "x", "out", func() error { return c.do(s) })

			entries, err := os.ReadDir(outside)
			ok(t, err)
			data, err := os.ReadFile(outside + "/f")
			ok(t, err)
			if len(entries) != 1 || string(data) != "secret" {
				t.Errorf("outside holds %v, the secret is %q", entries, data)
			}
			for _, path := range []string{outside, outside + "/f"} {
				if u, g, mode := owner(t, path); u != uid || g != gid || mode.Perm()&0o666 != 0o666 {
					t.Errorf("%s is %d:%d %v now", path, u, g, mode)
				}
			}
		})
	}
}

// readsOwn reads a file, and panics if it is the one outside.
func readsOwn(s *Session, rel string) error {
	data, err := s.ReadFile(rel)
	if err == nil && string(data) != "own" {
		panic(fmt.Sprintf("read %q from outside", data))
	}
	return err
}

// A file that is swapped for a FIFO after it was looked at must not block.
func TestSwappedForAFIFO(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *Session) error
	}{
		{"read", func(s *Session) error { return readsOwn(s, "x") }},
		{"write", func(s *Session) error { return s.WriteFile("x", []byte("own")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSession(t, newStore(t))
			ok(t, s.WriteFile("x", []byte("own")))
			as(t, s, func() error { return unix.Mkfifo(s.WorkDir()+"/fifo", 0o600) })
			within(t, c.name, func() {
				swapUntil(t, s, "x", "fifo", func() error { return c.do(s) })
			})
		})
	}
}

// A copy never takes anything from outside either, whatever is swapped meanwhile.
func TestForkWhileSwapped(t *testing.T) {
	st := newStore(t)
	s := newSession(t, st)
	outside := filepath.Join(filepath.Dir(st.root), "outside")
	ok(t, os.Mkdir(outside, 0o755))
	ok(t, os.WriteFile(outside+"/f", []byte("secret"), 0o644))
	ok(t, s.WriteFile("x/f", []byte("own")))
	as(t, s, func() error { return os.Symlink(outside, s.WorkDir()+"/out") })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, s.WorkDir()+"/x", unix.AT_FDCWD, s.WorkDir()+"/out", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 50 {
		fork, err := st.Fork(t.Context(), "session", "copy", 1)
		ok(t, err)
		// The swap moves the names; in a copy each is either of the two.
		for _, name := range []string{"x", "out"} {
			path := fork.WorkDir() + "/" + name
			info, err := os.Lstat(path)
			if err != nil || info.Mode().Type() == os.ModeSymlink {
				continue
			}
			if data, err := os.ReadFile(path + "/f"); err == nil && string(data) != "own" {
				t.Fatalf("%s/f in the copy is %q", name, data)
			}
		}
		ok(t, st.Remove("copy"))
	}
}
