package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Class is a kind of violation.
type Class string

// The classes of violations.
const (
	Lost       Class = "lost"       // an acknowledged effect is not there, or one came back
	Doubled    Class = "doubled"    // a command ran, or an answer came, more than once
	Wrong      Class = "wrong"      // a verdict or an answer that must not be
	Missed     Class = "unanswered" // no answer within the deadline
	TwoOwners  Class = "two owners" // two workers at once
	Unverified Class = "unverified" // the checker couldn't decide in its time
)

// Violation is one promise that was broken.
type Violation struct {
	Class   Class
	Session string // "" where none is concerned
	Text    string
	// Ops is the history to look at.
	Ops []*Op
}

// Report is what the check found.
type Report struct {
	Sessions, Tokens, Verdicts, Answers int
	// GivenUp is how many jobs were given up for a reason.
	GivenUp    int
	Violations []Violation
}

// Count is how many violations there are of a class.
func (r *Report) Count(c Class) int {
	n := 0
	for _, v := range r.Violations {
		if v.Class == c {
			n++
		}
	}
	return n
}

func (r *Report) add(c Class, session string, ops []*Op, format string, args ...any) {
	r.Violations = append(r.Violations, Violation{c, session, fmt.Sprintf(format, args...), ops})
}

// sessionLimit bounds the search for an order of one session's operations.
const sessionLimit = time.Minute

// Check holds the history against what is promised. The run is over, and every
// session was read to the end.
func (h *History) Check() *Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &Report{}
	r.answers(h.ops, h.lost)
	r.keys(h.ops)
	bySession := map[string][]*Op{}
	var sessions []string
	copies := map[string]map[string]string{}
	for _, o := range h.ops {
		if o.Session == "" {
			continue
		}
		if bySession[o.Session] == nil {
			sessions = append(sessions, o.Session)
		}
		bySession[o.Session] = append(bySession[o.Session], o)
		if o.Copy != "" && o.Snapshot != nil {
			copies[o.Copy] = o.Snapshot
		}
	}
	r.Sessions = len(sessions)
	for _, s := range sessions {
		r.files(s, bySession[s], copies[s])
		r.tokens(s, bySession[s], h.logs[s])
	}
	r.ownership(h.owners, bySession)
	return r
}

// MaxTries is after how many a job may be given up, as is promised.
const MaxTries = 3

// answers checks each operation by itself; lost is when something was done to a worker.
func (r *Report) answers(ops []*Op, lost []time.Duration) {
	for _, o := range ops {
		switch {
		case o.Outcome == "" || o.Outcome == Unanswered:
			r.add(Missed, o.Session, []*Op{o}, "no answer")
			continue
		case o.Outcome == GivenUp:
			r.GivenUp++
			n := 0
			for _, at := range lost {
				if at >= o.Call && at <= o.Return {
					n++
				}
			}
			if n < MaxTries {
				r.add(Wrong, o.Session, []*Op{o}, "given up when %d workers were in trouble, want %d", n, MaxTries)
			}
		case o.Outcome == Fault:
			r.add(Wrong, o.Session, []*Op{o}, "answer %d must not be", o.Status)
		}
		if r.Answers++; o.Answers > 1 {
			r.add(Doubled, o.Session, []*Op{o}, "%d answers", o.Answers)
		}
		if o.Outcome == OK && o.Want != "" {
			r.Verdicts++
			if o.Want != o.Got {
				r.add(Wrong, o.Session, []*Op{o}, "verdicts are %q, want %q", o.Got, o.Want)
			}
		}
	}
}

// keys checks that all who sent one idempotency key were told the same.
func (r *Report) keys(ops []*Op) {
	told := map[string][]*Op{}
	for _, o := range ops {
		if o.Key != "" && o.Outcome == OK {
			told[o.Key] = append(told[o.Key], o)
		}
	}
	for key, same := range told {
		for _, o := range same[1:] {
			if o.Got != same[0].Got || o.Value != same[0].Value || o.Copy != same[0].Copy {
				r.add(Doubled, o.Session, same, "two answers to the key %s", key)
				break
			}
		}
	}
}

