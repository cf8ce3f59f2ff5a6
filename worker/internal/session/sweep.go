package session

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// sweepDepth is how many directories one inside the other a sweep keeps
	// open. What lies deeper is moved to the staging directory and swept from
	// there, so no depth exhausts descriptors, stack or path length.
	sweepDepth = 48
	// sweepDepthFull bounds the same when the disk is too full to move a
	// directory: there is no other way then than down.
	sweepDepthFull = 400
	// sweepPasses bounds how often a directory is gone through that something
	// keeps filling.
	sweepPasses = 64
)

// sweep removes trees that their owner may have made as unpleasant as a file
// system allows: too deep for a path, mode 000, names of any bytes, millions of
// entries. It works relative to descriptors and never follows a link, so it
// removes nothing that isn't inside the tree.
type sweep struct {
	staging int
	name    func() string // an unused name in staging
	hoisted []string
}

// empty removes everything inside an open directory.
func (w *sweep) empty(fd int) error {
	if err := w.dir(fd, 0); err != nil {
		return err
	}
	return w.rest()
}

// tree removes name in an open directory, whatever it is.
func (w *sweep) tree(dir int, name string) error {
	if err := w.entry(dir, name, unix.DT_UNKNOWN, 0); err != nil {
		return err
	}
	return w.rest()
}

// rest removes what was moved to staging.
func (w *sweep) rest() error {
	for len(w.hoisted) > 0 {
		name := w.hoisted[len(w.hoisted)-1]
		w.hoisted = w.hoisted[:len(w.hoisted)-1]
		if err := w.child(w.staging, name, 0); err != nil {
			return err
		}
	}
	return nil
}

// dir removes what is inside an open directory, or moves it to staging.
func (w *sweep) dir(fd, depth int) error {
	for range sweepPasses {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return fmt.Errorf("rewind directory: %w", err)
		}
		var first error
		seen, removed := 0, 0
		err := eachEntry(fd, func(name string, typ byte) error {
			seen++
			if err := w.entry(fd, name, typ, depth); err == nil {
				removed++
			} else if first == nil {
				first = err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read directory: %w", err)
		}
		if seen == 0 {
			return nil
		}
		if removed == 0 {
			return first
		}
	}
	return errors.New("empty directory: something keeps writing to it")
}

func (w *sweep) entry(dir int, name string, typ byte, depth int) error {
	if typ != unix.DT_DIR {
		err := unlinkAt(dir, name, 0)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EISDIR {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	err := unlinkAt(dir, name, unix.AT_REMOVEDIR)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTEMPTY, unix.EEXIST:
	default:
		return fmt.Errorf("remove directory: %w", err)
	}
	if depth >= sweepDepth {
		err := w.hoist(dir, name)
		if err == nil || depth >= sweepDepthFull {
			return err
		}
	}
	return w.child(dir, name, depth+1)
}

// child empties and removes a directory.
func (w *sweep) child(dir int, name string, depth int) error {
	fd, err := forceOpenDirAt(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	err = w.dir(fd, depth)
	unix.Close(fd)
	if err != nil {
		return err
	}
	if err := unlinkAt(dir, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

// hoist moves a directory to staging.
func (w *sweep) hoist(dir int, name string) error {
	var err error
	for range 8 {
		to := w.name()
		if err = unix.Renameat(dir, name, w.staging, to); err == nil {
			w.hoisted = append(w.hoisted, to)
			return nil
		}
		if err != unix.EACCES {
			continue // a leftover of that name: take the next
		}
		// Moving a directory changes its "..", so it must be writable itself.
		fd, operr := forceOpenDirAt(dir, name)
		if operr != nil {
			return fmt.Errorf("open directory: %w", operr)
		}
		unix.Fchmod(fd, 0o700) // if that fails, so does the next try
		unix.Close(fd)
		unix.Fchmod(dir, 0o700)
	}
	return fmt.Errorf("move deep directory: %w", err)
}

// unlinkAt removes one entry; a directory whose mode forbids it is made
// writable first.
func unlinkAt(dir int, name string, flags int) error {
	err := retry(func() error { return unix.Unlinkat(dir, name, flags) })
	if err == unix.EACCES && unix.Fchmod(dir, 0o700) == nil {
		err = retry(func() error { return unix.Unlinkat(dir, name, flags) })
	}
	return err
}
