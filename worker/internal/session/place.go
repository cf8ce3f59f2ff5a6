package session

import (
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// The three directories of a place.
const (
	workName = "work"
	tmpName  = "tmp"
	homeName = "home"
)

var placeNames = [...]string{workName, tmpName, homeName}

// place is where jobs run: three directories and the user who owns them.
type place struct {
	path string
	uid  int
}

// WorkDir is the absolute path of the directory that the caller's files are in.
func (p *place) WorkDir() string { return filepath.Join(p.path, workName) }

// TmpDir is the absolute path for TMPDIR.
func (p *place) TmpDir() string { return filepath.Join(p.path, tmpName) }

// HomeDir is the absolute path for HOME.
func (p *place) HomeDir() string { return filepath.Join(p.path, homeName) }

// UID is the user that owns the directories, and whose processes alone may run
// there; -1 is the worker's own.
func (p *place) UID() int { return p.uid }

// GID is that user's group; -1 is the worker's own.
func (p *place) GID() int { return p.uid }

// makePlace makes an empty place in staging, where no user can reach it, and
// returns its name there and an open descriptor.
func (st *Store) makePlace(uid int) (name string, dir int, err error) {
	for {
		name = st.stagingName()
		err = unix.Mkdirat(st.staging, name, 0o700)
		if err == nil {
			break
		}
		if err != unix.EEXIST { // EEXIST: could not be removed at start
			return "", -1, fmt.Errorf("make session directory: %w", err)
		}
	}
	defer func() {
		if err != nil {
			st.discard(name)
		}
	}()
	if dir, err = openDirAt(st.staging, name); err != nil {
		return "", -1, fmt.Errorf("open session directory: %w", err)
	}
	if err = fillPlace(dir, uid); err == nil && uid >= 0 {
		if err = unix.Fchown(dir, -1, uid); err == nil {
			err = unix.Fchmod(dir, 0o710)
		}
	}
	if err != nil {
		unix.Close(dir)
		return "", -1, fmt.Errorf("make session directory: %w", err)
	}
	return name, dir, nil
}

// fillPlace makes those of the three directories that are missing. Only the
// worker can write to dir, unless there are no users.
func fillPlace(dir, uid int) error {
	for _, name := range placeNames {
		err := unix.Mkdirat(dir, name, 0o700)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		if uid < 0 {
			continue
		}
		if err := unix.Fchownat(dir, name, uid, uid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give %s to user %d: %w", name, uid, err)
		}
	}
	return nil
}

// publish moves a finished place from staging to where it is used.
func (st *Store) publish(name string, parent int, as string) error {
	err := unix.Renameat(st.staging, name, parent, as)
	if err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.ENOTDIR {
		return fmt.Errorf("publish session directory %s: there is one already that could not be taken up at start (see the log); move it away", as)
	}
	if err != nil {
		return fmt.Errorf("publish session directory: %w", err)
	}
	return nil
}

// stagingName returns a name in staging that nothing of this Store has used.
func (st *Store) stagingName() string { return strconv.FormatUint(st.serial.Add(1), 10) }

func (st *Store) sweep() *sweep { return &sweep{staging: st.staging, name: st.stagingName} }

// discard removes a directory in staging. What can't be removed now is tried
// again when the store is next opened.
func (st *Store) discard(name string) error {
	if err := st.sweep().tree(st.staging, name); err != nil {
		st.cfg.Log.Error("remove directory", "directory", name, "error", err)
		return fmt.Errorf("remove session directory: %w", err)
	}
	return nil
}