// files checks that an order of the session's operations explains what was read.
func (r *Report) files(session string, ops []*Op, copied map[string]string) {
	var initial files
	if copied != nil {
		initial.exists = true
		for i, path := range Paths {
			initial.held[i] = copied[path]
		}
	}
	switch result, stuck := explainable(initial, ops, sessionLimit); {
	case result == porcupine.Unknown:
		r.add(Unverified, session, nil, "no order of its %d operations was found in %v, nor that there is none", len(ops), sessionLimit)
	case result == porcupine.Illegal:
		text := "no order of its operations explains the answers"
		if stuck != nil {
			text += "; the first that fits nowhere: " + stuck.String()
		}
		r.add(Lost, session, around(ops, stuck), "%s", text)
	}
}

// printed bounds a printed history.
const printed = 40

// around returns the operations on the same files as stuck, up to it and a few
// after.
func around(ops []*Op, stuck *Op) []*Op {
	if stuck == nil {
		return ops[max(0, len(ops)-printed):]
	}
	var near []*Op
	for _, o := range ops {
		touches := o.mutates(stuck.Path) || o.Path == stuck.Path || stuck.To != "" && o.mutates(stuck.To) || o.Kind == Fork
		if touches && o.Call <= stuck.Return {
			near = append(near, o)
		}
	}
	slices.SortFunc(near, func(a, b *Op) int { return int(a.Call - b.Call) })
	return near[max(0, len(near)-printed):]
}

// tokens checks that what commands appended is there: once if that was
// acknowledged, at most once if it may have run, not at all if it was refused.
func (r *Report) tokens(session string, ops []*Op, log []string) {
	type fate struct {
		ops       []*Op
		ran, told bool
	}
	fates := map[string]*fate{}
	for _, o := range ops {
		if o.Token == "" {
			continue
		}
		f := fates[o.Token]
		if f == nil {
			f = &fate{}
			fates[o.Token] = f
		}
		f.ops = append(f.ops, o)
		f.told = f.told || o.Outcome == OK
		f.ran = f.ran || o.Outcome != Refused && o.Outcome != Missing
	}
	count := map[string]int{}
	for _, token := range log {
		count[token]++
		if fates[token] == nil && count[token] == 1 {
			r.add(Wrong, session, nil, "its log has a line that no command appended: %.100q", token)
		}
	}
	for token, f := range fates {
		r.Tokens++
		switch n := count[token]; {
		case n > 1:
			r.add(Doubled, session, f.ops, "the command that appends %s ran %d times", token, n)
		case n == 0 && f.told:
			r.add(Lost, session, f.ops, "the command that appends %s was acknowledged and its line is not there", token)
		case n == 1 && !f.ran:
			r.add(Wrong, session, f.ops, "the command that appends %s was refused and ran", token)
		}
	}
}

// ownership checks that each epoch of a session has one worker, and that the
// bucket's records change owners by higher epochs only.
func (r *Report) ownership(signs []Ownership, ops map[string][]*Op) {
	type term struct {
		session string
		epoch   uint64
	}
	by := map[term]string{}
	for _, s := range signs {
		t := term{s.Session, s.Epoch}
		if first, ok := by[t]; ok && first != s.Worker {
			r.add(TwoOwners, s.Session, nil, "workers %s and %s both owned it in epoch %d", first, s.Worker, s.Epoch)
			continue
		}
		by[t] = s.Worker
	}
	var records []Ownership
	for _, s := range signs {
		if s.Recorded {
			records = append(records, s)
		}
	}
	slices.SortFunc(records, func(a, b Ownership) int {
		if c := strings.Compare(a.Session, b.Session); c != 0 {
			return c
		}
		return int(a.Revision) - int(b.Revision)
	})
	for i := 1; i < len(records); i++ {
		old, now := records[i-1], records[i]
		if old.Session == now.Session && old.Worker != now.Worker && now.Epoch <= old.Epoch {
			r.add(TwoOwners, now.Session, nil, "its owner changed from %s (epoch %d) to %s (epoch %d): an epoch must grow with each change",
				old.Worker, old.Epoch, now.Worker, now.Epoch)
		}
	}
}
