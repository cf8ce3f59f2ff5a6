package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// story builds a history whose operations last a second each and follow one
// another, unless an operation says when it was.
func story(ops ...Op) *History {
	h := New()
	for i := range ops {
		o := ops[i]
		o.ID = i
		if o.Call == 0 {
			o.Call = time.Duration(i+1) * 2 * time.Second
		}
		if o.Return == 0 && o.Outcome != "" {
			o.Return = o.Call + time.Second
		}
		if o.Session == "" && o.Kind != Evaluate && o.Kind != Batch {
			o.Session = "s"
		}
		h.ops = append(h.ops, &o)
	}
	return h
}

func write(value string, outcome Outcome) Op {
	return Op{Kind: Write, Path: "a", Value: value, Outcome: outcome}
}

func read(value string) Op {
	if value == "" {
		return Op{Kind: Read, Path: "a", Outcome: Missing}
	}
	return Op{Kind: Read, Path: "a", Value: value, Outcome: OK}
}

func remove(outcome Outcome) Op { return Op{Kind: Delete, Path: "a", Outcome: outcome} }

func run(token string, outcome Outcome) Op {
	return Op{Kind: Run, Token: token, Outcome: outcome}
}

func at(o Op, call, end float64) Op {
	o.Call, o.Return = time.Duration(call*float64(time.Second)), time.Duration(end*float64(time.Second))
	return o
}

func owned(epoch uint64, worker string) Ownership {
	return Ownership{Session: "s", Epoch: epoch, Worker: worker}
}

func recorded(epoch uint64, worker string, revision uint64) Ownership {
	return Ownership{Session: "s", Epoch: epoch, Worker: worker, Recorded: true, Revision: revision}
}

