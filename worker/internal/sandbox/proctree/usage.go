package proctree

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the processes beneath a root use, without root itself.
type Usage struct {
	// Processes and Threads count what lives; zombies are not among them.
	Processes, Threads int
	// MemoryBytes is resident memory. Of [Measure] it is an upper bound: pages
	// that processes share count for each of them. Of [MeasureExact] they count
	// once, and so does memory in files without a name (memfd, /dev/shm).
	MemoryBytes int64
	// CPU is user and system time of the descendants, zombies among them, of
	// what they waited for, and of what root has waited for in its whole life:
	// the caller subtracts what it was before. In steps of 10 ms a process.
	CPU time.Duration
	// WrittenBytes went towards disks from processes that live, and from what
	// they waited for. Of [MeasureExact] only, and where it can be read.
	WrittenBytes int64
}

// Measure sums up what the processes beneath root use, cheaply.
func Measure(root int) (Usage, error) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	top, procs, err := r.walk(root)
	if err != nil {
		return Usage{}, err
	}
	return r.sum(top, procs), nil
}

// MeasureExact sums up what the processes beneath root use. It looks at every
// mapping and descriptor: some 0.25 ms a small process, more a big one.
func MeasureExact(root int) (Usage, error) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	top, procs, err := r.walk(root)
	if err != nil {
		return Usage{}, err
	}
	u := r.sum(top, procs)
	u.MemoryBytes = r.exact(top, procs, r.held(procs).memoryBytes)
	for _, p := range procs {
		r.private(p.pid, func() error {
			data, err := r.file(p.pid, "io")
			u.WrittenBytes += value(data, "write_bytes:")
			return err
		}) // unreadable counts as nothing
	}
	return u, nil
}

// sum is the cheap sum over processes.
func (r *reader) sum(top stat, procs []stat) Usage {
	u := Usage{CPU: top.reaped}
	swap := haveSwap()
	for _, p := range procs {
		u.CPU += p.cpu + p.reaped
		if p.dead() {
			continue
		}
		u.Processes++
		u.Threads += p.threads
		resident, _ := r.resident(p, swap)
		u.MemoryBytes += resident
	}
	return u
}

// haveSwap says whether memory may be resident nowhere.
func haveSwap() bool {
	var info unix.Sysinfo_t
	return unix.Sysinfo(&info) == nil && info.Totalswap > 0
}

var pageSize = int64(os.Getpagesize())

// resident returns the resident memory of a process, with swap what is swapped
// out too, and how much of that is files and shared memory; 0 if it is gone.
func (r *reader) resident(p stat, swap bool) (total, files int64) {
	id := r.alive(p)
	if swap {
		data, err := r.file(id, "status")
		if err != nil {
			return 0, 0
		}
		files = (value(data, "RssFile:") + value(data, "RssShmem:")) << 10
		return (value(data, "VmRSS:") + value(data, "VmSwap:")) << 10, files
	}
	data, err := r.file(id, "statm")
	if err != nil {
		return 0, 0
	}
	field := 0
	for f := range bytes.FieldsSeq(data) { // size resident shared …
		switch field++; field {
		case 2:
			total = int64(number(f)) * pageSize
		case 3:
			return total, int64(number(f)) * pageSize
		}
	}
	return total, 0
}

// alive returns the id under which /proc has the memory and the descriptors of
// a process: the pid, or a thread's if the first thread ended.
func (r *reader) alive(p stat) int {
	if !p.headless() {
		return p.pid
	}
	tids, err := r.threads(p)
	if err != nil {
		return p.pid
	}
	for _, tid := range tids {
		if data, err := r.file(tid, "statm"); err == nil && !bytes.HasPrefix(data, []byte("0 ")) {
			return tid
		}
	}
	return p.pid
}

// exact is the memory of the processes and of the files that they hold, with
// every page counted once, in bytes.
func (r *reader) exact(top stat, procs []stat, unnamed int64) int64 {
	var total, shared int64
	swap := haveSwap()
	inherited := int64(-1)
	for _, p := range procs {
		if p.dead() {
			continue
		}
		id := r.alive(p)
		err := r.private(id, func() error {
			data, err := r.file(id, "smaps_rollup")
			total += (value(data, "Pss:") + value(data, "SwapPss:")) << 10
			shared += value(data, "Pss_Shmem:") << 10
			return err
		})
		if err == nil || gone(err) {
			continue
		}
		// What it has beyond what it may share with root since its fork.
		if inherited < 0 {
			all, files := r.resident(top, swap)
			inherited = all - files
		}
		all, files := r.resident(p, swap)
		total += max(0, all-files-inherited)
	}
	// Shared memory stays when it is mapped no more, as long as it is open.
	return max(total, total-shared+unnamed)
}

// value is the number after a name at the beginning of a line, 0 without one.
func value(data []byte, name string) int64 {
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return int64(number(bytes.TrimLeft(rest, " \t")))
		}
	}
	return 0
}

// private calls read, which reads what /proc shows only to those who may trace
// the process. Root without CAP_SYS_PTRACE, as in a plain container, may not;
// the process' own user may, as long as it is dumpable, so read is called again
// as that user.
func (r *reader) private(pid int, read func() error) error {
	err := read()
	if err == nil || gone(err) || os.Geteuid() != 0 {
		return err
	}
	data, statusErr := r.file(pid, "status")
	if statusErr != nil {
		return fmt.Errorf("find user of process %d: %w", pid, statusErr)
	}
	uid, gid := int(value(data, "Uid:")), int(value(data, "Gid:"))
	if uid == 0 {
		return err
	}
	// The ids are the thread's. A side effect is that this process is not
	// dumpable any more, which a worker as root may well be.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.SetfsgidRetGid(gid)
	defer unix.SetfsgidRetGid(os.Getegid())
	unix.SetfsuidRetUid(uid)
	defer unix.SetfsuidRetUid(0)
	return read()
}
