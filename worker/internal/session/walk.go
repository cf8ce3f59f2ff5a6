package session

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// maxTreeDepth is how many directories one inside the other are measured
	// or copied. Each holds one descriptor (two for a copy).
	maxTreeDepth = 128
	// maxTreeEntries is how many entries of one session are measured or copied
	// when no quota says less.
	maxTreeEntries = 1_000_000
)

// Usage is what a session takes up on the disk: everything below work, tmp and
// home.
type Usage struct {
	// Bytes on the disk: blocks, so holes don't count and small files count
	// for more than their length.
	Bytes int64
	// Files counts files, links and directories.
	Files int64
	// Partial says that there is more, which wasn't counted: too deep, too
	// many, or in a directory that can't be read.
	Partial bool
}

// measure adds up a tree. What changes meanwhile may be counted or not.
type measure struct {
	Usage
	limit int64
}

// measure adds up the three directories of a place.
func (st *Store) measure(place int) (Usage, error) {
	m := measure{limit: maxTreeEntries}
	if q := st.cfg.QuotaFiles; q > 0 {
		m.limit = q + 1
	}
	for _, name := range placeNames {
		fd, err := openDirAt(place, name)
		if err != nil {
			m.Partial = true
			continue
		}
		err = m.add(fd, 1)
		unix.Close(fd)
		if err != nil {
			return Usage{}, err
		}
	}
	return m.Usage, nil
}

// add counts what is inside an open directory.
func (m *measure) add(fd, depth int) error {
	var dirs []string
	err := eachEntry(fd, func(name string, _ byte) error {
		if m.Files >= m.limit {
			return errTooMany
		}
		st, err := statAt(fd, name)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			m.Partial = true // no search permission
			return nil
		}
		m.Files++
		if isDir(&st) {
			m.Bytes += st.Blocks * 512
			dirs = append(dirs, name)
			return nil
		}
		m.Bytes += share(&st)
		return nil
	})
	if err == errTooMany {
		m.Partial = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, name := range dirs {
		if depth >= maxTreeDepth {
			m.Partial = true
			return nil
		}
		child, err := openDirAt(fd, name)
		switch err {
		case nil:
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // changed meanwhile
			continue
		case unix.EACCES, unix.EPERM:
			m.Partial = true
			continue
		default:
			return fmt.Errorf("open directory: %w", err)
		}
		err = m.add(child, depth+1)
		unix.Close(child)
		if err != nil {
			return err
		}
	}
	return nil
}

// share is the part of a file's bytes on the disk that one of its names
// accounts for, so that a file with several is counted once in all.
func share(st *unix.Stat_t) int64 { return st.Blocks * 512 / max(1, int64(st.Nlink)) }
