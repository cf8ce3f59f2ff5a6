package session

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// maxScratchDirBytes is how large an emptied directory may be and still be
	// used again: file systems don't shrink them, and reading one that held
	// millions of entries takes long for ever after.
	maxScratchDirBytes = 64 << 10
	// settleTime is how long ago a directory's last change must be before its
	// change time can vouch for it: longer than the coarsest clock that file
	// systems stamp with, so that a later change shows as another time.
	settleTime = 2 * time.Second
	// ownFlags are the inode flags that a file system sets by itself, for how
	// it stores a directory (FS_INDEX_FL, FS_INLINE_DATA_FL); the others are
	// the owner's to set (see chattr(1)).
	ownFlags = 0x1000 | 0x10000000
)

// Scratch is a place for jobs without a session: one for each slot, used by one
// job after the other. Its methods are for one goroutine at a time.
type Scratch struct {
	place
	store *Store
	name  string
	dir   int // the scratch's own directory
	dirs  [len(placeNames)]scratchDir
	// settle is settleTime, but in tests.
	settle time.Duration
}

// scratchDir is one of the three directories, as it has to be before each job.
type scratchDir struct {
	fd       int
	dev, ino uint64
	time     unix.Timespec // access and modification time, which jobs can set
	flags    uint32
	// settled is the change time with which it was last found as it has to be,
	// if that was long enough ago; every change that is of interest here gives
	// an inode another, and nobody can set it.
	settled unix.Timespec
}

// NewScratch makes an empty scratch. The name is the slot's; it must be unique
// and, as a directory's, of the characters of a session id.
func (st *Store) NewScratch(name string) (*Scratch, error) {
	if err := protocol.CheckSessionID(name); err != nil {
		return nil, fmt.Errorf("make scratch: %w", err)
	}
	uid, err := st.uids.take("scratch " + name)
	if err != nil {
		return nil, err
	}
	made, dir, err := st.makePlace(uid)
	if err != nil {
		st.uids.put(uid)
		return nil, fmt.Errorf("make scratch %s: %w", name, err)
	}
	s := &Scratch{
		place: place{path: filepath.Join(st.root, "scratch", name), uid: uid},
		store: st, name: name, dir: dir, settle: settleTime,
	}
	for i := range s.dirs {
		s.dirs[i].fd = -1
	}
	for i := range s.dirs {
		if err = s.adopt(i); err != nil {
			break
		}
	}
	if err == nil {
		err = st.publish(made, st.scratch, name)
	}
	if err != nil {
		s.closeAll()
		if st.discard(made) == nil {
			st.uids.put(uid)
		}
		return nil, fmt.Errorf("make scratch %s: %w", name, err)
	}
	return s, nil
}

// adopt remembers one of the directories as it is now: new and empty.
func (s *Scratch) adopt(i int) error {
	d := &s.dirs[i]
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
	// Reading it shouldn't change its access time: that would only mean more
	// work for each Reset. It takes its owner or CAP_FOWNER.
	fd, err := openAt(s.dir, placeNames[i], dirFlags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = openDirAt(s.dir, placeNames[i])
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", placeNames[i], err)
	}
	d.fd = fd
	st, err := fstat(fd)
	if err != nil {
		return fmt.Errorf("look at %s: %w", placeNames[i], err)
	}
	d.dev, d.ino, d.time, d.flags, d.settled = st.Dev, st.Ino, st.Mtim, inodeFlags(fd), unix.Timespec{}
	return s.resetTimes(i)
}

// resetTimes makes both times of a directory what they were at first.
func (s *Scratch) resetTimes(i int) error {
	t := s.dirs[i].time
	if err := unix.UtimesNanoAt(s.dir, placeNames[i], []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times of %s: %w", placeNames[i], err)
	}
	return nil
}

// Reset makes the scratch as good as new: no job finds anything of an earlier
// one, neither files nor modes, attributes, flags or times of the directories.
// No process of its user may be left. When there is nothing to clean, which is
// the usual case, it takes a few microseconds. The directories' paths stay; after
// a clean-up they may be others of that name, so don't keep them open.
func (s *Scratch) Reset() error {
	for i := range s.dirs {
		if s.pristine(i) {
			continue
		}
		if err := s.clean(i); err != nil {
			return fmt.Errorf("clean %s of scratch %s: %w", placeNames[i], s.name, err)
		}
	}
	if s.uid < 0 {
		return s.cleanBeside()
	}
	return nil
}

