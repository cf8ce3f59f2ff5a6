// Package proctable reads what processes used, from /proc: CPU time of whole
// trees of processes, the ended ones included, and memory. It changes nothing.
package proctable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc/<pid>/stat. It is 100 on every
// architecture that Go runs on (getconf CLK_TCK; proc(5)).
const ticksPerSecond = 100

// Process is a row of the process table.
type Process struct {
	Pid, Parent int
	// Name is the kernel's, at most 15 bytes.
	Name string
	// CPU is user and system time, of the process and of all of its descendants
	// that have ended and were waited for.
	CPU time.Duration
}

// Table is the process table, by pid.
type Table map[int]Process

// Read reads the table. Processes that end meanwhile are left out.
func Read() (Table, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read process table: %w", err)
	}
	t := make(Table, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if p, err := parseStat(string(stat)); err == nil {
			t[pid] = p
		}
	}
	return t, nil
}

// parseStat reads a line such as "12 (a name) S 1 …"; see proc(5) for the fields.
func parseStat(line string) (Process, error) {
	first, last := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if first < 0 || last < first {
		return Process{}, fmt.Errorf("parse stat %.40q: no name", line)
	}
	fields := strings.Fields(line[last+1:]) // from the third, the state
	if len(fields) < 15 {
		return Process{}, fmt.Errorf("parse stat %.40q: %d fields", line, len(fields)+2)
	}
	var errs []error
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		errs = append(errs, err)
		return n
	}
	p := Process{Pid: number(strings.TrimSpace(line[:first])), Name: line[first+1 : last], Parent: number(fields[1])}
	ticks := 0
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks += number(f)
	}
	p.CPU = time.Duration(ticks) * time.Second / ticksPerSecond
	return p, errors.Join(errs...)
}

// Below returns the descendants of a process, in no order, without those that
// are, or descend from, one of the excluded.
func (t Table) Below(pid int, excluded ...int) []Process {
	children := map[int][]int{}
	for _, p := range t {
		children[p.Parent] = append(children[p.Parent], p.Pid)
	}
	without := map[int]bool{}
	for _, e := range excluded {
		without[e] = true
	}
	var found []Process
	for next := children[pid]; len(next) > 0; {
		p := next[0]
		next = next[1:]
		if !without[p] {
			found = append(found, t[p])
			next = append(next, children[p]...)
		}
	}
	return found
}

// CPU is what the trees of these processes used up to now.
func (t Table) CPU(pids ...int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		sum += t[pid].CPU
		for _, p := range t.Below(pid) {
			sum += p.CPU
		}
	}
	return sum
}

// Memory of a process, in bytes.
type Memory struct {
	// RSS is what it has in memory, PSS the same with each page divided by the
	// number of processes that share it, Private what it shares with none.
	RSS, PSS, Private int64
}

// Add adds the memory of another process.
func (m Memory) Add(o Memory) Memory {
	return Memory{RSS: m.RSS + o.RSS, PSS: m.PSS + o.PSS, Private: m.Private + o.Private}
}

// ReadMemory reads the memory of a process, which needs the rights to trace it.
func ReadMemory(pid int) (Memory, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return parseRollup(data), nil
}

// parseRollup adds up lines such as "Pss:  123 kB".
func parseRollup(data []byte) Memory {
	var m Memory
	for line := range bytes.Lines(data) {
		name, rest, ok := strings.Cut(string(line), ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "Rss":
			m.RSS = kb << 10
		case "Pss":
			m.PSS = kb << 10
		case "Private_Clean", "Private_Dirty":
			m.Private += kb << 10
		}
	}
	return m
}
