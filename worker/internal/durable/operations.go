package durable

import (
	"slices"
	"strings"
	"time"
)

// maxOperations is how many operations a journal remembers of those that changed
// the session: 2.5 KB of a base, and 5 KB in memory.
//
// An operation is asked again while its caller waits (the gateways' file deadline,
// 30 s), at once when its worker is known to be lost: then it is among the first
// at the next owner, and few have come after it. Where a session changes thousands
// of times a second, or one gateway hears late of the loss, it may be forgotten by
// then. The journal knows that it can't tell (Forgot), and the caller is told that
// the change may have been made.
const maxOperations = 128

// operations are the latest that changed a session.
type operations struct {
	latest []operation // oldest first
	// forgotten is when the last of those that aren't known any more was stored,
	// or later, in nanoseconds since 1970; 0: all are known.
	forgotten int64
}

type operation struct {
	id string
	// at is when it was stored, or a little before or after: by the clock of the
	// worker that staged it, or of NATS, which has the message or base it is in.
	at int64
}

// add notes an operation, once.
func (o *operations) add(id string, at time.Time) {
	if o.has(id) {
		return // a base may have what the next message has too
	}
	if len(o.latest) == maxOperations {
		o.forget(time.Unix(0, o.latest[0].at))
		o.latest = slices.Delete(o.latest, 0, 1)
	}
	o.latest = append(o.latest, operation{strings.Clone(id), at.UnixNano()})
}

// forget notes that there may be operations of that time or before it that aren't
// known.
func (o *operations) forget(at time.Time) { o.forgotten = max(o.forgotten, at.UnixNano()) }

func (o *operations) has(id string) bool {
	return slices.ContainsFunc(o.latest, func(known operation) bool { return known.id == id })
}

// ids returns all that are known; never nil.
func (o *operations) ids() []string {
	ids := make([]string, len(o.latest))
	for i := range o.latest {
		ids[i] = o.latest[i].id
	}
	return ids
}

// Has reports whether an operation's changes are in the journal, stored or staged.
func (j *Journal) Has(operation string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return operation != "" && j.operations.has(operation)
}

// Forgot reports whether the changes of an operation that the journal doesn't have
// may have been stored all the same, if that was after since.
func (j *Journal) Forgot(since time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.operations.forgotten != 0 && j.operations.forgotten >= since.UnixNano()
}
