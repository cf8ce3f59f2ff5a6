package proctree

import (
	"bytes"
	"strconv"
	"time"
)

// Delay is the longest time that any process beneath root (its first thread) was
// ready to run and waited for a processor, since it began: proc(5) calls it run
// delay, /proc/<pid>/schedstat has it. 0 where the kernel doesn't count it.
func Delay(root int) time.Duration {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	_, procs, err := r.walk(root)
	if err != nil {
		return 0
	}
	var longest time.Duration
	for _, p := range procs {
		if data, err := r.file(p.pid, "schedstat"); err == nil {
			longest = max(longest, parseDelay(data))
		}
	}
	return longest
}

// parseDelay reads the second number of a line such as "1235045 2346048 6": time
// run, time waited, both in ns, and turns.
func parseDelay(data []byte) time.Duration {
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n)
}
