package session

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// copyChunk is how much of a file is copied between two looks at the context.
const copyChunk = 4 << 20

// copyTo copies work into the place that is open as dir and becomes uid's.
func (s *Session) copyTo(ctx context.Context, dir, uid int) error {
	s.files.RLock()
	defer s.files.RUnlock()
	if err := s.alive(); err != nil {
		return err
	}
	own, err := s.open()
	if err != nil {
		return err
	}
	defer unix.Close(own)
	from, err := forceOpenDirAt(own, workName)
	if err != nil {
		return fmt.Errorf("open %s: %w", workName, err)
	}
	defer unix.Close(from)
	to, err := openDirAt(dir, workName)
	if err != nil {
		return fmt.Errorf("open copy of %s: %w", workName, err)
	}
	defer unix.Close(to)
	c := &treeCopy{ctx: ctx, from: s.uid, to: uid, maxEntries: maxTreeEntries, maxBytes: s.store.cfg.QuotaBytes}
	if q := s.store.cfg.QuotaFiles; q > 0 {
		c.maxEntries = int(q)
	}
	return c.dir(from, to, 1)
}

// treeCopy copies a tree whose owner may be changing it into one that nobody
// else can reach yet. What is opened is checked by its descriptor, so that only
// what belongs to the session is ever read.
type treeCopy struct {
	ctx        context.Context
	from, to   int // user ids; -1 for none
	maxEntries int
	maxBytes   int64 // of content; 0 means no limit
	entries    int
	bytes      int64
	plain      []byte // buffer for copying without copy_file_range; nil while that works
}

func (c *treeCopy) dir(from, to, depth int) error {
	if depth > maxTreeDepth {
		return fail(ErrTooLarge, "The session can't be copied: its directories are more than %d levels deep", maxTreeDepth)
	}
	names, err := entryNames(from, c.maxEntries-c.entries)
	if err == errTooMany {
		return fail(ErrTooLarge, "The session can't be copied: it holds more than %d files and directories", c.maxEntries)
	}
	if err != nil {
		return fmt.Errorf("list directory to copy: %w", err)
	}
	c.entries += len(names)
	for _, name := range names {
		if err := context.Cause(c.ctx); err != nil {
			return fmt.Errorf("copy session: %w", err)
		}
		if err := c.entry(from, to, name, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry; one that vanished or changed its type since it was
// listed is passed over, as if it had been listed later.
func (c *treeCopy) entry(from, to int, name string, depth int) error {
	st, err := statAt(from, name)
	if err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			err = c.file(from, to, name)
		case unix.S_IFDIR:
			err = c.child(from, to, name, depth)
		case unix.S_IFLNK:
			err = c.link(from, to, name)
		}
	}
	switch {
	case err == nil, err == unix.ENOENT, err == unix.ENOTDIR, err == unix.ELOOP, err == unix.ENXIO:
		return nil
	case err == unix.EACCES, err == unix.EPERM:
		return &Error{Kind: ErrRefused, Text: fmt.Sprintf("The session can't be copied: the mode of %q or of its directory forbids reading it; change it with chmod", name), Cause: err}
	case err == unix.EAGAIN:
		return &Error{Kind: ErrConflict, Text: fmt.Sprintf("The session can't be copied: %q is in use by a running command", name), Cause: err}
	}
	return err
}

func (c *treeCopy) child(from, to int, name string, depth int) error {
	src, err := openDirAt(from, name)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	st, err := c.inspect(src, name)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return ofCopy(err)
	}
	dst, err := openDirAt(to, name)
	if err != nil {
		return ofCopy(err)
	}
	defer unix.Close(dst)
	if err := c.dir(src, dst, depth+1); err != nil {
		return err
	}
	return c.finish(to, name, dst, st)
}

func (c *treeCopy) file(from, to int, name string) error {
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|openFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	st, err := c.inspect(src, name)
	if err != nil || !isRegular(&st) {
		return err
	}
	dst, err := openAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return ofCopy(err)
	}
	defer unix.Close(dst)
	if err := c.content(src, dst, st.Size); err != nil {
		return ofCopy(err)
	}
	return c.finish(to, name, dst, st)
}

