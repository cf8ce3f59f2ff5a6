package session

import (
	"errors"
	"io"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// openFlags keep an open from waiting: for the other end of a FIFO, or for
	// a process that holds a lease on the file.
	openFlags = unix.O_NONBLOCK | unix.O_NOCTTY
	// maxLinks is how many links to files that don't exist yet a write follows,
	// the kernel's own number.
	maxLinks = 40
	fileMode = 0o644
	dirMode  = 0o755
)

// ReadFile returns a file's content. Links inside the session are followed.
//
// Errors: ErrInvalidPath, ErrNotExist (also for a directory), ErrRefused,
// ErrConflict (a lease of a running command), ErrTooLarge, ErrNoSession.
func (s *Session) ReadFile(rel string) ([]byte, error) {
	name, err := cleanPath(rel)
	if err != nil {
		return nil, err
	}
	var data []byte
	s.files.RLock()
	defer s.files.RUnlock()
	err = s.inWork("read", name, readMissing, func(work *os.Root) error {
		f, st, err := s.openFile(work, name, unix.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		if limit := s.store.cfg.MaxFileBytes; st.Size > limit {
			return fail(ErrTooLarge, "File is too large to read: %d bytes, the limit is %d", st.Size, limit)
		}
		// What is appended meanwhile is not part of it.
		data = make([]byte, st.Size)
		n, err := io.ReadFull(f, data)
		data = data[:n]
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// WriteFile makes a file of data, with the directories on its way (0755), or
// replaces the content of an existing one, which keeps its mode (new ones have
// 0644) and its other names. Links inside the session are followed, also one to
// a file that doesn't exist yet, which is made then. When the space runs out an
// existing file keeps its content.
//
// Errors: ErrInvalidPath, ErrRefused, ErrConflict (a directory of that name, a
// file on the way, a file that is being executed), ErrTooLarge, ErrNoSpace,
// ErrNoSession.
func (s *Session) WriteFile(rel string, data []byte) error {
	name, err := cleanPath(rel)
	if err != nil {
		return err
	}
	if limit := s.store.cfg.MaxFileBytes; int64(len(data)) > limit {
		return fail(ErrTooLarge, "File is too large to write: %d bytes, the limit is %d", len(data), limit)
	}
	s.files.Lock()
	defer s.files.Unlock()
	return s.inWork("write", name, writeMissing, func(work *os.Root) error {
		f, before, err := s.openFile(work, name, unix.O_WRONLY)
		if errors.Is(err, os.ErrNotExist) {
			return s.writeNew(work, name, data)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return s.replace(f, before, data)
	})
}

func (s *Session) writeNew(work *os.Root, name string, data []byte) error {
	if err := s.room(int64(len(data)), 1); err != nil {
		return err
	}
	f, made, err := create(work, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.replace(f, unix.Stat_t{}, data); err != nil {
		work.Remove(made) // best effort: it holds nothing of worth
		return err
	}
	s.account(func(u *Usage) { u.Files++ })
	return nil
}

// DeleteFile removes a file. A link is removed itself, if it leads to a regular
// file inside the session or to nothing.
//
// Errors: ErrInvalidPath, ErrNotExist (also for a directory), ErrRefused,
// ErrNoSession.
func (s *Session) DeleteFile(rel string) error {
	name, err := cleanPath(rel)
	if err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	return s.inWork("delete", name, readMissing, func(work *os.Root) error {
		self, err := work.Lstat(name)
		if err != nil {
			return err
		}
		target, err := work.Stat(name)
		switch {
		case errors.Is(err, os.ErrNotExist) && self.Mode().Type() == os.ModeSymlink:
		case err != nil:
			return err
		case target.IsDir():
			return unix.ENOENT
		case !target.Mode().IsRegular():
			return unix.ENXIO
		}
		if err := work.Remove(name); err != nil {
			return err
		}
		s.account(func(u *Usage) { u.Files--; u.Bytes -= share(statOf(self)) })
		return nil
	})
}

// RenameFile moves a file within the session, over one of the new name if there
// is, making the directories on the way. A link is moved itself, if it leads to
// a regular file inside the session.
//
// Errors: ErrInvalidPath, ErrNotExist (also for a directory or anything else
// that is no regular file), ErrRefused, ErrConflict (the new name is a directory
// or lies below a file), ErrNoSpace, ErrNoSession.
func (s *Session) RenameFile(oldRel, newRel string) error {
	from, err := cleanPath(oldRel)
	if err != nil {
		return err
	}
	to, err := cleanPath(newRel)
	if err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	return s.inWork("rename", to, writeMissing, func(work *os.Root) error {
		info, err := work.Stat(from)
		if err == nil && !info.Mode().IsRegular() {
			err = unix.ENOENT
		}
		if err != nil {
			return explain("rename", from, renameMissing, err)
		}
		if err := makeParents(work, to); err != nil {
			return err
		}
		source, err := work.Lstat(from)
		if errors.Is(err, os.ErrNotExist) {
			return fail(ErrNotExist, textOldMissing)
		}
		if err != nil {
			return err
		}
		replaced, _ := work.Lstat(to) // nil: nothing there
		if err := work.Rename(from, to); err != nil {
			return err
		}
		if replaced != nil && !os.SameFile(source, replaced) {
			s.account(func(u *Usage) { u.Files--; u.Bytes -= share(statOf(replaced)) })
		}
		return nil
	})
}

// inWork does one file operation in work, as the session's user; s.files is held.
func (s *Session) inWork(verb, name string, m missing, fn func(work *os.Root) error) error {
	if err := s.alive(); err != nil {
		return err
	}
	s.Touch()
	work, err := s.openWork()
	if err != nil {
		return explain(verb, name, m, err)
	}
	defer work.Close()
	return explain(verb, name, m, asUser(s.uid, func() error { return fn(work) }))
}

// openFile opens an existing regular file of the session's user. It is looked at
// before, since opening alone can have effects (it wakes a FIFO's writer), and
// again after, since it can have been swapped in between.
func (s *Session) openFile(work *os.Root, name string, flags int) (*os.File, unix.Stat_t, error) {
	info, err := work.Stat(name)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	if err := checkType(info.IsDir(), info.Mode().IsRegular(), flags); err != nil {
		return nil, unix.Stat_t{}, err
	}
	f, err := work.OpenFile(name, flags|openFlags, 0)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	st, err := fstat(int(f.Fd()))
	if err == nil {
		err = checkType(isDir(&st), isRegular(&st), flags)
	}
	if err == nil && s.uid >= 0 && int(st.Uid) != s.uid {
		err = fail(ErrRefused, "Refused: %q doesn't belong to the session", name)
	}
	if err != nil {
		f.Close()
		return nil, st, err
	}
	return f, st, nil
}

func checkType(dir, regular bool, flags int) error {
	switch {
	case regular:
		return nil
	case dir && flags == unix.O_RDONLY:
		return unix.ENOENT
	case dir:
		return unix.EISDIR
	}
	return unix.ENXIO
}

// create makes a new file, never touching one that exists. Where name is a link
// to nothing, the file is made where it leads; made is its name then.
func create(work *os.Root, name string) (f *os.File, made string, err error) {
	if err := makeParents(work, name); err != nil {
		return nil, "", err
	}
	asked := name
	for range maxLinks {
		f, err := work.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|openFlags, fileMode)
		if err == nil {
			return f, name, nil
		}
		if errors.Is(err, os.ErrNotExist) && name != asked {
			return nil, "", fail(ErrConflict, "Conflict: %q is a link into a directory that doesn't exist", asked)
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, "", err
		}
		target, err := work.Readlink(name)
		if err != nil {
			// Not a link: a command made something of that name just now.
			return nil, "", unix.EBUSY
		}
		if path.IsAbs(target) {
			return nil, "", errEscape
		}
		// Joined without cleaning: what comes before a ".." may be a link.
		dir, _ := path.Split(name)
		name = dir + target
	}
	return nil, "", unix.ELOOP
}

// makeParents makes the directories on the way to name.
func makeParents(work *os.Root, name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	err := work.MkdirAll(dir, dirMode)
	if errors.Is(err, os.ErrExist) {
		return unix.ENOTDIR // there is something, but no directory
	}
	return err
}

// replace makes data the whole content of an open file.
func (s *Session) replace(f *os.File, before unix.Stat_t, data []byte) error {
	fd, size := int(f.Fd()), int64(len(data))
	more := size - before.Blocks*512
	if more > 0 {
		if err := s.room(more, 0); err != nil {
			return err
		}
	}
	if more > 0 && before.Size > 0 {
		// Get the space first, so that the old content isn't lost for nothing.
		// File systems that can't are left to find out while writing.
		err := retry(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
		if err == unix.ENOSPC || err == unix.EDQUOT {
			f.Truncate(before.Size) // gives back what was got
			return err
		}
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	if before.Size > size {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	after, err := fstat(fd)
	if err != nil {
		return err
	}
	s.account(func(u *Usage) { u.Bytes += share(&after) - share(&before) })
	return nil
}

func statOf(info os.FileInfo) *unix.Stat_t {
	st := info.Sys().(*syscall.Stat_t)
	return &unix.Stat_t{Blocks: st.Blocks, Nlink: st.Nlink}
}
