package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCreate(t *testing.T) {
	st := newStore(t)
	a, err := st.Create("a", 3)
	ok(t, err)
	again, err := st.Create("a", 3)
	ok(t, err)
	if again != a {
		t.Error("the same epoch made another session")
	}
	if got, found := st.Get("a"); !found || got != a {
		t.Error("Get doesn't find it")
	}
	if _, found := st.Get("b"); found {
		t.Error("Get finds what was never made")
	}
	for _, id := range []string{"", ".", "..", "a/b", "a=b", strings.Repeat("x", 129)} {
		if _, err := st.Create(id, 1); !errors.Is(err, ErrInvalidPath) {
			t.Errorf("id %q: error is %v", id, err)
		}
	}
	if _, err := st.Create("zero", 0); err == nil {
		t.Error("epoch 0 was taken")
	}
	if a.ID() != "a" || a.WorkDir() != filepath.Join(st.root, "sessions/a/work") || !exists(t, a.TmpDir()) || !exists(t, a.HomeDir()) {
		t.Errorf("session %q has %q, %q, %q", a.ID(), a.WorkDir(), a.TmpDir(), a.HomeDir())
	}
}

// Many at once for one id get one session.
func TestCreateAtOnce(t *testing.T) {
	st := newStore(t)
	got := make([]*Session, 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i], _ = st.Create("a", 1) })
	}
	wg.Wait()
	for _, s := range got {
		if s == nil || s != got[0] {
			t.Fatalf("sessions differ: %p and %p", s, got[0])
		}
	}
	if count, _ := st.Stats(); count != 1 {
		t.Errorf("there are %d sessions", count)
	}
}

func TestEpochs(t *testing.T) {
	c := testConfig(filepath.Join(reachable(t), "data"))
	st := openStore(t, c)
	s, err := st.Create("a", 3)
	ok(t, err)
	ok(t, s.Advance(3))
	wantKind(t, s.Advance(2), ErrStaleEpoch)
	wantKind(t, s.Advance(0), ErrStaleEpoch)
	ok(t, s.Advance(5))
	_, err = st.Create("a", 4)
	wantKind(t, err, ErrStaleEpoch)
	_, err = st.Create("a", 6)
	ok(t, err)
	if s.Epoch() != 6 {
		t.Errorf("epoch is %d, want 6", s.Epoch())
	}
	created := s.Created()
	ok(t, st.Close())
	st = openStore(t, c)
	s, _ = st.Get("a")
	if s.Epoch() != 6 || !s.Created().Equal(created) {
		t.Errorf("after a restart the epoch is %d, made %v; want 6, %v", s.Epoch(), s.Created(), created)
	}
	ok(t, st.Remove("a"))
	wantKind(t, s.Advance(7), ErrNoSession)
}

// fakeClock is a clock that a test sets.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestIdle(t *testing.T) {
	clock := &fakeClock{now: time.Unix(1000, 0)}
	st := newStore(t, func(c *Config) { c.Clock = clock.Now })
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		_, err := st.Create(id, 1)
		ok(t, err)
	}
	get := func(id string) *Session { s, _ := st.Get(id); return s }
	clock.advance(time.Minute)
	ok(t, get("a").WriteFile("f", nil))
	clock.advance(time.Minute)
	get("b").Touch()
	release, err := get("c").Use()
	ok(t, err)
	done, err := get("d").Use()
	ok(t, err)
	clock.advance(time.Minute)
	done()
	done() // more than once is once
	idle := func() (ids string) {
		for _, s := range st.Idle(clock.Now()) {
			ids += s.ID()
		}
		return ids
	}
	if got := idle(); got != "eab" {
		t.Errorf("idle are %q, want %q", got, "eab")
	}
	wantKind(t, st.Remove("c"), ErrBusy)
	release()
	clock.advance(time.Minute)
	if got := idle(); got != "eabcd" {
		t.Errorf("idle are %q, want %q", got, "eabcd")
	}
	ok(t, st.Remove("c"))
	wantKind(t, st.Remove("c"), ErrNoSession)
}

