package session

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ItemKind is what an Item is.
type ItemKind int

// The kinds of items. FIFOs, sockets and devices are none.
const (
	FileItem ItemKind = iota
	DirItem
	LinkItem
)

// Item is one file, directory or link below work.
type Item struct {
	// Path is relative to work.
	Path string
	Kind ItemKind
	// Mode is the permission bits; 0 for links.
	Mode uint32
	// Target of a link.
	Target string
	Stamp
}

// Stamp tells whether a file is as it was when last looked at. A job can change
// everything in it but CTime, the kernel's own word; what changes twice within
// one tick of the kernel's clock may keep it, though.
type Stamp struct {
	Size         int64
	MTime, CTime int64 // nanoseconds since 1970
	Inode        uint64
	Mode         uint32
	Names        uint64 // of a file: more than one if it has hard links
}

func stampOf(st *unix.Stat_t) Stamp {
	return Stamp{Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), Inode: st.Ino, Mode: st.Mode, Names: uint64(st.Nlink)}
}

// Opener opens the file of an item that is being visited, and says what it is as
// of then.
type Opener func() (*os.File, Stamp, error)

// By how much a session may be over its quota and still be scanned: a job that
// goes over is ended, but not at once.
const (
	scanSlack     = 2 // times the quota, and
	scanMoreFiles = 100_000
	scanMoreBytes = 1 << 30
)

// Scan visits everything in work, directories before what is in them; links are
// not followed. What changes meanwhile may be visited as it was before or after.
// The Opener fails with ErrNotExist for a file that is gone.
//
// Errors: ErrTooLarge for a tree of more than 128 levels or of far more than the
// quota, files counted with their whole length, holes included.
func (s *Session) Scan(ctx context.Context, visit func(Item, Opener) error) error {
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
	work, err := forceOpenDirAt(own, workName)
	if err == unix.ENOENT {
		return nil // only where jobs are the worker's own user; it is made when needed
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", workName, err)
	}
	defer unix.Close(work)
	sc := &scan{ctx: ctx, uid: s.uid, visit: visit, maxEntries: maxTreeEntries, maxBytes: 0}
	if q := s.store.cfg.QuotaFiles; q > 0 {
		sc.maxEntries = min(maxTreeEntries, int(q)*scanSlack+scanMoreFiles)
	}
	if q := s.store.cfg.QuotaBytes; q > 0 {
		sc.maxBytes = q*scanSlack + scanMoreBytes
	}
	return sc.dir(work, "", 1)
}

type scan struct {
	ctx        context.Context
	uid        int
	visit      func(Item, Opener) error
	maxEntries int
	maxBytes   int64
	entries    int
	bytes      int64
}

