// Package history records what clients of a fleet asked and were told while its
// parts were killed, and proves afterwards that the answers can be explained: no
// acknowledged write lost or resurrected, no command run twice, no wrong
// verdict, no request without its answer, no session with two owners.
//
// It talks to nobody: package chaos fills it.
package history

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Kind is what an operation asks for.
type Kind string

// The kinds of operations.
const (
	Evaluate Kind = "evaluate" // without a session
	Import   Kind = "import"   // an evaluate whose verdict depends on a file of its session
	Batch    Kind = "batch"    // many submissions in one request
	Async    Kind = "async"    // an evaluate whose answer is fetched later
	Run      Kind = "run"
	Read     Kind = "read"
	Write    Kind = "write"
	Delete   Kind = "delete"
	Rename   Kind = "rename"
	Fork     Kind = "fork"
)

// Outcome is how an operation ended for its client.
type Outcome string

// The outcomes.
const (
	// OK: done, and the answer says so.
	OK Outcome = "ok"
	// Missing: the file, or the session, is not there.
	Missing Outcome = "missing"
	// Refused: it was not done, says the answer, or it was never sent.
	Refused Outcome = "refused"
	// Unknown: it may have been done. The connection was lost after it was sent,
	// or the answer says so.
	Unknown Outcome = "unknown"
	// Unanswered: no answer came within the client's deadline on a connection
	// that was there all the time.
	Unanswered Outcome = "unanswered"
	// GivenUp: workers began it as often as a job may be tried, and were lost each
	// time. True only if so many were.
	GivenUp Outcome = "given up"
	// Fault: an answer that must never come.
	Fault Outcome = "fault"
)

// Op is one operation of a client. A request that is sent again after it was
// refused is an operation of its own.
type Op struct {
	ID      int
	Client  int
	Kind    Kind
	Session string
	Gateway int
	// Call and Return are since the run's beginning; Return is 0 until the end.
	Call, Return time.Duration
	Outcome      Outcome
	// Status and Detail are the answer's, or the error's of the connection.
	Status int
	Detail string

	// Path is the file read, written, deleted, renamed or imported; To is the
	// new name.
	Path, To string
	// Value is what was written, or what was found; "" where nothing was.
	Value string
	// Token is the line that a command appends to the session's log.
	Token string
	// Key is the idempotency key that was sent; all operations with a key are
	// the same request.
	Key string
	// Copy is the session that a fork made, Snapshot what it was found to hold
	// at the end, by path.
	Copy     string
	Snapshot map[string]string
	// Want and Got are the verdicts of an evaluate, those of a batch joined.
	Want, Got string
	// Answers is how many came, where more than one can.
	Answers int
	// Late says that it may take effect at any later time, since it waits in a
	// queue where nobody can call it back.
	Late bool
}

// String is one line of a printed history.
func (o *Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%9.3fs %9.3fs  client %-2d gateway %d  %s %s", o.Call.Seconds(), o.Return.Seconds(), o.Client, o.Gateway, o.Kind, o.Session)
	for _, f := range []struct{ name, value string }{
		{"path", o.Path}, {"to", o.To}, {"value", o.Value}, {"token", o.Token}, {"key", o.Key}, {"copy", o.Copy}, {"want", o.Want}, {"got", o.Got},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%.80s", f.name, f.value)
		}
	}
	fmt.Fprintf(&b, " -> %s", o.outcome())
	if o.Status != 0 {
		fmt.Fprintf(&b, " %d", o.Status)
	}
	if o.Detail != "" {
		fmt.Fprintf(&b, " %.200s", o.Detail)
	}
	return b.String()
}

// outcome of an operation that has none yet: it had no answer.
func (o *Op) outcome() Outcome {
	if o.Outcome == "" {
		return Unanswered
	}
	return o.Outcome
}

// Ownership is one sign that a worker owned a session: it answered for it with
// success, or the bucket says so.
type Ownership struct {
	At      time.Duration
	Session string
	Epoch   uint64
	Worker  string
	// Recorded says that it is from the bucket; Revision orders such records.
	Recorded bool
	Revision uint64
}

// History is what happened. Its methods may be called from any goroutine.
type History struct {
	begun time.Time

	mu     sync.Mutex
	ops    []*Op
	owners []Ownership
	logs   map[string][]string
	lost   []time.Duration // see WorkerLost
}

// New returns an empty history whose clock starts now.
func New() *History { return &History{begun: time.Now(), logs: map[string][]string{}} }

// Now is the time since the beginning.
func (h *History) Now() time.Duration { return time.Since(h.begun) }

// Begin records that an operation is about to be sent. The caller keeps o to
// itself and gives its end to End.
func (h *History) Begin(o Op) *Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.ID = len(h.ops)
	o.Call = h.Now()
	h.ops = append(h.ops, &o)
	return &o
}

// End records how an operation ended; set may fill in what was found.
func (h *History) End(o *Op, outcome Outcome, set func(*Op)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.Return = h.Now()
	o.Outcome = outcome
	if set != nil {
		set(o)
	}
}

// Owned records a sign of ownership.
func (h *History) Owned(o Ownership) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.At = h.Now()
	h.owners = append(h.owners, o)
}

// WorkerLost records that something is about to be done to a worker of which it may
// lose what it has under way.
func (h *History) WorkerLost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = append(h.lost, h.Now())
}

// Log records what a session's log of tokens holds at the end.
func (h *History) Log(session string, lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs[session] = lines
}

// Copied records what the copy that a fork made holds at the end, by path.
func (h *History) Copied(session string, held map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.Copy == session {
			o.Snapshot = held
		}
	}
}

// Len is how many operations there are.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Counts returns how many operations of each kind had each outcome.
func (h *History) Counts() map[Kind]map[Outcome]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[Kind]map[Outcome]int{}
	for _, o := range h.ops {
		if counts[o.Kind] == nil {
			counts[o.Kind] = map[Outcome]int{}
		}
		counts[o.Kind][o.outcome()]++
	}
	return counts
}

// Reason is what an operation was told that was not done or may not have been.
type Reason struct {
	Kind    Kind
	Outcome Outcome
	Status  int
	// Text is the beginning of the detail, without digits.
	Text string
}

// reasonBytes is how much of a detail tells reasons apart.
const reasonBytes = 100

// Reasons counts what was told instead of an answer.
func (h *History) Reasons() map[Reason]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[Reason]int{}
	for _, o := range h.ops {
		if out := o.outcome(); out != OK && out != Missing && (out != Refused || o.Status != 0) {
			text := strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return '#'
				}
				return r
			}, o.Detail)
			counts[Reason{o.Kind, out, o.Status, text[:min(len(text), reasonBytes)]}]++
		}
	}
	return counts
}
