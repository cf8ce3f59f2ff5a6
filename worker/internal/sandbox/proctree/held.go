package proctree

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// held is what files without a name keep, each counted once.
type held struct {
	diskBytes   int64
	diskFiles   int
	memoryBytes int64 // in memfd, /dev/shm and the like
}

// inode names a file.
type inode struct{ dev, ino uint64 }

// DeletedFiles returns how many regular files the processes beneath root keep
// open or mapped after their last name was removed, and the disk space that
// those hold, in bytes: a walk of directories can't see them. Files in memory
// (memfd, tmpfs) are not among them; [MeasureExact] counts those.
func DeletedFiles(root int) (bytes int64, files int, err error) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	_, procs, err := r.walk(root)
	if err != nil {
		return 0, 0, err
	}
	h := r.held(procs)
	return h.diskBytes, h.diskFiles, nil
}

// held looks at all descriptors and mappings. What can't be read, because the
// process ended or may not be looked at, holds nothing.
func (r *reader) held(procs []stat) held {
	var h held
	known := map[inode]bool{}
	for _, p := range procs {
		if p.dead() {
			continue
		}
		id := r.alive(p)
		r.private(id, func() error { return r.mapped(id, known, &h) })
		tids, err := r.threads(p)
		if err != nil {
			continue
		}
		// Threads may have tables of descriptors of their own.
		for _, tid := range append([]int(nil), tids...) {
			if tid != id && sameFiles(id, tid) {
				continue
			}
			r.private(tid, func() error { return r.opened(tid, known, &h) })
		}
	}
	return h
}

// sameFiles says whether two threads surely share their descriptors; the call
// needs CAP_SYS_PTRACE for those of other users.
func sameFiles(a, b int) bool {
	const kcmpFiles = 2
	order, _, err := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return err == 0 && order == 0
}

// opened adds the nameless files among a thread's descriptors.
func (r *reader) opened(tid int, known map[inode]bool, h *held) error {
	path := r.procPath(tid, "fd")
	dir, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fds, err := r.list(dir)
	if err != nil {
		return err
	}
	var denied error
	for _, fd := range fds {
		name := strconv.Itoa(fd)
		var st unix.Stat_t
		switch err := unix.Fstatat(dir, name, &st, 0); {
		case err == unix.EACCES || err == unix.EPERM:
			denied = err
		case err == nil && h.isNew(&st, known):
			h.add(&st, path+"/"+name)
		}
	}
	return denied
}

// mapped adds the nameless files that a process has mapped: they need no
// descriptor to live on.
func (r *reader) mapped(id int, known map[inode]bool, h *held) error {
	data, err := r.file(id, "maps")
	if err != nil {
		return err
	}
	var denied error
	var last []byte
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte(" (deleted)\n")) {
			continue
		}
		// address perms offset dev inode path
		fields := bytes.SplitN(line, []byte(" "), 6)
		from, to, ok := bytes.Cut(fields[0], []byte("-"))
		if !ok || len(fields) < 6 {
			continue
		}
		// Neighbours are mostly parts of one file: look at it once.
		file := line[len(fields[0])+1+len(fields[1])+1+len(fields[2])+1 : len(line)-len(fields[5])]
		if bytes.Equal(file, last) {
			continue
		}
		last = file
		path := r.procPath(id, "map_files/"+string(bytes.TrimLeft(from, "0"))+"-"+string(bytes.TrimLeft(to, "0")))
		var st unix.Stat_t
		switch err := unix.Stat(path, &st); {
		case err == unix.EACCES || err == unix.EPERM:
			denied = err
		case err == nil && h.isNew(&st, known):
			h.add(&st, path)
		}
	}
	return denied
}

// isNew says whether a file has no name and was not counted before.
func (h *held) isNew(st *unix.Stat_t, known map[inode]bool) bool {
	key := inode{st.Dev, st.Ino}
	if st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG || known[key] {
		return false
	}
	known[key] = true
	return true
}

// add counts a file that path leads to.
func (h *held) add(st *unix.Stat_t, path string) {
	const blockSize = 512 // of st_blocks, on every file system
	size := st.Blocks * blockSize
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) == nil {
		switch int64(fs.Type) {
		case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC:
			h.memoryBytes += size
			return
		}
	}
	h.diskBytes += size
	h.diskFiles++
}
