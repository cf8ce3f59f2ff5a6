package proctable

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	p, err := parseStat("42 (a (b) c) S 7 1 1 0 -1 4194560 1 2 3 4 100 50 20 5 20 0 1 0")
	if err != nil {
		t.Fatal(err)
	}
	if want := (Process{Pid: 42, Parent: 7, Name: "a (b) c", CPU: 1750 * time.Millisecond}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	for _, line := range []string{"", "42 S 7", "42 (a) S 7 1", "x (a) S 7 1 1 0 -1 4194560 1 2 3 4 100 50 20 5 20 0"} {
		if _, err := parseStat(line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestParseRollup(t *testing.T) {
	m := parseRollup([]byte("00400000-7ffd ---p 00000000 00:00 0  [rollup]\nRss:      100 kB\nPss:       60 kB\nPss_Anon:  10 kB\nPrivate_Clean:  5 kB\nPrivate_Dirty: 20 kB\n"))
	if want := (Memory{RSS: 100 << 10, PSS: 60 << 10, Private: 25 << 10}); m != want {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func TestBelow(t *testing.T) {
	table := Table{
		1: {Pid: 1, CPU: 1}, 2: {Pid: 2, Parent: 1, CPU: 10}, 3: {Pid: 3, Parent: 2, CPU: 100},
		4: {Pid: 4, Parent: 1, CPU: 1000}, 5: {Pid: 5, Parent: 4, CPU: 10000},
	}
	if got := len(table.Below(1)); got != 4 {
		t.Errorf("%d below 1, want 4", got)
	}
	if got := table.Below(1, 4); len(got) != 2 {
		t.Errorf("below 1 without 4: %v", got)
	}
	if got := table.CPU(2, 4); got != 11110 {
		t.Errorf("CPU %d, want 11110", got)
	}
}

// A child that worked is counted before and after its end.
func TestCPUOfChildren(t *testing.T) {
	read := func() time.Duration {
		table, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		return table.CPU(os.Getpid())
	}
	before := read()
	if err := exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	if used := read() - before; used < 20*time.Millisecond {
		t.Errorf("a child that counted to 100,000 used %v", used)
	}
	m, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	if m.PSS <= 0 || m.RSS < m.PSS || m.RSS < m.Private {
		t.Errorf("memory %+v", m)
	}
}
