package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// dirFlags open a directory and nothing else: no link is followed, and what is
// not a directory is refused by the kernel before it is opened.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// retry repeats a system call that a signal interrupted.
func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

func openAt(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

func openDirAt(dir int, name string) (int, error) { return openAt(dir, name, dirFlags, 0) }

// forceOpenDirAt opens a directory whose mode may forbid it, by giving its
// owner the rights back first.
func forceOpenDirAt(dir int, name string) (int, error) {
	fd, err := openDirAt(dir, name)
	if err != unix.EACCES {
		return fd, err
	}
	path, err := openAt(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	if err := chmodPathFD(path, 0o700); err != nil {
		return -1, err
	}
	return openDirAt(dir, name)
}

// chmodPathFD changes the mode of what an O_PATH descriptor refers to. Kernels
// before 6.6 can do that only by way of /proc.
func chmodPathFD(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == unix.EOPNOTSUPP || err == unix.EPERM {
		// EPERM: also what an old container runtime's filter says to a
		// system call it doesn't know.
		err = unix.Chmod(procPath(fd), mode)
	}
	return err
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func statAt(dir int, name string) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func fstat(fd int) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstat(fd, &st) })
	return st, err
}

func isDir(st *unix.Stat_t) bool     { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

var direntBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// eachEntry calls fn for every entry of an open directory, from its current
// offset on, with the entry's type as the directory has it (may be DT_UNKNOWN).
// Names are bytes: they need not be UTF-8.
func eachEntry(fd int, fn func(name string, typ byte) error) error {
	buf := direntBuffers.Get().(*[16 << 10]byte)
	defer direntBuffers.Put(buf)
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.ReadDirent(fd, buf[:])
			return err
		})
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		if err := parseEntries(buf[:n], fn); err != nil {
			return err
		}
	}
}

// parseEntries walks the records of getdents64(2): inode and offset (8 bytes
// each), record length (2), type (1), name up to a NUL.
func parseEntries(buf []byte, fn func(name string, typ byte) error) error {
	const header = 19
	for len(buf) >= header {
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length < header || length > len(buf) {
			return errors.New("read directory: malformed entry")
		}
		name, typ := buf[header:length], buf[18]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		buf = buf[length:]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if err := fn(string(name), typ); err != nil {
			return err
		}
	}
	return nil
}

// entryNames lists an open directory from its start, at most limit entries;
// more is an error that wraps errTooMany.
func entryNames(fd, limit int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var names []string
	err := eachEntry(fd, func(name string, _ byte) error {
		if len(names) >= limit {
			return errTooMany
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

var errTooMany = errors.New("too many entries")

// replaceFileAt replaces a file of the worker's own, durably: a reader sees the
// old or the new content whole, also after a power failure.
func replaceFileAt(dir int, name string, data []byte) error {
	temp := name + ".new"
	if err := unix.Unlinkat(dir, temp, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove %s: %w", temp, err)
	}
	if err := createFileAt(dir, temp, data); err != nil {
		return err
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		return fmt.Errorf("rename %s: %w", temp, err)
	}
	return syncDir(dir)
}

// createFileAt makes a file; when it returns its content is on the disk.
func createFileAt(dir int, name string, data []byte) error {
	fd, err := openAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func syncDir(dir int) error {
	if err := retry(func() error { return unix.Fsync(dir) }); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
