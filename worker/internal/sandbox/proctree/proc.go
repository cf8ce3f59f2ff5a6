package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture.
const tick = 10 * time.Millisecond

// stat is what /proc/<pid>/stat says of a process.
type stat struct {
	pid, ppid, threads int
	state              byte
	// cpu is user and system time of all its threads, reaped that of the
	// children it waited for.
	cpu, reaped time.Duration
	// start is when it began, in ticks: with the pid it names a process.
	start uint64
}

// dead says that nothing of the process runs any more. A leader that ended
// before its threads is a zombie too, but counts as one of several threads.
func (s stat) dead() bool { return (s.state == 'Z' || s.state == 'X') && s.threads <= 1 }

// headless says that the first thread ended and others didn't: what /proc has
// of the process' memory and descriptors is empty then, that of a thread isn't.
func (s stat) headless() bool { return s.state == 'Z' && s.threads > 1 }

// haveChildren says whether the kernel has CONFIG_PROC_CHILDREN.
var haveChildren = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/thread-self/children")
	return err == nil
})

// reader reads /proc with buffers that are used again.
type reader struct {
	scan  bool       // look for children in all of /proc
	found func(stat) // is told of each process as a walk comes to it; may be nil
	buf   []byte
	path  []byte
	procs []stat
	queue []int
	seen  map[int]bool
	dir   [4096]byte
	names []int
}

var readers = sync.Pool{New: func() any {
	return &reader{scan: !haveChildren(), buf: make([]byte, 4096), seen: map[int]bool{}}
}}

// gone says that an error means that the process ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// file reads /proc/<pid>/<name>. The result is good until the next call.
func (r *reader) file(pid int, name string) ([]byte, error) {
	return r.read(r.procPath(pid, name))
}

func (r *reader) procPath(pid int, name string) string {
	r.path = append(r.path[:0], "/proc/"...)
	r.path = strconv.AppendInt(r.path, int64(pid), 10)
	r.path = append(r.path, '/')
	r.path = append(r.path, name...)
	return string(r.path)
}

func (r *reader) read(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		m, err := unix.Read(fd, r.buf[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case m == 0:
			return r.buf[:n], nil
		}
		if n += m; n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// stat reads /proc/<pid>/stat.
func (r *reader) stat(pid int) (stat, error) {
	data, err := r.file(pid, "stat")
	if err != nil {
		return stat{}, err
	}
	s, ok := parseStat(data)
	if !ok {
		return stat{}, fmt.Errorf("read stat of process %d: unexpected %q", pid, data)
	}
	return s, nil
}

func parseStat(data []byte) (stat, bool) {
	// The name, in parentheses, may contain anything, parentheses too.
	open, end := bytes.IndexByte(data, ' '), bytes.LastIndexByte(data, ')')
	if open < 0 || end < 0 || end+3 > len(data) {
		return stat{}, false
	}
	s := stat{pid: number(data[:open]), state: data[end+2]}
	var times [4]int
	field := 3
	for f := range bytes.FieldsSeq(data[end+2:]) {
		switch field {
		case 4:
			s.ppid = number(f)
		case 14, 15, 16, 17:
			times[field-14] = number(f)
		case 20:
			s.threads = number(f)
		case 22:
			s.start = uint64(number(f))
		}
		if field++; field > 22 {
			break
		}
	}
	s.cpu = time.Duration(times[0]+times[1]) * tick
	s.reaped = time.Duration(times[2]+times[3]) * tick
	return s, field > 22
}

// number is the decimal number at the beginning of b, 0 if there is none.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// numbers lists the entries of a directory that are numbers: pids, thread ids
// or descriptors. The result is good until the next call.
func (r *reader) numbers(path string) ([]int, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return r.list(fd)
}

func (r *reader) list(fd int) ([]int, error) {
	r.names = r.names[:0]
	for {
		n, err := unix.Getdents(fd, r.dir[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list directory: %w", err)
		}
		if n <= 0 {
			return r.names, nil
		}
		// struct linux_dirent64: ino and off of 8 bytes, reclen of 2, type of 1.
		for b := r.dir[:n]; len(b) > 19; {
			size := int(b[16]) | int(b[17])<<8
			if c := b[19]; c >= '0' && c <= '9' {
				r.names = append(r.names, number(b[19:size]))
			}
			b = b[size:]
		}
	}
}

// threads lists the threads of a process. The result is good until the next
// list of numbers.
func (r *reader) threads(s stat) ([]int, error) {
	if s.threads <= 1 {
		r.names = append(r.names[:0], s.pid)
		return r.names, nil
	}
	return r.numbers(r.procPath(s.pid, "task"))
}