func (c *treeCopy) link(from, to int, name string) error {
	buf := make([]byte, MaxPathBytes+1)
	n, err := unix.Readlinkat(from, name, buf)
	if err == unix.EINVAL {
		return nil // no link any more
	}
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return ofCopy(err)
	}
	if c.to < 0 {
		return nil
	}
	return ofCopy(unix.Fchownat(to, name, c.to, c.to, unix.AT_SYMLINK_NOFOLLOW))
}

// inspect looks at what was opened: it must be the session's own.
func (c *treeCopy) inspect(fd int, name string) (unix.Stat_t, error) {
	st, err := fstat(fd)
	if err == nil && c.from >= 0 && int(st.Uid) != c.from {
		err = fail(ErrRefused, "The session can't be copied: %q doesn't belong to it", name)
	}
	return st, err
}

// finish gives a copy its owner, mode and times; the owner first, since changing
// it clears mode bits.
func (c *treeCopy) finish(to int, name string, fd int, st unix.Stat_t) error {
	if c.to >= 0 {
		if err := unix.Fchown(fd, c.to, c.to); err != nil {
			return ofCopy(err)
		}
	}
	if err := unix.Fchmod(fd, st.Mode&0o777); err != nil {
		return ofCopy(err)
	}
	return ofCopy(unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

// content copies size bytes, and the holes among them as holes.
func (c *treeCopy) content(src, dst int, size int64) error {
	if size > 0 {
		if err := unix.Ftruncate(dst, size); err != nil {
			return err
		}
	}
	for at := int64(0); at < size; {
		data, end, err := nextData(src, at, size)
		if err == unix.ENXIO { // only a hole up to the end
			return nil
		}
		if err != nil {
			return err
		}
		if c.bytes += end - data; c.maxBytes > 0 && c.bytes > c.maxBytes {
			return fail(ErrTooLarge, "The session can't be copied: its files hold more than %d bytes, its quota", c.maxBytes)
		}
		if err := c.span(src, dst, data, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// nextData finds the next stretch of data from at on; ENXIO if there is none. A
// file system that knows no holes says that everything is data.
func nextData(fd int, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if err == unix.EINVAL {
		return at, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if start >= size {
		return 0, 0, unix.ENXIO
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if err == unix.ENXIO { // cut off meanwhile
		return 0, 0, err
	}
	return start, min(end, size), err
}

// span copies one stretch, in the kernel where that is possible. A file that was
// cut off meanwhile ends in a hole.
func (c *treeCopy) span(src, dst int, at, end int64) error {
	for at < end {
		if err := context.Cause(c.ctx); err != nil {
			return fmt.Errorf("copy session: %w", err)
		}
		var n int
		err := retry(func() (err error) {
			if c.plain != nil {
				n, err = c.readWrite(src, dst, at, end)
				return err
			}
			from, to := at, at
			n, err = unix.CopyFileRange(src, &from, dst, &to, int(min(end-at, copyChunk)), 0)
			return err
		})
		switch {
		case err == nil && n == 0:
			return nil
		case err == nil:
			at += int64(n)
		case c.plain == nil && (err == unix.EXDEV || err == unix.EINVAL || err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EPERM):
			c.plain = make([]byte, 256<<10) // this file system or container can't
		default:
			return err
		}
	}
	return nil
}

func (c *treeCopy) readWrite(src, dst int, at, end int64) (int, error) {
	n, err := unix.Pread(src, c.plain[:min(end-at, int64(len(c.plain)))], at)
	if n <= 0 || err != nil {
		return 0, err
	}
	return unix.Pwrite(dst, c.plain[:n], at)
}

// ofCopy wraps what went wrong with the copy, so that it isn't taken for something
// that happened to the original.
func ofCopy(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return fmt.Errorf("make copy: %w", err)
}
