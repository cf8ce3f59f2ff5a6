package spawner

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxSweeps = 1000
	// patientSweeps: after so many, what is left is a fork bomb.
	patientSweeps = 2
	// childrenBytes is how much of a list of children is read at once.
	childrenBytes = 4 << 10
)

// remains is what was left of a job.
type remains struct {
	killed       uint32
	user, system uint64 // µs that those had used
}

// reap takes in one dead child, if there is one. The error is ECHILD when there
// are no children at all, and so no descendants.
func (r *remains) reap(pid, options int) (dead int, err error) {
	var usage unix.Rusage
	dead, _, err = wait4(pid, options, &usage)
	if dead > 0 {
		r.killed++
		r.user += micros(usage.Utime)
		r.system += micros(usage.Stime)
	}
	return dead, err
}

// wait4 waits for a child without the Go runtime's knowledge: see [drowsy].
func wait4(pid, options int, usage *unix.Rusage) (dead int, status unix.WaitStatus, err error) {
	for {
		var word int32
		n, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&word)), uintptr(options), uintptr(unsafe.Pointer(usage)), 0, 0)
		if errno == 0 {
			return int(n), unix.WaitStatus(word), nil
		}
		if errno != unix.EINTR {
			return 0, 0, errno
		}
	}
}

func micros(t unix.Timeval) uint64 { return uint64(t.Sec)*1e6 + uint64(t.Usec) }

// sweep kills and reaps every descendant. Killing a process hands its children to
// us, so this ends when there are none left.
func (s *server) sweep() (r remains) {
	for n := range maxSweeps {
		dead, err := r.reap(-1, unix.WNOHANG)
		for dead > 0 {
			dead, err = r.reap(-1, unix.WNOHANG)
		}
		if err != nil {
			break // the usual end
		}
		strays := s.children()
		if s.confined {
			// No signal of ours leaves the slot, so this ends all of them at
			// once, and leaves none a chance to fork.
			unix.Kill(-1, unix.SIGKILL)
		} else if n >= patientSweeps {
			s.endUsers(strays)
		}
		for _, pid := range strays {
			unix.Kill(pid, unix.SIGKILL)
		}
		for _, pid := range strays {
			r.reap(pid, 0)
		}
	}
	return r
}

// children lists the pids of the children inherited as subreaper: they come to
// the main thread.
func (s *server) children() (pids []int) {
	buf := make([]byte, childrenBytes)
	for {
		n, err := unix.Pread(s.childrenFD, buf, 0)
		if err != nil {
			return nil
		}
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	for field := range bytes.FieldsSeq(buf) {
		if pid, err := strconv.Atoi(string(field)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// endUsers ends everything of the users that processes are of, our own and root
// excepted.
func (s *server) endUsers(pids []int) {
	done := []int{0, unix.Getuid()}
	for _, pid := range pids {
		uid, ok := userOf(pid)
		if !ok || slices.Contains(done, uid) {
			continue
		}
		done = append(done, uid)
		helper, errno := endUser(uintptr(uid), &s.plan.pidfd)
		if errno != 0 {
			continue
		}
		unix.Close(int(s.plan.pidfd))
		var r remains
		r.reap(int(helper), 0)
	}
}

// userOf is the real user of a process. The owner of its directory in /proc isn't
// it: that is root while the process isn't dumpable.
func userOf(pid int) (uid int, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, _ := bytes.Cut(status, []byte("\nUid:\t"))
	_, err = fmt.Sscan(string(rest), &uid)
	return uid, err == nil
}
