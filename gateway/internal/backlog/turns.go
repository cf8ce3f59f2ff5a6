package backlog

import (
	"cmp"
	"slices"
)

// turns are the callers' lines of jobs, which take turns: in each round every
// line that has a job has one turn. A caller who comes has his in the round that
// is under way, ahead of those who had theirs.
type turns struct {
	lines map[string]*line // by subject: one a caller
	// now are those whose turn in this round is to come, after those of the next.
	now, after []*line
	round      uint64
	// emptied are lines that ran empty in this round: who comes again had his turn.
	emptied []*line
}

// line is a caller's jobs, in their order.
type line struct {
	subject string
	entries []*entry
	queued  bool   // is it in now, or after?
	served  uint64 // the round in which it last had a turn
}

// any reports whether there is a job.
func (t *turns) any() bool { return len(t.now)+len(t.after) > 0 }

// add adds a job to its caller's line where it belongs, usually last.
func (t *turns) add(e *entry) {
	l := t.lines[e.subject]
	if l == nil {
		if t.lines == nil {
			t.lines, t.round = map[string]*line{}, 1
		}
		l = &line{subject: e.subject}
		t.lines[e.subject] = l
	}
	at, _ := slices.BinarySearchFunc(l.entries, e, func(a, b *entry) int { return cmp.Compare(a.sequence, b.sequence) })
	l.entries = slices.Insert(l.entries, at, e)
	t.queue(l)
}

func (t *turns) queue(l *line) {
	switch {
	case l.queued:
		return
	case l.served == t.round:
		t.after = append(t.after, l)
	default:
		t.now = append(t.now, l)
	}
	l.queued = true
}

// next returns the job whose turn it is; nil if there is none.
func (t *turns) next() *entry {
	if len(t.now) == 0 {
		t.now, t.after = t.after, nil
		t.round++
		for _, l := range t.emptied {
			if len(l.entries) == 0 {
				delete(t.lines, l.subject)
			}
		}
		t.emptied = nil
	}
	if len(t.now) == 0 {
		return nil
	}
	return t.now[0].entries[0]
}

// pop takes out the job that next returned.
func (t *turns) pop() {
	l := t.now[0]
	t.now[0] = nil
	t.now = t.now[1:]
	l.entries[0] = nil
	l.entries = l.entries[1:]
	l.queued, l.served = false, t.round
	if len(l.entries) > 0 {
		t.queue(l)
	} else {
		t.emptied = append(t.emptied, l)
	}
}
