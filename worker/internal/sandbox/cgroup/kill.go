package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// KillTimeout bounds how long Kill waits until a group is empty, and
// CloseTimeout how long Close waits for the last of the dead to leave it. What was
// killed ends for certain, but needs a processor for that: 400 processes took 3 s
// on two cores that hundreds wanted.
const (
	KillTimeout  = 20 * time.Second
	CloseTimeout = 5 * time.Second
)

// maxWatched bounds the descriptors that Kill has at a time.
const maxWatched = 64

// Kill ends all processes of the group, fork bombs among them, and waits until
// none is alive. Meanwhile the group can't fork. The dead are for their parents
// to collect.
func (g *Group) Kill() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer urge()()
	// Nothing new begins: then a few rounds end any number.
	pidsMax := filepath.Join(g.root.bases[1], g.name, g.root.files.pids)
	if err := writeFile(pidsMax, "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stop forks of cgroup %s: %w", g.name, err)
	}
	err := g.killAll(time.Now().Add(KillTimeout))
	back := "max"
	if g.processes > 0 {
		back = strconv.Itoa(g.processes)
	}
	if backErr := writeFile(pidsMax, back); backErr != nil && !errors.Is(backErr, fs.ErrNotExist) {
		err = errors.Join(err, backErr)
	}
	if err != nil {
		return fmt.Errorf("kill cgroup %s: %w", g.name, err)
	}
	return nil
}

// killAll kills until nothing is left in any of the group's directories.
func (g *Group) killAll(deadline time.Time) error {
	for {
		living := 0
		for _, dir := range g.dirs {
			// v2 from Linux 5.14 has all killed at once; it is repeated with the
			// rounds, for one that was just forked or joins.
			if g.root.files.version == 2 {
				writeFile(filepath.Join(dir, "cgroup.kill"), "1")
			}
			n, err := killOnce(dir, min(time.Until(deadline), 50*time.Millisecond))
			if err != nil {
				return err
			}
			living += n
		}
		if living == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%d processes live %v after their kill", living, KillTimeout)
		}
	}
}

// urge has this thread run before all others, where that is allowed, until
// restore is called: a fork bomb takes what time there is. It is proctree's too:
// neither package imports the other.
func urge() (restore func()) {
	runtime.LockOSThread()
	usual, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		first := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
		err = unix.SchedSetAttr(0, &first, 0)
	}
	if err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		if unix.SchedSetAttr(0, usual, 0) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with its goroutine
	}
}

// killOnce kills the processes of a directory, waits a while for the end of some,
// and returns how many there were.
func killOnce(dir string, wait time.Duration) (int, error) {
	pids, err := members(dir)
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	// All are killed before any is waited for: those that live take the time
	// that the dying need.
	var watched []int
	for batch := range slices.Chunk(pids, maxWatched) {
		for _, fd := range watched {
			unix.Close(fd)
		}
		if watched, err = killBatch(dir, batch); err != nil {
			break
		}
	}
	deadline := time.Now().Add(wait)
	for _, fd := range watched {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		unix.Poll(poll, int(max(time.Until(deadline).Milliseconds(), 0)))
		unix.Close(fd)
	}
	return len(pids), err
}

// killBatch kills those of the pids that are a directory's, and returns pidfds
// of them.
func killBatch(dir string, pids []int) (watched []int, err error) {
	held := map[int]int{} // pidfd by pid
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			held[pid] = fd
		}
	}
	// A pid may have become another's before it was opened: who is still listed
	// is meant.
	still, err := members(dir)
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		delete(held, pid)
		watched = append(watched, fd)
		if killErr := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); killErr != nil && killErr != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, killErr))
		}
	}
	for _, fd := range held {
		unix.Close(fd)
	}
	return watched, err
}

// members are the pids of the living processes in a directory; none if it is gone.
func members(dir string) ([]int, error) {
	list, err := words(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find processes: %w", err)
	}
	pids := make([]int, 0, len(list))
	for _, s := range list {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 { // 0: not in our pid namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Close removes the group. It must have no processes: see [Group.Kill].
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closeFiles()
	var err error
	for _, dir := range g.dirs {
		err = errors.Join(err, remove(dir, time.Now().Add(CloseTimeout)))
	}
	return err
}

// remove removes a group's directory; those that just died may still be in it.
func remove(dir string, deadline time.Time) error {
	for pause := 100 * time.Microsecond; ; pause *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err == unix.EBUSY && time.Now().Before(deadline) {
			if pids, _ := members(dir); len(pids) == 0 {
				time.Sleep(pause) // the kernel tells nobody when they are gone
				continue
			}
		}
		return fmt.Errorf("remove cgroup: %w", &os.PathError{Op: "rmdir", Path: dir, Err: err})
	}
}
