package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Store is all sessions and scratches of a worker. Its methods may be called
// from any goroutine.
type Store struct {
	cfg    Config
	root   string // absolute, without links
	layout *os.File
	uids   *uidPool
	// Descriptors of the three directories below root.
	sessions, scratch, staging int
	serial                     atomic.Uint64
	bytes                      atomic.Int64 // of all sessions, as last measured

	mu   sync.Mutex
	byID map[string]*Session
	// busy holds the ids whose session is being made or removed. The channel
	// is closed when that is over.
	busy map[string]chan struct{}
}

const (
	layoutName = "layout"
	layoutText = "gradefleet sessions 1\n"
)

// Open makes or takes up the directory of cfg, with the sessions in it. Sessions
// that are broken are logged and left alone; leftovers of an earlier worker that
// ended halfway through something are removed. The error says what to do.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	st := &Store{
		cfg: cfg.WithDefaults(), sessions: -1, scratch: -1, staging: -1,
		byID: make(map[string]*Session), busy: make(map[string]chan struct{}),
	}
	if err := st.open(); err != nil {
		st.Close()
		return nil, fmt.Errorf("open session root %s: %w", cfg.Root, err)
	}
	return st, nil
}

func (st *Store) open() error {
	root, err := filepath.Abs(st.cfg.Root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	if st.root, err = filepath.EvalSymlinks(root); err != nil {
		return err
	}
	if err := st.lockLayout(); err != nil {
		return err
	}
	pass := os.FileMode(0o700) // through which users reach their own
	if st.cfg.UIDCount > 0 {
		pass = 0o711
		if err := checkReach(st.root); err != nil {
			return err
		}
	}
	if err := os.Chmod(st.root, pass); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		fd   *int
		mode os.FileMode
	}{{"sessions", &st.sessions, pass}, {"scratch", &st.scratch, pass}, {"staging", &st.staging, 0o700}} {
		path := filepath.Join(st.root, d.name)
		if err := os.Mkdir(path, d.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if *d.fd, err = openAt(unix.AT_FDCWD, path, dirFlags, 0); err != nil {
			return fmt.Errorf("open %s: %w", d.name, err)
		}
		if err := unix.Fchmod(*d.fd, uint32(d.mode)); err != nil {
			return fmt.Errorf("set mode of %s: %w", d.name, err)
		}
	}
	if st.cfg.UIDCount > 0 {
		if err := st.cfg.checkUsers(filepath.Join(st.root, "staging")); err != nil {
			return err
		}
	}
	return st.takeUp()
}

// lockLayout makes sure that root is this package's and no other worker's.
func (st *Store) lockLayout() error {
	path := filepath.Join(st.root, layoutName)
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		entries, rerr := os.ReadDir(st.root)
		if rerr != nil {
			return rerr
		}
		// A volume of its own holds the file system's lost+found.
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == "lost+found" })
		if len(entries) > 0 {
			return fmt.Errorf("it holds %q, but no sessions of an earlier worker; give sessions a directory of their own", entries[0].Name())
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		return err
	}
	st.layout = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w; another worker uses it: give each worker a directory of its own", path, err)
	}
	text := make([]byte, len(layoutText)+1)
	n, _ := f.ReadAt(text, 0) // short, or an error: then the text differs
	switch {
	case n == 0:
		if _, err := f.WriteAt([]byte(layoutText), 0); err != nil {
			return err
		}
		return f.Sync()
	case string(text[:n]) != layoutText:
		return fmt.Errorf("%s says %q, this worker knows %q; use the version that made it, or another directory", layoutName, text[:n], layoutText)
	}
	return nil
}

// Close gives up the directory. Nothing may be in use any more; everything stays
// on the disk. Closing again does nothing.
func (st *Store) Close() error {
	for _, fd := range []int{st.sessions, st.scratch, st.staging} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	st.sessions, st.scratch, st.staging = -1, -1, -1
	if st.layout == nil {
		return nil
	}
	err := st.layout.Close()
	st.layout = nil
	return err
}

// Create makes a session, or returns the one there is: as it is if the epoch is
// the same, after Advance if it is newer; an older one is ErrStaleEpoch.
func (st *Store) Create(id string, epoch uint64) (*Session, error) {
	s, made, err := st.make(id, epoch, nil)
	if err != nil || made {
		return s, err
	}
	return s, s.Advance(epoch)
}

// Fork makes session newID with a copy of the files of oldID: what is in work,
// not tmp and home. Regular files are copied with mode (without set-id bits) and
// times, holes stay holes; links are copied as links; FIFOs, sockets and devices
// are left out. What a job changes meanwhile may be copied before or after.
//
// Errors are those of a file operation, and ErrTooLarge for a tree of more
// than 128 levels or 1,000,000 entries (or the quota). Nothing of the copy
// stays then.
func (st *Store) Fork(ctx context.Context, oldID, newID string, epoch uint64) (*Session, error) {
	old, ok := st.Get(oldID)
	if !ok {
		return nil, fail(ErrNoSession, "Session to fork not found")
	}
	release, err := old.Use()
	if err != nil {
		return nil, fail(ErrNoSession, "Session to fork not found")
	}
	defer release()
	s, made, err := st.make(newID, epoch, func(dir, uid int) error {
		return old.copyTo(ctx, dir, uid)
	})
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, fail(ErrConflict, "Conflict: session %q exists already", newID)
	}
	return s, nil
}

