package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Session is one session's directories. Its methods may be called from any
// goroutine; writes, deletes and renames of one session happen one after the
// other, reads beside each other. Jobs are not held back by that.
type Session struct {
	place
	store   *Store
	id      string
	created time.Time
	// files orders the file operations.
	files sync.RWMutex
	// renewal orders the changes of meta.json.
	renewal sync.Mutex

	mu     sync.Mutex // guards what follows
	epoch  uint64
	used   time.Time
	holds  int  // Use calls not released
	closed bool // being removed, or gone
	usage  Usage
}

func (st *Store) session(m meta, used time.Time) *Session {
	return &Session{
		place: place{path: filepath.Join(st.root, "sessions", m.ID), uid: m.UID},
		store: st, id: m.ID, created: m.Created, epoch: m.Epoch, used: used,
	}
}

// ID is the session's id.
func (s *Session) ID() string { return s.id }

// Created is when the session was made on this worker.
func (s *Session) Created() time.Time { return s.created }

// Epoch is the newest ownership epoch that the session was given.
func (s *Session) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Advance checks the epoch of a request: ErrStaleEpoch if it is older than the
// session's. A newer one becomes the session's, on the disk first.
func (s *Session) Advance(epoch uint64) error {
	if current, err := s.compare(epoch); current || err != nil {
		return err
	}
	s.renewal.Lock()
	defer s.renewal.Unlock()
	if current, err := s.compare(epoch); current || err != nil {
		return err
	}
	s.files.RLock() // so that it isn't removed meanwhile
	defer s.files.RUnlock()
	if err := s.alive(); err != nil {
		return err
	}
	dir, err := s.open()
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	m := meta{Version: metaVersion, ID: s.id, Epoch: epoch, UID: s.uid, Created: s.created}
	if err := replaceFileAt(dir, metaName, m.encode()); err != nil {
		return fmt.Errorf("renew session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
	return nil
}

func (s *Session) compare(epoch uint64) (current bool, err error) {
	now := s.Epoch()
	if epoch < now {
		return false, fail(ErrStaleEpoch, "The session has moved on: the request is of epoch %d, the session of %d", epoch, now)
	}
	return epoch == now, nil
}

// Use marks the session as used, and as in use until release is called: it
// can't be removed meanwhile. ErrNoSession if it is gone already.
func (s *Session) Use() (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fail(ErrNoSession, "The session was removed")
	}
	s.holds++
	s.used = s.store.cfg.Clock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds--
		s.used = s.store.cfg.Clock()
	}), nil
}

// Touch marks the session as used now. File operations do that themselves.
func (s *Session) Touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = s.store.cfg.Clock()
}

// LastUsed is when the session was last used; after a restart of the worker,
// when it was found again.
func (s *Session) LastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *Session) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds > 0
}

// shut refuses further use, unless the session is in use.
func (s *Session) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds > 0 {
		return false
	}
	s.closed = true
	return true
}

func (s *Session) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = false
}

func (s *Session) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fail(ErrNoSession, "The session was removed")
	}
	return nil
}

// Usage is what the session takes up, as of the last Refresh, and estimated for
// the file operations since.
func (s *Session) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// Refresh measures the session, which takes some microseconds a file; to be
// called after each job.
func (s *Session) Refresh() (Usage, error) {
	s.files.RLock()
	defer s.files.RUnlock()
	if err := s.alive(); err != nil {
		return Usage{}, err
	}
	dir, err := s.open()
	if err != nil {
		return Usage{}, err
	}
	defer unix.Close(dir)
	now, err := s.store.measure(dir)
	if err != nil {
		return Usage{}, fmt.Errorf("measure session: %w", err)
	}
	s.account(func(u *Usage) { *u = now })
	return now, nil
}

// account changes the session's figures and the store's with them.
func (s *Session) account(change func(*Usage)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.usage.Bytes
	change(&s.usage)
	s.usage.Bytes, s.usage.Files = max(0, s.usage.Bytes), max(0, s.usage.Files)
	s.store.bytes.Add(s.usage.Bytes - before)
}

// CheckQuota returns an ErrNoSpace that says by how much the session is over its
// quota, or nil. A session whose size can't be told is over it.
func (s *Session) CheckQuota() error { return s.room(0, 0) }

// room is CheckQuota with so much more.
func (s *Session) room(bytes, files int64) error {
	u, c := s.Usage(), &s.store.cfg
	switch {
	case c.QuotaFiles > 0 && u.Files+files > c.QuotaFiles:
		return fail(ErrNoSpace, "No space left in the session: it would hold %d files and directories, the limit is %d; delete some", u.Files+files, c.QuotaFiles)
	case c.QuotaBytes > 0 && u.Bytes+bytes > c.QuotaBytes:
		return fail(ErrNoSpace, "No space left in the session: it would take up %d bytes, the limit is %d; delete files", u.Bytes+bytes, c.QuotaBytes)
	case u.Partial && (c.QuotaFiles > 0 || c.QuotaBytes > 0):
		return fail(ErrNoSpace, "No space left in the session: it holds directories that can't be counted (more than %d levels deep, or unreadable); delete them", maxTreeDepth)
	}
	return nil
}

// open opens the session's own directory.
func (s *Session) open() (int, error) {
	fd, err := openDirAt(s.store.sessions, s.id)
	if err != nil {
		return -1, fmt.Errorf("open session directory: %w", err)
	}
	return fd, nil
}

// openWork opens work for one operation. The caller closes it.
func (s *Session) openWork() (*os.Root, error) {
	dir, err := s.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := forceOpenDirAt(dir, workName)
	if err == unix.ENOENT {
		// Only where jobs are the worker's own user can one remove it.
		if err = fillPlace(dir, s.uid); err == nil {
			fd, err = openDirAt(dir, workName)
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fail(ErrRefused, "Refused: a command replaced the session's directory by something else")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", workName, err)
	}
	defer unix.Close(fd)
	st, err := fstat(fd)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", workName, err)
	}
	if st.Mode&0o700 != 0o700 {
		// A job can take the rights from its own user, who can't see the
		// directory above to give them back.
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return nil, fmt.Errorf("set mode of %s: %w", workName, err)
		}
	}
	// By way of /proc, since os.OpenRoot takes a path, which could lead
	// elsewhere by now.
	root, err := os.OpenRoot(procPath(fd))
	if err != nil {
		return nil, fmt.Errorf("open %s (is /proc mounted?): %w", workName, err)
	}
	return root, nil
}
