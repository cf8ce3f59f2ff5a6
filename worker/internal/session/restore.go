package session

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Restore makes a session whose files put writes. Nobody sees any of it before
// put has returned; if that fails nothing stays. ErrConflict if there is one of
// that id.
func (st *Store) Restore(id string, epoch uint64, put func(*Writer) error) (*Session, error) {
	s, made, err := st.make(id, epoch, func(dir, uid int) error {
		fd, err := openDirAt(dir, workName)
		if err != nil {
			return fmt.Errorf("open %s: %w", workName, err)
		}
		defer unix.Close(fd)
		root, err := os.OpenRoot(procPath(fd))
		if err != nil {
			return fmt.Errorf("open %s (is /proc mounted?): %w", workName, err)
		}
		defer root.Close()
		w := &Writer{root: root, uid: uid}
		if err := put(w); err != nil {
			return err
		}
		return w.finish()
	})
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, fail(ErrConflict, "Conflict: session %q exists already", id)
	}
	return s, nil
}

// Writer writes the files of a session that nobody can reach yet. Directories
// come before what is in them.
type Writer struct {
	root *os.Root
	uid  int
	dirs []Item
}

// Dir makes a directory; it has its mode once all is written.
func (w *Writer) Dir(item Item) error {
	if err := w.root.Mkdir(item.Path, 0o700); err != nil {
		return fmt.Errorf("restore directory: %w", spaceError(err))
	}
	w.dirs = append(w.dirs, item)
	return w.own(item.Path)
}

// File makes a file with the item's mode and time, and what content writes.
func (w *Writer) File(item Item, content func(io.Writer) error) (Stamp, error) {
	f, err := w.root.OpenFile(item.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Stamp{}, fmt.Errorf("restore file: %w", spaceError(err))
	}
	defer f.Close()
	if err := content(f); err != nil {
		return Stamp{}, fmt.Errorf("restore file: %w", spaceError(err))
	}
	fd := int(f.Fd())
	// The owner first: changing it clears bits of the mode.
	if w.uid >= 0 {
		if err := unix.Fchown(fd, w.uid, w.uid); err != nil {
			return Stamp{}, fmt.Errorf("restore owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, item.Mode&0o777); err != nil {
		return Stamp{}, fmt.Errorf("restore mode: %w", err)
	}
	at := unix.NsecToTimespec(item.MTime)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), []unix.Timespec{at, at}, 0); err != nil {
		return Stamp{}, fmt.Errorf("restore time: %w", err)
	}
	st, err := fstat(fd)
	return stampOf(&st), err
}

// Link makes a symbolic link.
func (w *Writer) Link(item Item) error {
	if err := w.root.Symlink(item.Target, item.Path); err != nil {
		return fmt.Errorf("restore link: %w", spaceError(err))
	}
	return w.own(item.Path)
}

func (w *Writer) own(path string) error {
	if w.uid < 0 {
		return nil
	}
	if err := w.root.Lchown(path, w.uid, w.uid); err != nil {
		return fmt.Errorf("restore owner: %w", err)
	}
	return nil
}

// finish gives the directories their modes, the innermost first: some can't be
// written to then.
func (w *Writer) finish() error {
	for i := len(w.dirs) - 1; i >= 0; i-- {
		if err := w.root.Chmod(w.dirs[i].Path, os.FileMode(w.dirs[i].Mode&0o777)); err != nil {
			return fmt.Errorf("restore mode: %w", err)
		}
	}
	return nil
}