// Each broken promise goes red, and its sound neighbour doesn't.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		ops    []Op
		lost   []time.Duration
		log    []string
		owners []Ownership
		want   Class // "" for none
	}{
		{name: "sound", ops: []Op{write("1", OK), read("1"), remove(OK), read("")}},
		{name: "lost write", ops: []Op{write("1", OK), write("2", OK), read("1")}, want: Lost},
		{name: "lost file", ops: []Op{write("1", OK), read("")}, want: Lost},
		{name: "lost session", ops: []Op{write("1", OK), {Kind: Run, Outcome: Missing}}, want: Lost},
		{name: "lost session, says a fork", ops: []Op{write("1", OK), {Kind: Fork, Outcome: Missing}}, want: Lost},
		{name: "lost delete", ops: []Op{write("1", OK), remove(OK), read("1")}, want: Lost},
		{name: "delete of a lost file", ops: []Op{write("1", OK), remove(Missing)}, want: Lost},
		{name: "never written", ops: []Op{write("1", OK), read("2")}, want: Lost},
		{name: "refused and done", ops: []Op{write("1", OK), write("2", Refused), read("2")}, want: Lost},
		{name: "refused and not done", ops: []Op{write("1", OK), write("2", Refused), read("1")}},
		{name: "unknown and done", ops: []Op{write("1", OK), write("2", Unknown), read("2"), read("2")}},
		{name: "unknown and done later", ops: []Op{write("1", OK), write("2", Unknown), read("1"), read("2")}},
		{name: "unknown and not done", ops: []Op{write("1", OK), write("2", Unknown), read("1")}},
		{name: "unknown and undone", ops: []Op{write("1", OK), write("2", Unknown), read("2"), read("1")}, want: Lost},
		{name: "resurrected write", ops: []Op{write("1", OK), write("2", Unknown), write("3", OK), read("2")}, want: Lost},
		{name: "resurrected write, seen late", ops: []Op{write("1", OK), write("2", Unknown), write("3", OK), read("3"), read("2")}, want: Lost},
		{name: "resurrected delete", ops: []Op{write("1", OK), remove(Unknown), write("3", OK), read("")}, want: Lost},
		{name: "a command that waits may come late", ops: []Op{write("1", OK),
			{Kind: Run, Path: "a", Value: "2", Outcome: Unknown, Late: true}, write("3", OK), read("2")}},
		{name: "concurrent writes, either wins", ops: []Op{at(write("1", OK), 1, 4), at(write("2", OK), 2, 3), at(read("1"), 5, 6)}},
		{name: "concurrent writes, one wins", ops: []Op{at(write("1", OK), 1, 4), at(write("2", OK), 2, 3), at(read("1"), 5, 6), at(read("2"), 7, 8)}, want: Lost},
		{name: "rename", ops: []Op{write("1", OK), {Kind: Rename, Path: "a", To: "b", Outcome: OK}, read(""), {Kind: Read, Path: "b", Value: "1", Outcome: OK}}},
		{name: "rename that left the old", ops: []Op{write("1", OK), {Kind: Rename, Path: "a", To: "b", Outcome: OK}, read("1")}, want: Lost},
		{name: "stale import", ops: []Op{{Kind: Write, Path: "mod.py", Value: "1", Outcome: OK}, {Kind: Write, Path: "mod.py", Value: "2", Outcome: OK},
			{Kind: Import, Path: "mod.py", Value: "1", Outcome: OK}}, want: Lost},
		{name: "fork", ops: []Op{write("1", OK), {Kind: Fork, Outcome: OK, Copy: "t", Snapshot: map[string]string{"a": "1"}}, write("2", OK),
			{Kind: Read, Session: "t", Path: "a", Value: "1", Outcome: OK}}},
		{name: "fork of what was not there yet", ops: []Op{write("1", OK), {Kind: Fork, Outcome: OK, Copy: "t", Snapshot: map[string]string{"a": "2"}}, write("2", OK)}, want: Lost},
		{name: "copy that changed", ops: []Op{write("1", OK), {Kind: Fork, Outcome: OK, Copy: "t", Snapshot: map[string]string{"a": "1"}},
			{Kind: Read, Session: "t", Path: "a", Outcome: Missing}}, want: Lost},

		{name: "tokens", ops: []Op{write("1", OK), run("x", OK), run("y", Unknown), run("z", Unknown), run("w", Refused)}, log: []string{"x", "z"}},
		{name: "doubled token", ops: []Op{write("1", OK), run("x", OK)}, log: []string{"x", "x"}, want: Doubled},
		{name: "doubled token of unknown fate", ops: []Op{write("1", OK), run("x", Unknown)}, log: []string{"x", "x"}, want: Doubled},
		{name: "lost token", ops: []Op{write("1", OK), run("x", OK)}, want: Lost},
		{name: "refused command that ran", ops: []Op{write("1", OK), run("x", Refused)}, log: []string{"x"}, want: Wrong},
		{name: "line from nowhere", ops: []Op{write("1", OK)}, log: []string{"x"}, want: Wrong},

		{name: "verdict", ops: []Op{{Kind: Evaluate, Want: "passed", Got: "passed", Outcome: OK}}},
		{name: "wrong verdict", ops: []Op{{Kind: Evaluate, Want: "passed failed", Got: "passed passed", Outcome: OK}}, want: Wrong},
		{name: "missing answer", ops: []Op{{Kind: Evaluate, Want: "passed"}}, want: Missed},
		{name: "no answer in time", ops: []Op{{Kind: Evaluate, Want: "passed", Outcome: Unanswered}}, want: Missed},
		{name: "fault", ops: []Op{{Kind: Evaluate, Want: "passed", Outcome: Fault, Status: 500}}, want: Wrong},
		{name: "given up for a reason", ops: []Op{at(Op{Kind: Evaluate, Want: "passed", Outcome: GivenUp, Status: 500}, 10, 22)},
			lost: []time.Duration{5 * time.Second, 11 * time.Second, 15 * time.Second, 19 * time.Second}},
		{name: "given up without one", ops: []Op{at(Op{Kind: Evaluate, Want: "passed", Outcome: GivenUp, Status: 500}, 10, 22)},
			lost: []time.Duration{5 * time.Second, 11 * time.Second, 15 * time.Second, 23 * time.Second}, want: Wrong},
		{name: "batch with a result missing", ops: []Op{{Kind: Batch, Want: "0:passed 1:failed", Got: "0:passed", Outcome: OK}}, want: Wrong},
		{name: "batch with a result twice", ops: []Op{{Kind: Batch, Want: "passed", Got: "passed", Outcome: OK, Answers: 2}}, want: Doubled},
		{name: "one key, one answer", ops: []Op{write("1", OK), {Kind: Run, Key: "k", Token: "x", Got: "x", Outcome: OK}, {Kind: Run, Key: "k", Token: "x", Got: "x", Outcome: OK}}, log: []string{"x"}},
		{name: "one key, the first answer again", ops: []Op{{Kind: Run, Key: "k", Outcome: Missing}, write("1", OK), {Kind: Run, Key: "k", Outcome: Missing}}},
		{name: "one key, an answer that never was true", ops: []Op{write("1", OK), {Kind: Run, Key: "k", Outcome: Missing}, {Kind: Run, Key: "k", Outcome: Missing}}, want: Lost},
		{name: "one key, two answers", ops: []Op{write("1", OK), {Kind: Run, Key: "k", Got: "1", Outcome: OK}, {Kind: Run, Key: "k", Got: "2", Outcome: OK}}, want: Doubled},

		{name: "owners in turn", owners: []Ownership{owned(1, "w1"), owned(2, "w2"), owned(1, "w1"), recorded(2, "w2", 9), recorded(1, "w1", 3)}},
		{name: "two owners of one epoch", owners: []Ownership{owned(1, "w1"), owned(1, "w2")}, want: TwoOwners},
		{name: "an answer by who was not recorded", owners: []Ownership{recorded(1, "w1", 3), owned(1, "w2")}, want: TwoOwners},
		{name: "change of owner without a new epoch", owners: []Ownership{recorded(2, "w1", 3), recorded(1, "w2", 4)}, want: TwoOwners},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := story(c.ops...)
			h.owners, h.lost = c.owners, c.lost
			h.logs["s"] = c.log
			r := h.Check()
			var got []string
			for _, v := range r.Violations {
				got = append(got, fmt.Sprintf("%s: %s", v.Class, v.Text))
			}
			if c.want == "" && len(got) > 0 || c.want != "" && r.Count(c.want) == 0 {
				t.Errorf("violations %q, want %q", got, c.want)
			}
		})
	}
}

