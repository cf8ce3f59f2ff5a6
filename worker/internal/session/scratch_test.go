package session

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newScratch(t *testing.T, st *Store) *Scratch {
	t.Helper()
	s, err := st.NewScratch("slot-0")
	ok(t, err)
	t.Cleanup(func() {
		if s.dir >= 0 {
			ok(t, s.Close())
		}
	})
	return s
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	ok(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// wantNew checks that a scratch is as one that was just made.
func wantNew(t *testing.T, s *Scratch) {
	t.Helper()
	for i, dir := range []string{s.WorkDir(), s.TmpDir(), s.HomeDir()} {
		entries, err := os.ReadDir(dir)
		ok(t, err)
		if len(entries) > 0 {
			t.Errorf("%s holds %v", dir, entries)
		}
		uid, gid, mode := owner(t, dir)
		if mode != os.ModeDir|0o700 || s.UID() >= 0 && (uid != s.UID() || gid != s.UID()) {
			t.Errorf("%s is %d:%d %v", dir, uid, gid, mode)
		}
		fd, err := openAt(unix.AT_FDCWD, dir, dirFlags|unix.O_NOATIME, 0)
		ok(t, err)
		if hasAttributes(fd) {
			t.Errorf("%s has extended attributes", dir)
		}
		if got := inodeFlags(fd); got != s.dirs[i].flags {
			t.Errorf("%s has flags %#x, want %#x", dir, got, s.dirs[i].flags)
		}
		unix.Close(fd)
		info, err := os.Lstat(dir)
		ok(t, err)
		if info.Size() > maxScratchDirBytes {
			t.Errorf("%s is still %d bytes large", dir, info.Size())
		}
		if age := time.Since(info.ModTime()); age > time.Hour || age < 0 {
			t.Errorf("%s is of %v", dir, info.ModTime())
		}
	}
	if entries, err := os.ReadDir(s.path); err != nil || len(entries) != len(placeNames) {
		t.Errorf("the scratch holds %v, %v", entries, err)
	}
}

// settle lets time pass until the directories' change times vouch for them.
func settle(t *testing.T, s *Scratch) {
	t.Helper()
	s.settle = 15 * time.Millisecond
	for start := time.Now(); s.dirs[0].settled.Sec == 0 || s.dirs[1].settled.Sec == 0 || s.dirs[2].settled.Sec == 0; {
		ok(t, s.Reset())
		if time.Since(start) > patience {
			t.Fatal("the change times never settle")
		}
	}
}

func TestScratchReset(t *testing.T) {
	type dirt struct {
		name string
		make func(s *Scratch) error
	}
	cases := []dirt{
		{"a file", func(s *Scratch) error { return os.WriteFile(s.TmpDir()+"/f", nil, 0o600) }},
		{"a hidden file", func(s *Scratch) error { return os.WriteFile(s.HomeDir()+"/.f", nil, 0o600) }},
		{"a tree", func(s *Scratch) error { return os.MkdirAll(s.WorkDir()+"/a/b/c", 0o700) }},
		{"open to all", func(s *Scratch) error { return os.Chmod(s.WorkDir(), 0o777) }},
		{"closed to all", func(s *Scratch) error { return os.Chmod(s.WorkDir(), 0o000) }},
		{"set-group-id", func(s *Scratch) error { return os.Chmod(s.WorkDir(), 0o700|os.ModeSetgid) }},
		{"a tree, closed", func(s *Scratch) error {
			return errors.Join(os.MkdirAll(s.WorkDir()+"/a/b", 0o700), os.Chmod(s.WorkDir(), 0o000))
		}},
		{"its times", func(s *Scratch) error {
			past := time.Unix(12345, 678)
			return os.Chtimes(s.HomeDir(), past, past)
		}},
		{"an attribute", func(s *Scratch) error { return unix.Setxattr(s.WorkDir(), "user.message", []byte("hello"), 0) }},
		{"many attributes", func(s *Scratch) error {
			for i := range 40 {
				if err := unix.Setxattr(s.WorkDir(), fmt.Sprintf("user.message%030d", i), []byte("hello"), 0); err != nil {
					return err
				}
			}
			return nil
		}},
		{"an access control list", func(s *Scratch) error {
			acl := []byte{2, 0, 0, 0, // version; then tag, permissions and id of each entry
				1, 0, 7, 0, 255, 255, 255, 255, // owner
				4, 0, 7, 0, 255, 255, 255, 255, // group
				32, 0, 7, 0, 255, 255, 255, 255} // others
			return unix.Setxattr(s.WorkDir(), "system.posix_acl_default", acl, 0)
		}},
		{"an inode flag", func(s *Scratch) error {
			fd, err := unix.Open(s.WorkDir(), dirFlags, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|0x80)) // no access times
		}},
		{"a directory that stays large", func(s *Scratch) error {
			for i := range 400 {
				name := fmt.Sprintf("%s/%0250d", s.WorkDir(), i)
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					return err
				}
				defer os.Remove(name)
			}
			return nil
		}},
	}
	for _, tree := range hostileTrees(200, 500) {
		cases = append(cases, dirt{tree.name, func(s *Scratch) error {
			fd, err := unix.Open(s.WorkDir(), dirFlags, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return tree.make(s.WorkDir(), fd)
		}})
	}
	if os.Geteuid() != 0 {
		cases = append(cases,
			dirt{"directory removed", func(s *Scratch) error { return os.Remove(s.WorkDir()) }},
			dirt{"directory replaced", func(s *Scratch) error {
				return errors.Join(os.Rename(s.WorkDir(), s.path+"/old"), os.Mkdir(s.WorkDir(), 0o700))
			}},
			dirt{"directory replaced by a link", func(s *Scratch) error {
				return errors.Join(os.Remove(s.WorkDir()), os.Symlink(os.TempDir(), s.WorkDir()))
			}},
			dirt{"directory replaced by a FIFO", func(s *Scratch) error {
				return errors.Join(os.Remove(s.WorkDir()), unix.Mkfifo(s.WorkDir(), 0o600))
			}},
			dirt{"something beside", func(s *Scratch) error { return os.MkdirAll(s.path+"/x/y", 0o700) }},
		)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			s := newScratch(t, st)
			wantNew(t, s)
			settle(t, s)
			err := asUser(s.UID(), func() error { return c.make(s) })
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
				t.Skipf("this file system has no such thing: %v", err)
			}
			ok(t, err)
			start := time.Now()
			within(t, "Reset", func() { ok(t, s.Reset()) })
			t.Logf("took %v", time.Since(start))
			wantNew(t, s)
			kept := inode(t, s.WorkDir())
			ok(t, s.Reset())
			if inode(t, s.WorkDir()) != kept {
				t.Error("a clean directory was replaced")
			}
			if entries, err := os.ReadDir(st.root + "/staging"); err != nil || len(entries) > 0 {
				t.Errorf("staging holds %v, %v", entries, err)
			}
		})
	}
}

