package redteam

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process is a row of the host's process table.
type process struct {
	pid, ppid, uid int
	state          string
	command        string
	begun          string // in clock ticks since the machine started
}

func (p process) String() string {
	return fmt.Sprintf("%d (user %d, parent %d, state %s): %.80q", p.pid, p.uid, p.ppid, p.state, p.command)
}

// kill ends a process that an attack left behind.
func (p process) kill() {
	if now, ok := readProcess(p.pid); ok && now.begun == p.begun {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// readProcess reads one row; ok is false once the process is gone.
func readProcess(pid int) (p process, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	// pid (name) state ppid …: the name may hold anything.
	_, rest, _ := strings.Cut(string(stat), " (")
	end := strings.LastIndex(rest, ") ")
	if end < 0 {
		return p, false
	}
	fields := strings.Fields(rest[end+2:])
	if len(fields) < 20 {
		return p, false
	}
	p = process{pid: pid, state: fields[0], begun: fields[19], command: rest[:end], uid: -1}
	p.ppid, _ = strconv.Atoi(fields[1])
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, false
	}
	if _, after, ok := strings.Cut(string(status), "\nUid:\t"); ok {
		fmt.Sscan(after, &p.uid)
	}
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		p.command += ": " + string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
	}
	return p, true
}

// processTable reads all of it, by pid.
func processTable() map[int]process {
	table := map[int]process{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readProcess(pid); ok {
				table[pid] = p
			}
		}
	}
	return table
}

// tree is every descendant of the fleet's process that is no zombie.
func (f *Fleet) tree() []process {
	table := processTable()
	var found []process
	for pid, p := range table {
		if pid != f.Pid && p.state != "Z" && descends(table, pid, f.Pid) {
			found = append(found, p)
		}
	}
	return found
}

func descends(table map[int]process, pid, from int) bool {
	for range 100_000 {
		if pid == from {
			return true
		}
		p, ok := table[pid]
		if !ok || pid == p.ppid {
			return false
		}
		pid = p.ppid
	}
	return false
}

// begunAt is when this process started: what is older is none of ours.
var begunAt = func() string { p, _ := readProcess(os.Getpid()); return p.begun }()

// strays are processes that an attack left behind: those of the fleet's session
// users; where sessions have none, those of our own user that began after us and
// hang below nobody of ours. (A stray below the fleet's process shows in its tree.)
func (f *Fleet) strays() []process {
	var found []process
	table := processTable()
	for pid, p := range table {
		switch {
		case f.UIDBase > 0:
			if p.uid >= f.UIDBase && p.uid < f.UIDBase+uidsPerFleet {
				found = append(found, p)
			}
		case p.uid == os.Getuid() && p.ppid == 1 && p.state != "Z" && atLeast(p.begun, begunAt) && !descends(table, os.Getpid(), pid):
			found = append(found, p)
		}
	}
	return found
}

func atLeast(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a >= b
}