// A violation names what happened, with the history that shows it.
func TestViolationSaysWhat(t *testing.T) {
	h := story(write("1", OK), write("2", OK), Op{Kind: Read, Path: "b", Outcome: Missing}, read("1"))
	r := h.Check()
	if len(r.Violations) != 1 {
		t.Fatalf("violations %+v", r.Violations)
	}
	v := r.Violations[0]
	if !strings.Contains(v.Text, "value=1") || len(v.Ops) != 3 || v.Session != "s" {
		t.Errorf("session %s: %s, with %d operations; want the read of 1, with the 3 of its file", v.Session, v.Text, len(v.Ops))
	}
}

// A long history with many clients and unknown outcomes is decided in a second or
// so. If it had to be searched it would take longer than any test may.
func TestLongHistory(t *testing.T) {
	h := New()
	now := 0.0
	for i := range 3000 {
		now += 0.01
		o := write(fmt.Sprint(i), OK)
		if i%7 == 3 {
			o.Outcome = Unknown
		}
		o = at(o, now, now+0.015)
		o.Session, o.Path, o.Client = "s", Paths[i%2], i%5
		h.ops = append(h.ops, &o)
	}
	if r := h.Check(); len(r.Violations) > 0 {
		t.Errorf("violation: %s", r.Violations[0].Text)
	}
}
