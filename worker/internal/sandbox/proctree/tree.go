package proctree

import (
	"bytes"
	"fmt"
	"strconv"
)

// maxRounds bounds how often a walk comes back to root for processes that were
// handed to it meanwhile.
const maxRounds = 8

// Descendants returns the pids of all processes beneath root, zombies among
// them, root itself not. Processes that come or go meanwhile may or may not be
// in it. It fails if root is gone: the error is fs.ErrNotExist or ESRCH.
func Descendants(root int) ([]int, error) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	_, procs, err := r.walk(root)
	if err != nil {
		return nil, err
	}
	pids := make([]int, len(procs))
	for i, p := range procs {
		pids[i] = p.pid
	}
	return pids, nil
}

// walk returns what root and each process beneath it are. The slice is good
// until the next walk.
func (r *reader) walk(root int) (stat, []stat, error) {
	top, err := r.stat(root)
	if err != nil {
		return stat{}, nil, fmt.Errorf("look at process tree: %w", err)
	}
	r.procs = r.procs[:0]
	clear(r.seen)
	r.seen[root] = true
	if r.scan {
		err = r.scanAll()
	} else {
		err = r.follow(top)
	}
	if err != nil {
		return stat{}, nil, fmt.Errorf("look at process tree: %w", err)
	}
	return top, r.procs, nil
}

func (r *reader) add(s stat) {
	r.procs = append(r.procs, s)
	if r.found != nil {
		r.found(s)
	}
}

// follow finds descendants by the kernel's lists of children.
func (r *reader) follow(top stat) error {
	next := 0
	for range maxRounds {
		// A process that ends hands its children to root, which may have been
		// read already: so look at root again until it has nothing new.
		if err := r.children(top); err != nil {
			return err
		}
		if len(r.queue) == 0 {
			return nil
		}
		for {
			for _, pid := range r.queue {
				if r.seen[pid] {
					continue // it went from one thread's list to another's
				}
				r.seen[pid] = true
				if s, err := r.stat(pid); err == nil { // else it ended
					r.add(s)
				}
			}
			r.queue = r.queue[:0]
			for ; len(r.queue) == 0 && next < len(r.procs); next++ {
				if err := r.children(r.procs[next]); err != nil && !gone(err) {
					return err
				}
			}
			if len(r.queue) == 0 {
				break
			}
		}
	}
	return nil
}

// children puts the children of a process that have not been seen into queue.
// A child belongs to the thread that made it.
func (r *reader) children(s stat) error {
	r.queue = r.queue[:0]
	tids, err := r.threads(s)
	if err != nil {
		return err
	}
	for _, tid := range tids {
		r.path = append(r.path[:0], "task/"...)
		r.path = strconv.AppendInt(r.path, int64(tid), 10)
		r.path = append(r.path, "/children"...)
		data, err := r.file(s.pid, string(r.path))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		for f := range bytes.FieldsSeq(data) {
			if pid := number(f); !r.seen[pid] {
				r.queue = append(r.queue, pid)
			}
		}
	}
	return nil
}

// scanAll finds descendants by the parents of all processes there are.
func (r *reader) scanAll() error {
	pids, err := r.numbers("/proc")
	if err != nil {
		return err
	}
	all := make([]stat, 0, len(pids))
	for _, pid := range pids {
		if s, err := r.stat(pid); err == nil {
			all = append(all, s)
		}
	}
	// Pids wrap around, so a child may come before its parent.
	for found := true; found; {
		found = false
		for _, s := range all {
			if r.seen[s.ppid] && !r.seen[s.pid] {
				r.seen[s.pid] = true
				r.add(s)
				found = true
			}
		}
	}
	return nil
}
