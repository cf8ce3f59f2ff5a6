package history

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Paths are the files of a session that the model knows; others are not checked.
var Paths = [...]string{"a", "b", "d/c", "mod.py"}

// files is the state of one session: what each of Paths holds, "" where there is
// no such file. A session that nobody wrote to doesn't exist.
type files struct {
	exists bool
	held   [len(Paths)]string
}

func place(path string) int { return slices.Index(Paths[:], path) }

// step returns the states that a session can be in after o was carried out, none
// if o can't have ended as it did.
func step(s files, o *Op) []files {
	if o.Outcome == Unknown || o.Outcome == Unanswered {
		done := s.done(o)
		if done == s {
			return []files{s}
		}
		return []files{s, done}
	}
	ok := true
	at := place(o.Path)
	switch {
	case o.Kind == Read || o.Kind == Import:
		found := o.Value
		if o.Outcome == Missing {
			found = ""
		}
		ok = s.held[at] == found
	case o.Kind == Run && o.Outcome == Missing:
		ok = !s.exists
	case o.Kind == Run && o.Path == "":
		ok = s.exists
	case o.Kind == Fork:
		ok = s.exists == (o.Outcome == OK)
	case o.Kind == Delete || o.Kind == Rename:
		ok = (s.held[at] != "") == (o.Outcome == OK)
	}
	if !ok {
		return nil
	}
	if o.Outcome == OK {
		s = s.done(o)
	}
	return []files{s}
}

// done is the state after o has had its effect.
func (s files) done(o *Op) files {
	at := place(o.Path)
	switch o.Kind {
	case Write:
		s.exists = true
		s.held[at] = o.Value
	case Run:
		if at >= 0 && s.exists {
			s.held[at] = o.Value
		}
	case Delete:
		s.held[at] = ""
	case Rename:
		if to := place(o.To); s.held[at] != "" && to != at {
			s.held[to], s.held[at] = s.held[at], ""
		}
	}
	return s
}

func model(initial files) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{initial} },
		Step: func(state, input, _ any) []any {
			var next []any
			for _, s := range step(state.(files), input.(*Op)) {
				next = append(next, s)
			}
			return next
		},
		DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
	}
	return m.ToModel()
}

// mutates reports whether o, if it was done, changed path.
func (o *Op) mutates(path string) bool {
	switch o.Kind {
	case Write, Delete, Run:
		return o.Path == path
	case Rename:
		return o.Path == path || o.To == path
	}
	return false
}

func (o *Op) mutation() bool {
	return o.Path != "" && (o.Kind == Write || o.Kind == Delete || o.Kind == Run || o.Kind == Rename)
}

// operations turns the operations of one session into porcupine's. What was
// refused has had no effect and is left out: if it had one after all, somebody
// reads what was never written. An unknown outcome may take effect after its
// client gave up, but not once a later change of the same file was acknowledged:
// that would bring back what was replaced. What answers an idempotency key is the
// answer to whoever sent it first.
func operations(ops []*Op) []porcupine.Operation {
	var acked []*Op
	first := map[string]time.Duration{} // when a key was first sent
	for _, o := range ops {
		if at, known := first[o.Key]; o.Key != "" && (!known || o.Call < at) {
			first[o.Key] = o.Call
		}
		if o.Outcome == OK && o.mutation() {
			acked = append(acked, o)
		}
	}
	var history []porcupine.Operation
	for _, o := range ops {
		end := int64(o.Return)
		switch o.Outcome {
		case OK, Missing:
		case Unknown, Unanswered:
			if !o.mutation() {
				continue
			}
			end = math.MaxInt64
			if o.Late {
				break
			}
			for _, later := range acked {
				touches := later.mutates(o.Path) || o.To != "" && later.mutates(o.To)
				if touches && later.Call > o.Return && int64(later.Call) < end {
					end = int64(later.Call) - 1
				}
			}
		default:
			continue
		}
		call := o.Call
		if at, keyed := first[o.Key]; keyed {
			call = at
		}
		for _, part := range o.parts() {
			history = append(history, porcupine.Operation{ClientId: o.Client, Input: part, Call: int64(call), Output: o.Outcome, Return: end})
		}
	}
	return history
}

// parts are what the model steps through for one operation: itself, and for a
// fork a read of every file at some time while it was made. All at one time is
// more than is promised where a command runs meanwhile.
func (o *Op) parts() []*Op {
	parts := []*Op{o}
	if o.Kind != Fork || o.Snapshot == nil {
		return parts
	}
	for _, path := range Paths {
		part := *o
		part.Kind, part.Path, part.Value = Read, path, o.Snapshot[path]
		parts = append(parts, &part)
	}
	return parts
}

// explainable reports whether there is an order of the operations of a session
// that explains all answers; if not, stuck is the one to look at.
func explainable(initial files, ops []*Op, limit time.Duration) (result porcupine.CheckResult, stuck *Op) {
	history := operations(ops)
	m := model(initial)
	result = porcupine.CheckOperationsTimeout(m, history, limit)
	if result != porcupine.Illegal {
		return result, nil
	}
	_, info := porcupine.CheckOperationsVerbose(m, history, limit)
	// That is the first which the attempt that got furthest left out.
	best := map[*Op]bool{}
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, sequence := range partition {
			if len(sequence) > len(best) {
				clear(best)
				for _, o := range sequence {
					best[o.Input.(*Op)] = true
				}
			}
		}
	}
	for _, o := range history {
		op := o.Input.(*Op)
		if !best[op] && (stuck == nil || op.Return < stuck.Return) {
			stuck = op
		}
	}
	return result, stuck
}