func TestScratchLifetime(t *testing.T) {
	c := testConfig(reachable(t) + "/data")
	c.UIDCount = min(c.UIDCount, 2)
	st := openStore(t, c)
	a := newScratch(t, st)
	b, err := st.NewScratch("slot-1")
	ok(t, err)
	if c.UIDCount > 0 {
		if a.UID() == b.UID() {
			t.Errorf("both have user id %d", a.UID())
		}
		_, err := st.NewScratch("slot-2")
		wantKind(t, err, ErrNoUsers)
	}
	if _, err := st.NewScratch("../x"); err == nil {
		t.Error("a name that leads elsewhere was taken")
	}
	ok(t, a.Close())
	if exists(t, a.path) {
		t.Error("it is still there after Close")
	}
	if count, bytes := st.Stats(); count != 0 || bytes != 0 {
		t.Errorf("scratches count as sessions: %d, %d bytes", count, bytes)
	}
	// What an earlier worker left is gone, and its users are free again.
	ok(t, os.WriteFile(b.WorkDir()+"/f", nil, 0o600))
	b.closeAll()
	ok(t, st.Close())
	st = openStore(t, c)
	for range 2 {
		s, err := st.NewScratch(fmt.Sprint("slot-", 1))
		ok(t, err)
		wantNew(t, s)
		ok(t, s.Close())
	}
}