func TestRemovedSession(t *testing.T) {
	st := newStore(t)
	s := newSession(t, st)
	ok(t, s.WriteFile("a", []byte("v")))
	ok(t, st.Remove("session"))
	if exists(t, s.path) {
		t.Error("its directory is still there")
	}
	fresh, err := st.Create("session", 1)
	ok(t, err)
	_, err = s.ReadFile("a")
	wantKind(t, err, ErrNoSession)
	wantKind(t, s.WriteFile("a", nil), ErrNoSession)
	wantKind(t, s.DeleteFile("a"), ErrNoSession)
	wantKind(t, s.RenameFile("a", "b"), ErrNoSession)
	_, err = s.Use()
	wantKind(t, err, ErrNoSession)
	_, err = s.Refresh()
	wantKind(t, err, ErrNoSession)
	step{"read", "a", "", ErrNotExist, textNotExist}.run(t, fresh)
	if count, bytes := st.Stats(); count != 1 || bytes != fresh.Usage().Bytes {
		t.Errorf("stats say %d sessions of %d bytes, want 1 of %d", count, bytes, fresh.Usage().Bytes)
	}
}

// File operations, creation and removal of one id at the same time: each either
// works or says that the session is gone.
func TestRemoveAtOnce(t *testing.T) {
	st := newStore(t)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for range 30 {
				s, err := st.Create("a", 1)
				if err == nil {
					err = s.WriteFile(fmt.Sprint(i), []byte("v"))
				}
				if err == nil {
					_, err = s.ReadFile(fmt.Sprint(i))
				}
				if err == nil {
					err = st.Remove("a")
				}
				if err != nil && !errors.Is(err, ErrNoSession) {
					t.Errorf("error is %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range st.List() {
		ok(t, st.Remove(s.ID()))
	}
	if count, bytes := st.Stats(); count != 0 || bytes != 0 {
		t.Errorf("stats say %d sessions of %d bytes, want none", count, bytes)
	}
	if c := st.cfg.UIDCount; len(st.uids.free) != c {
		t.Errorf("%d user ids are free, want all %d", len(st.uids.free), c)
	}
}

func TestUsageAndQuota(t *testing.T) {
	st := newStore(t, func(c *Config) { c.QuotaBytes, c.QuotaFiles = 200<<10, 8 })
	s := newSession(t, st)
	empty := s.Usage()
	ok(t, s.WriteFile("a", make([]byte, 100<<10)))
	estimate := s.Usage()
	if estimate.Files != 1 || estimate.Bytes < 100<<10 || estimate.Bytes > 110<<10 {
		t.Errorf("after a write of 100 KiB usage is %+v", estimate)
	}
	measured, err := s.Refresh()
	ok(t, err)
	if measured != estimate {
		t.Errorf("measured %+v, estimated %+v", measured, estimate)
	}
	if _, bytes := st.Stats(); bytes != measured.Bytes {
		t.Errorf("the store counts %d bytes, want %d", bytes, measured.Bytes)
	}
	step{"write", "b", strings.Repeat("x", 150<<10), ErrNoSpace, ""}.run(t, s)
	step{"write", "a", strings.Repeat("x", 250<<10), ErrNoSpace, ""}.run(t, s)
	step{"read", "b", "", ErrNotExist, ""}.run(t, s)
	step{"read", "a", strings.Repeat("\x00", 100<<10), nil, ""}.run(t, s)
	ok(t, s.WriteFile("a", make([]byte, 150<<10)))
	ok(t, s.RenameFile("a", "c"))
	ok(t, s.WriteFile("d", []byte("v")))
	ok(t, s.RenameFile("c", "d"))
	if u := s.Usage(); u.Files != 1 {
		t.Errorf("after a rename over a file usage is %+v", u)
	}
	ok(t, s.DeleteFile("d"))
	if u := s.Usage(); u != empty {
		t.Errorf("with all files deleted usage is %+v, at first it was %+v", u, empty)
	}
	ok(t, s.CheckQuota())

	for _, c := range []struct {
		name string
		make func() error
		over bool
	}{
		{"a hole takes no room", func() error {
			return errors.Join(os.WriteFile(s.WorkDir()+"/x", nil, 0o600), os.Truncate(s.WorkDir()+"/x", 1<<40))
		}, false},
		{"names of one file count its bytes once", func() error {
			if err := os.WriteFile(s.WorkDir()+"/x", make([]byte, 120<<10), 0o600); err != nil {
				return err
			}
			return errors.Join(os.Link(s.WorkDir()+"/x", s.TmpDir()+"/y"), os.Link(s.WorkDir()+"/x", s.HomeDir()+"/z"))
		}, false},
		{"bytes", func() error { return os.WriteFile(s.HomeDir()+"/x", make([]byte, 300<<10), 0o600) }, true},
		{"files", func() error {
			for i := range 9 {
				if err := os.WriteFile(fmt.Sprint(s.TmpDir(), "/", i), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			as(t, s, c.make)
			_, err := s.Refresh()
			ok(t, err)
			if err := s.CheckQuota(); c.over {
				wantKind(t, err, ErrNoSpace)
				wantKind(t, s.WriteFile("more", []byte("v")), ErrNoSpace)
			} else {
				ok(t, err)
			}
			for _, dir := range []string{s.WorkDir(), s.TmpDir(), s.HomeDir()} {
				entries, err := os.ReadDir(dir)
				ok(t, err)
				for _, e := range entries {
					ok(t, os.Remove(dir+"/"+e.Name()))
				}
			}
		})
	}
}

// What lies too deep to be counted can't be used to hide from the quota.
func TestQuotaOfDeepTrees(t *testing.T) {
	st := newStore(t, func(c *Config) { c.QuotaBytes = 1 << 30 })
	s := newSession(t, st)
	makeHostile(t, s, func(dir string, fd int) error { return nest(fd, maxTreeDepth+5) })
	u, err := s.Refresh()
	ok(t, err)
	if !u.Partial {
		t.Errorf("usage is %+v, want it partial", u)
	}
	wantKind(t, s.CheckQuota(), ErrNoSpace)
	_, err = st.Fork(t.Context(), "session", "copy", 1)
	if os.Geteuid() == 0 {
		wantKind(t, err, ErrTooLarge)
	} else {
		wantKind(t, err, ErrRefused) // one of its directories has mode 000
	}
	ok(t, st.Remove("session"))
	if _, found := st.Get("copy"); found || exists(t, st.root+"/sessions/copy") {
		t.Error("half a copy is there")
	}
}

func TestUserIDs(t *testing.T) {
	asRoot(t)
	st := newStore(t, func(c *Config) { c.UIDCount = 3 })
	make := func(id string) *Session {
		t.Helper()
		s, err := st.Create(id, 1)
		ok(t, err)
		return s
	}
	a, b := make("a"), make("b")
	if a.UID() != testUIDBase || b.UID() != testUIDBase+1 || a.GID() != a.UID() {
		t.Fatalf("user ids are %d and %d", a.UID(), b.UID())
	}
	ok(t, st.Remove("a"))
	ok(t, st.Remove("b"))
	// Never used first, then those freed first.
	for i, want := range []int{2, 0, 1} {
		if s := make(fmt.Sprint(i)); s.UID() != testUIDBase+want {
			t.Errorf("session %d got user id %d, want %d", i, s.UID(), testUIDBase+want)
		}
	}
	_, err := st.Create("one more", 1)
	wantKind(t, err, ErrInvalidPath)
	_, err = st.Create("more", 1)
	wantKind(t, err, ErrNoUsers)
	if exists(t, st.root+"/sessions/more") {
		t.Error("its directory was made")
	}
	_, err = st.Fork(t.Context(), "0", "more", 1)
	wantKind(t, err, ErrNoUsers)
	ok(t, st.Remove("1"))
	if s := make("more"); s.UID() != testUIDBase {
		t.Errorf("it got user id %d, want the only free %d", s.UID(), testUIDBase)
	}
}

func TestFreeBytes(t *testing.T) {
	n, err := newStore(t).FreeBytes()
	ok(t, err)
	if n <= 0 {
		t.Errorf("%d bytes are free", n)
	}
}

// A worker that is killed halfway leaves things in staging, and a session that
// isn't there.
func TestLeftovers(t *testing.T) {
	c := testConfig(filepath.Join(reachable(t), "data"))
	st := openStore(t, c)
	uid, err := st.uids.take("half")
	ok(t, err)
	_, dir, err := st.makePlace(uid)
	ok(t, err)
	unix.Close(dir)
	ok(t, os.MkdirAll(st.root+"/sessions/half/work", 0o700))
	ok(t, st.Close())
	st = openStore(t, c)
	if len(st.List()) != 0 || exists(t, st.root+"/sessions/half") {
		t.Errorf("sessions are %v", st.List())
	}
	if entries, err := os.ReadDir(st.root + "/staging"); err != nil || len(entries) > 0 {
		t.Errorf("staging holds %v, %v", entries, err)
	}
	if len(st.uids.free) != c.UIDCount {
		t.Errorf("%d user ids are free, want all %d", len(st.uids.free), c.UIDCount)
	}
}