// pristine says whether a directory is empty and as it was made, but for its
// times, which it puts right.
func (s *Scratch) pristine(i int) bool {
	d := &s.dirs[i]
	st, err := statAt(s.dir, placeNames[i])
	if err != nil || !d.is(&st) || st.Mode != unix.S_IFDIR|0o700 ||
		s.uid >= 0 && (int(st.Uid) != s.uid || int(st.Gid) != s.uid) || st.Size > maxScratchDirBytes {
		return false
	}
	timely := st.Atim == d.time && st.Mtim == d.time
	if timely && st.Ctim == d.settled {
		return true
	}
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return false
	}
	if err := eachEntry(d.fd, func(string, byte) error { return errTooMany }); err != nil {
		return false
	}
	if hasAttributes(d.fd) || inodeFlags(d.fd) != d.flags {
		return false
	}
	if !timely {
		return s.resetTimes(i) == nil
	}
	if time.Since(time.Unix(st.Ctim.Unix())) > s.settle {
		d.settled = st.Ctim
	}
	return true
}

// clean empties a directory in place if that makes it as new, and else puts a
// new one there, which some file systems take a tenth of a millisecond for.
func (s *Scratch) clean(i int) error {
	d := &s.dirs[i]
	if st, err := statAt(s.dir, placeNames[i]); err == nil && d.is(&st) {
		if err := unix.Fchmod(d.fd, 0o700); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
		if err := s.store.sweep().empty(d.fd); err != nil {
			return err
		}
		if s.pristine(i) {
			return nil
		}
	}
	if err := s.store.sweep().tree(s.dir, placeNames[i]); err != nil {
		return err
	}
	if err := fillPlace(s.dir, s.uid); err != nil {
		return err
	}
	return s.adopt(i)
}

// is says whether a directory is the one that is open.
func (d *scratchDir) is(st *unix.Stat_t) bool {
	return d.fd >= 0 && isDir(st) && st.Dev == d.dev && st.Ino == d.ino
}

// cleanBeside removes what a job put beside the three directories, which it can
// only where it is the worker's own user.
func (s *Scratch) cleanBeside() error {
	names, err := entryNames(s.dir, maxTreeEntries)
	if err != nil {
		return fmt.Errorf("list scratch %s: %w", s.name, err)
	}
	for _, name := range names {
		if slices.Contains(placeNames[:], name) {
			continue
		}
		if err := s.store.sweep().tree(s.dir, name); err != nil {
			return fmt.Errorf("clean scratch %s: %w", s.name, err)
		}
	}
	return nil
}

// Refresh measures what a job has left or made so far; other than the rest it
// may be called while a job runs.
func (s *Scratch) Refresh() (Usage, error) {
	now, err := s.store.measure(s.dir)
	if err != nil {
		return Usage{}, fmt.Errorf("measure scratch %s: %w", s.name, err)
	}
	return now, nil
}

// Usage is nothing: a scratch is empty before each job.
func (s *Scratch) Usage() Usage { return Usage{} }

// Close removes the scratch and frees its user id.
func (s *Scratch) Close() error {
	s.closeAll()
	name := s.store.stagingName()
	if err := unix.Renameat(s.store.scratch, s.name, s.store.staging, name); err != nil {
		return fmt.Errorf("remove scratch %s: %w", s.name, err)
	}
	if err := s.store.discard(name); err != nil {
		return err
	}
	s.store.uids.put(s.uid)
	return nil
}

func (s *Scratch) closeAll() {
	for i := range s.dirs {
		if s.dirs[i].fd >= 0 {
			unix.Close(s.dirs[i].fd)
			s.dirs[i].fd = -1
		}
	}
	unix.Close(s.dir)
	s.dir = -1
}

// inodeFlags returns the flags that a job could have set; 0 where the file
// system has none.
func inodeFlags(fd int) uint32 {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return 0
	}
	return flags &^ ownFlags
}

// hasAttributes says whether an open directory has extended attributes that a
// job could have set: its own, or access control lists. Security labels are
// the system's.
func hasAttributes(fd int) bool {
	var buf [1024]byte
	n, err := unix.Flistxattr(fd, buf[:])
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return false
	}
	if err != nil {
		return true // also ERANGE: there are many
	}
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if bytes.HasPrefix(name, []byte("user.")) || bytes.HasPrefix(name, []byte("system.")) {
			return true
		}
	}
	return false
}
