package session

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFork(t *testing.T) {
	st := newStore(t)
	s := newSession(t, st)
	past := time.Unix(1_000_000_000, 0)
	ok(t, s.WriteFile("a/b.txt", []byte("v")))
	w := s.WorkDir()
	as(t, s, func() error {
		hole, err := os.Create(w + "/sparse")
		if err != nil {
			return err
		}
		defer hole.Close()
		if _, err := hole.WriteAt([]byte("end"), 1<<30); err != nil {
			return err
		}
		return errors.Join(
			hole.Truncate(1<<31),
			os.WriteFile(w+"/run", []byte("#!/bin/sh"), 0o755),
			os.Chmod(w+"/run", 0o755|os.ModeSetuid|os.ModeSetgid),
			os.Chtimes(w+"/run", past, past),
			os.WriteFile(w+"/read-only", nil, 0o444),
			os.WriteFile(w+"/big", []byte(strings.Repeat("0123456789", 1<<20)), 0o600),
			os.MkdirAll(w+"/empty/dir", 0o750),
			os.Mkdir(w+"/closed", 0o500),
			os.Symlink("a/b.txt", w+"/l"),
			os.Symlink("/etc/passwd", w+"/leak"),
			os.Symlink("nowhere", w+"/dangling"),
			os.WriteFile(w+"/\xff\n", []byte("odd"), 0o600),
			unix.Mkfifo(w+"/fifo", 0o600),
			unix.Mknod(w+"/socket", unix.S_IFSOCK|0o600, 0),
			os.WriteFile(s.TmpDir()+"/t", nil, 0o600),
			os.WriteFile(s.HomeDir()+"/h", nil, 0o600),
		)
	})
	c, err := st.Fork(t.Context(), "session", "copy", 4)
	ok(t, err)
	if c.ID() != "copy" || c.Epoch() != 4 || c.UID() >= 0 && c.UID() == s.UID() {
		t.Errorf("the copy is %s, epoch %d, user %d", c.ID(), c.Epoch(), c.UID())
	}
	step{"read", "a/b.txt", "v", nil, ""}.run(t, c)
	step{"write", "a/b.txt", "changed", nil, ""}.run(t, c)
	step{"write", "a/new", "x", nil, ""}.run(t, c)
	step{"read", "a/b.txt", "v", nil, ""}.run(t, s)
	step{"read", "a/new", "", ErrNotExist, ""}.run(t, s)
	step{"read", "l", "changed", nil, ""}.run(t, c)
	step{"read", "leak", "", ErrRefused, ""}.run(t, c)
	step{"read", "\xff\n", "odd", nil, ""}.run(t, c)

	uid := c.UID()
	if uid < 0 {
		uid = os.Geteuid()
	}
	cw := c.WorkDir()
	for _, f := range []struct {
		path string
		mode os.FileMode
	}{
		{"/run", 0o755}, {"/read-only", 0o444}, {"/big", 0o600}, {"/empty/dir", os.ModeDir | 0o750}, {"/closed", os.ModeDir | 0o500},
		{"/a", os.ModeDir | 0o755}, {"/l", os.ModeSymlink | 0o777}, {"/dangling", os.ModeSymlink | 0o777}, {"", os.ModeDir | 0o700},
	} {
		if u, g, mode := owner(t, cw+f.path); mode != f.mode || u != uid || c.UID() >= 0 && g != uid {
			t.Errorf("%s is %d:%d %v, want user %d and %v", f.path, u, g, mode, uid, f.mode)
		}
	}
	big, err := os.ReadFile(cw + "/big")
	if err != nil || string(big) != strings.Repeat("0123456789", 1<<20) {
		t.Errorf("big has %d bytes, %v", len(big), err)
	}
	info, err := os.Stat(cw + "/sparse")
	ok(t, err)
	if blocks := info.Sys().(*syscall.Stat_t).Blocks; info.Size() != 1<<31 || blocks*512 > 1<<20 {
		t.Errorf("sparse has %d bytes in %d blocks", info.Size(), blocks)
	}
	tail := make([]byte, 3)
	f, err := os.Open(cw + "/sparse")
	ok(t, err)
	defer f.Close()
	if _, err := f.ReadAt(tail, 1<<30); err != nil || string(tail) != "end" {
		t.Errorf("sparse ends with %q, %v", tail, err)
	}
	if info, err := os.Stat(cw + "/run"); err != nil || !info.ModTime().Equal(past) {
		t.Errorf("run is of %v, want %v", info.ModTime(), past)
	}
	for _, path := range []string{cw + "/fifo", cw + "/socket", c.TmpDir() + "/t", c.HomeDir() + "/h"} {
		if exists(t, path) {
			t.Errorf("%s was copied", path)
		}
	}
	if _, got := st.Stats(); got != s.Usage().Bytes+c.Usage().Bytes || c.Usage().Files == 0 {
		t.Errorf("the store counts %d bytes, the sessions %+v and %+v", got, s.Usage(), c.Usage())
	}
	again, err := st.Fork(t.Context(), "copy", "copy2", 1)
	ok(t, err)
	step{"read", "a/b.txt", "changed", nil, ""}.run(t, again)
}

func TestForkRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, st *Store, s *Session) (ctx context.Context)
		kind  error
	}{
		{"too many entries", func(t *testing.T, st *Store, s *Session) context.Context {
			for _, name := range []string{"/a", "/b", "/c", "/d"} {
				as(t, s, func() error { return os.Mkdir(s.WorkDir()+name, 0o700) })
			}
			return t.Context()
		}, ErrTooLarge},
		{"too many bytes", func(t *testing.T, st *Store, s *Session) context.Context {
			as(t, s, func() error { return os.WriteFile(s.WorkDir()+"/a", make([]byte, 2<<20), 0o600) })
			return t.Context()
		}, ErrTooLarge},
		{"too deep", func(t *testing.T, st *Store, s *Session) context.Context {
			st.cfg.QuotaFiles = 0
			as(t, s, func() error { return os.MkdirAll(s.WorkDir()+strings.Repeat("/d", maxTreeDepth+1), 0o700) })
			return t.Context()
		}, ErrTooLarge},
		{"id is taken", func(t *testing.T, st *Store, s *Session) context.Context {
			_, err := st.Create("copy", 1)
			ok(t, err)
			return t.Context()
		}, ErrConflict},
		{"session is gone", func(t *testing.T, st *Store, s *Session) context.Context {
			ok(t, st.Remove("session"))
			return t.Context()
		}, ErrNoSession},
		{"cancelled", func(t *testing.T, st *Store, s *Session) context.Context {
			ok(t, s.WriteFile("a", []byte("v")))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		}, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t, func(c *Config) { c.QuotaFiles, c.QuotaBytes = 3, 1<<20 })
			s := newSession(t, st)
			ctx := c.setup(t, st, s)
			before := len(st.List())
			if _, err := st.Fork(ctx, "session", "copy", 1); !errors.Is(err, c.kind) {
				t.Errorf("error is %v, want one of kind %q", err, c.kind)
			}
			if n := len(st.List()); n != before {
				t.Errorf("there are %d sessions, before there were %d", n, before)
			}
			if entries, err := os.ReadDir(st.root + "/staging"); err != nil || len(entries) > 0 {
				t.Errorf("staging holds %v, %v", entries, err)
			}
			if used := st.cfg.UIDCount - len(st.uids.free); st.cfg.UIDCount > 0 && used != before {
				t.Errorf("%d user ids are taken by %d sessions", used, before)
			}
		})
	}
}

// The kernel's own copying doesn't work everywhere.
func TestForkWithoutCopyFileRange(t *testing.T) {
	dir := t.TempDir()
	want := strings.Repeat("0123456789", 100_000)
	ok(t, os.WriteFile(dir+"/a", []byte(want), 0o600))
	src, err := unix.Open(dir+"/a", unix.O_RDONLY, 0)
	ok(t, err)
	defer unix.Close(src)
	dst, err := unix.Open(dir+"/b", unix.O_WRONLY|unix.O_CREAT, 0o600)
	ok(t, err)
	defer unix.Close(dst)
	c := &treeCopy{ctx: t.Context(), plain: make([]byte, 1000)}
	ok(t, c.content(src, dst, int64(len(want))))
	got, err := os.ReadFile(dir + "/b")
	if err != nil || string(got) != want {
		t.Errorf("copied %d of %d bytes, %v", len(got), len(want), err)
	}
}