func (sc *scan) dir(fd int, prefix string, depth int) error {
	if depth > maxTreeDepth {
		return fail(ErrTooLarge, "The session can't be stored: its directories are more than %d levels deep", maxTreeDepth)
	}
	names, err := entryNames(fd, sc.maxEntries-sc.entries)
	if err == errTooMany {
		return fail(ErrTooLarge, "The session can't be stored: it holds more than %d files and directories", sc.maxEntries)
	}
	if err != nil {
		return fmt.Errorf("list directory: %w", err)
	}
	sc.entries += len(names)
	for _, name := range names {
		if err := context.Cause(sc.ctx); err != nil {
			return fmt.Errorf("scan session: %w", err)
		}
		if err := sc.entry(fd, prefix+name, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (sc *scan) entry(dir int, path, name string, depth int) error {
	st, err := statAt(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at file: %w", err)
	}
	item := Item{Path: path, Mode: st.Mode & 0o777, Stamp: stampOf(&st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if sc.bytes += st.Size; sc.maxBytes > 0 && sc.bytes > sc.maxBytes {
			return fail(ErrTooLarge, "The session can't be stored: its files are more than %d bytes long in all", sc.maxBytes)
		}
		item.Kind = FileItem
		return sc.visit(item, func() (*os.File, Stamp, error) { return sc.open(dir, path, name) })
	case unix.S_IFDIR:
		item.Kind = DirItem
		return sc.child(dir, item, name, depth)
	case unix.S_IFLNK:
		buf := make([]byte, MaxPathBytes+1)
		n, err := unix.Readlinkat(dir, name, buf)
		if err == unix.EINVAL || err == unix.ENOENT {
			return nil // no link any more
		}
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}
		item.Kind, item.Mode, item.Target = LinkItem, 0, string(buf[:n])
		return sc.visit(item, nil)
	}
	return nil
}

func (sc *scan) child(dir int, item Item, name string, depth int) error {
	fd, err := openDirAt(dir, name)
	forced := err == unix.EACCES
	if forced { // only where jobs are the worker's own user
		fd, err = forceOpenDirAt(dir, name)
	}
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return nil
	default:
		return fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(fd)
	if forced {
		defer unix.Fchmod(fd, item.Mode) // as its owner made it
	} else if item.Mode&0o700 != 0o700 && os.Geteuid() != 0 {
		// It can be read, not searched.
		if err := unix.Fchmod(fd, item.Mode|0o700); err == nil {
			defer unix.Fchmod(fd, item.Mode)
		}
	}
	if err := sc.visit(item, nil); err != nil {
		return err
	}
	return sc.dir(fd, item.Path+"/", depth+1)
}

func (sc *scan) open(dir int, path, name string) (*os.File, Stamp, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | openFlags
	fd, err := openAt(dir, name, flags, 0)
	if err == unix.EACCES {
		fd, err = forceOpenFileAt(dir, name, flags)
	}
	switch err {
	case nil:
	case unix.ENOENT, unix.ELOOP, unix.ENXIO, unix.ENOTDIR:
		return nil, Stamp{}, fail(ErrNotExist, textNotExist)
	case unix.EAGAIN:
		return nil, Stamp{}, &Error{Kind: ErrConflict, Text: fmt.Sprintf("The session can't be stored: %q is in use by a running command", path), Cause: err}
	default:
		return nil, Stamp{}, fmt.Errorf("open file: %w", err)
	}
	st, err := fstat(fd)
	switch {
	case err != nil:
	case !isRegular(&st):
		err = fail(ErrNotExist, textNotExist)
	case sc.uid >= 0 && int(st.Uid) != sc.uid:
		err = fail(ErrRefused, "The session can't be stored: %q doesn't belong to it", path)
	}
	if err != nil {
		unix.Close(fd)
		return nil, Stamp{}, err
	}
	return os.NewFile(uintptr(fd), name), stampOf(&st), nil
}

// forceOpenFileAt opens a file whose mode forbids it to its owner, and puts the
// mode back.
func forceOpenFileAt(dir int, name string, flags int) (int, error) {
	path, err := openAt(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	st, err := fstat(path)
	if err != nil || !isRegular(&st) {
		return -1, unix.ENXIO
	}
	if err := chmodPathFD(path, st.Mode&0o777|0o400); err != nil {
		return -1, err
	}
	defer chmodPathFD(path, st.Mode&0o777)
	return openAt(dir, name, flags, 0)
}

// Look returns what is at a path, a link itself included. Plain is false if a
// link is on the way, so that the path is another one's second name, or if that
// can't be told.
//
// Errors: ErrInvalidPath, ErrNotExist, ErrNoSession.
func (s *Session) Look(rel string) (item Item, plain bool, err error) {
	name, err := cleanPath(rel)
	if err != nil {
		return item, false, err
	}
	if err := s.alive(); err != nil {
		return item, false, err
	}
	own, err := s.open()
	if err != nil {
		return item, false, err
	}
	defer unix.Close(own)
	work, err := openDirAt(own, workName)
	if err != nil {
		return item, false, fmt.Errorf("open %s: %w", workName, err)
	}
	defer unix.Close(work)
	fd := -1
	err = retry(func() (err error) {
		fd, err = unix.Openat2(work, name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		return err
	})
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		return item, true, fail(ErrNotExist, textNotExist)
	default: // a link on the way, or a container without this system call
		return item, false, nil
	}
	defer unix.Close(fd)
	st, err := fstat(fd)
	if err != nil {
		return item, false, fmt.Errorf("look at file: %w", err)
	}
	item = Item{Path: name, Mode: st.Mode & 0o777, Stamp: stampOf(&st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		item.Kind = DirItem
	case unix.S_IFLNK:
		item.Kind, item.Mode = LinkItem, 0
	default:
		return item, false, nil
	}
	return item, true, nil
}

// Parents returns the directories above a clean path, the outermost first.
func Parents(name string) []string {
	var all []string
	for i := range len(name) {
		if name[i] == '/' {
			all = append(all, strings.Clone(name[:i]))
		}
	}
	return all
}
