package durable

import (
	"errors"
	"fmt"
	"time"
)

// Batch is changes that are written together.
type Batch struct {
	journal *Journal
	set     map[string]Entry
	deleted map[string]struct{}
	// operations are the ids of those that made the changes, as far as they have one.
	operations []string
	claim      bool // to be written although it may change nothing
	done       chan struct{}
	err        error
}

// Stage notes changes, in the order of its calls, and the ids of the operations
// that made them; they are stored together, when Wait of the batch says so.
// Contents must be stored before.
func (j *Journal) Stage(set []Entry, deleted []string, operations ...string) *Batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.next
	if b == nil {
		b = &Batch{journal: j, set: map[string]Entry{}, deleted: map[string]struct{}{}, done: make(chan struct{})}
		j.next = b
	}
	for _, path := range deleted {
		j.drop(path)
		delete(b.set, path)
		b.deleted[path] = struct{}{}
	}
	for _, e := range set {
		j.put(e)
		delete(b.deleted, e.Path)
		b.set[e.Path] = e
	}
	for _, id := range operations {
		if id != "" {
			j.operations.add(id, time.Now())
			b.operations = append(b.operations, id)
		}
	}
	return b
}

// Claim stages a message that changes nothing but who may write.
func (j *Journal) Claim() *Batch {
	b := j.Stage(nil, nil)
	b.claim = true
	return b
}

// Staged returns the batch that holds all that was staged and isn't stored yet;
// nil if there is nothing.
func (j *Journal) Staged() *Batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next == nil && j.flushing {
		j.next = &Batch{journal: j, set: map[string]Entry{}, deleted: map[string]struct{}{}, done: make(chan struct{})}
	}
	return j.next
}

// Wait returns when the batch is stored, or an error if it may not be: then
// nothing more can be written, and the journal has to be loaded again to know.
// Changes that several callers wait for are written in one message.
func (b *Batch) Wait() error {
	j := b.journal
	j.mu.Lock()
	if j.flushing {
		j.mu.Unlock()
		<-b.done
		return b.err
	}
	j.flushing = true
	for j.next != nil {
		batch := j.next
		j.next = nil
		j.flush(batch)
	}
	j.flushing = false
	j.mu.Unlock()
	<-b.done // it may have been written by the one before
	return b.err
}

// flush writes a batch; j.mu is held, but not while it writes.
func (j *Journal) flush(b *Batch) {
	defer close(b.done)
	if j.broken != nil {
		if b.err = j.broken; errors.Is(b.err, ErrDoubt) { // this one isn't stored, for certain
			b.err = fmt.Errorf("what comes after a change that may be lost isn't written: %v", j.broken)
		}
		return
	}
	if len(b.set) == 0 && len(b.deleted) == 0 && j.based && !b.claim {
		return // somebody only waited for those before
	}
	if b.err = j.write(b); b.err != nil {
		j.broken = b.err
	}
}