// make makes a session unless there is one; fill, if any, puts files in place
// before anybody can see it.
func (st *Store) make(id string, epoch uint64, fill func(dir, uid int) error) (s *Session, made bool, err error) {
	if err := protocol.CheckSessionID(id); err != nil {
		return nil, false, &Error{Kind: ErrInvalidPath, Text: err.Error()}
	}
	if epoch == 0 {
		return nil, false, fmt.Errorf("make session %s: its epoch is 0, epochs start at 1", id)
	}
	s, done := st.claim(id)
	if s != nil {
		return s, false, nil
	}
	defer func() { done(s) }()
	uid, err := st.uids.take("session " + id)
	if err != nil {
		return nil, false, err
	}
	name, dir, err := st.makePlace(uid)
	if err != nil {
		st.uids.put(uid)
		return nil, false, spaceError(err)
	}
	defer unix.Close(dir)
	now := st.cfg.Clock()
	m := meta{Version: metaVersion, ID: id, Epoch: epoch, UID: uid, Created: now.UTC()}
	if fill != nil {
		err = fill(dir, uid)
	}
	// Nobody sees it before it is published, so it needs no temporary name.
	if err == nil {
		err = createFileAt(dir, metaName, m.encode())
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err == nil {
		err = st.publish(name, st.sessions, id)
	}
	if err != nil {
		if st.discard(name) == nil {
			st.uids.put(uid)
		}
		return nil, false, spaceError(err)
	}
	s = st.session(m, now)
	if err := syncDir(st.sessions); err != nil {
		// It is there for this worker; only a power failure could lose it.
		st.cfg.Log.Error("sync sessions", "error", err)
	}
	if _, err := s.Refresh(); err != nil {
		st.cfg.Log.Warn("measure session", "session", id, "error", err)
	}
	return s, true, nil
}

// spaceError makes a full disk the kind of error that the caller can tell.
func spaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if _, ok := errors.AsType[*Error](err); !ok {
			return &Error{Kind: ErrNoSpace, Text: "No space left on the worker for a session", Cause: err}
		}
	}
	return err
}

// claim returns the session of that id, or else the right to make it: done must
// be called with the session, or with nil if it wasn't made.
func (st *Store) claim(id string) (s *Session, done func(*Session)) {
	for {
		st.mu.Lock()
		s, wait := st.byID[id], st.busy[id]
		if s == nil && wait == nil {
			done := st.begin(id)
			st.mu.Unlock()
			return nil, done
		}
		st.mu.Unlock()
		if s != nil {
			return s, nil
		}
		<-wait
	}
}

// begin marks an id as busy; st.mu is held.
func (st *Store) begin(id string) (done func(*Session)) {
	over := make(chan struct{})
	st.busy[id] = over
	return func(s *Session) {
		st.mu.Lock()
		defer st.mu.Unlock()
		if s != nil {
			st.byID[id] = s
		}
		delete(st.busy, id)
		close(over)
	}
}

// Get returns a session. One that is being made or removed isn't there.
func (st *Store) Get(id string) (*Session, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s, ok := st.byID[id]
	return s, ok
}

// Remove removes a session with all its files; the id is free at once, its user
// id when the last file is gone. It returns then, which for a hostile tree of
// millions of files takes a while. ErrBusy if the session is in use, ErrNoSession
// if there is none. No process of the session's user may be left.
func (st *Store) Remove(id string) error {
	st.mu.Lock()
	s := st.byID[id]
	if s == nil {
		st.mu.Unlock()
		return fail(ErrNoSession, "Session not found")
	}
	if !s.shut() {
		st.mu.Unlock()
		return fail(ErrBusy, "The session is in use")
	}
	delete(st.byID, id)
	done := st.begin(id)
	st.mu.Unlock()

	name := st.stagingName()
	s.files.Lock() // operations that began before are over then
	err := unix.Renameat(st.sessions, id, st.staging, name)
	s.files.Unlock()
	if err != nil && err != unix.ENOENT {
		s.reopen()
		done(s)
		return fmt.Errorf("remove session: %w", err)
	}
	done(nil)
	st.bytes.Add(-s.Usage().Bytes)
	if err := st.discard(name); err != nil {
		return err // its user id stays taken
	}
	st.uids.put(s.uid)
	return nil
}

// List returns all sessions, by id.
func (st *Store) List() []*Session {
	st.mu.Lock()
	defer st.mu.Unlock()
	list := make([]*Session, 0, len(st.byID))
	for _, s := range st.byID {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *Session) int { return cmp.Compare(a.id, b.id) })
	return list
}

// Idle returns the sessions that are not in use and were last used before a
// time, the longest idle first. Remove says ErrBusy if one came into use since.
func (st *Store) Idle(before time.Time) []*Session {
	list := slices.DeleteFunc(st.List(), func(s *Session) bool { return s.inUse() || !s.LastUsed().Before(before) })
	slices.SortStableFunc(list, func(a, b *Session) int { return a.LastUsed().Compare(b.LastUsed()) })
	return list
}

// Stats returns how many sessions there are and the bytes they take up on the
// disk, as last measured or estimated. It is cheap: nothing is walked.
func (st *Store) Stats() (count int, bytes int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.byID), st.bytes.Load()
}

// FreeBytes returns the room left on the disk, in bytes.
func (st *Store) FreeBytes() (int64, error) {
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(st.sessions, &fs) }); err != nil {
		return 0, fmt.Errorf("look at free space: %w", err)
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}
