package execute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

// evaluation is one evaluate request while it is carried out.
//
// All cases run in one process, in order. What is not a plain pass is confirmed
// in a process of its own, whose verdict counts: every crash, timeout, exit and
// memory error, and the first wrong answer; if that one comes out otherwise
// when alone, every wrong answer. A case that was the first of its process had
// it as good as for itself and needs no confirmation.
type evaluation struct {
	slot  *Slot
	ctx   context.Context
	req   evaluateRequest
	at    Place
	room  *sandbox.Room
	start time.Time

	wall, cpu time.Duration
	memory    int64

	cases []caseState
	// retried: a process was run again because its fork server was lost.
	retried bool
	// todo lists the cases that can be run, in order.
	todo []int
	// spread, if not nil, has other slots run some of them.
	spread *spread
}

// caseState is one case on its way to a result.
type caseState struct {
	// call and expected stay as they are: several slots may read them.
	call     pyrunner.Case
	expected verdict.Expected
	progress
}

// progress is how far a case is. It is one slot's at a time.
type progress struct {
	verdict.Result
	// done: there is a result. final: it needs no confirmation.
	done, final bool
	// answered: the submission gave a value, which has yet to be compared with
	// an expectation that only an interpreter can tell.
	answered bool
	// blocked: a call of it was refused that only a program makes which wants out.
	blocked bool
	// hard: not a mere wrong answer or exception, always to be confirmed.
	hard bool
	// suspect: it took so long that it may have used more CPU time than it
	// said; to be confirmed, even if it passed.
	suspect bool
}

// errSpent ends an evaluation that has used up its time.
var errSpent = errors.New("the request's time is used up")

// Evaluate carries out an evaluate request. Other slots that lend (which may be
// nil) has free may run some of its cases, if it takes long. An error means that
// the platform failed or that ctx is done.
func (s *Slot) Evaluate(ctx context.Context, body []byte, at Place, lend Lender) (Answer, error) {
	req, err := parseEvaluate(body)
	if err != nil {
		return refuse(422, "%v", err), nil
	}
	e := &evaluation{slot: s, ctx: ctx, req: req, at: at, start: time.Now()}
	lim := s.cfg.Limits
	if e.wall, err = within(req.limits.wall, lim.CaseWall, lim.MaxCaseWall, "wall_s", seconds); err != nil {
		return refuse(422, "%v", err), nil
	}
	if e.cpu, err = within(req.limits.cpu, lim.CaseCPU, lim.MaxCaseCPU, "cpu_s", seconds); err != nil {
		return refuse(422, "%v", err), nil
	}
	if e.memory, err = within(req.limits.memory, lim.CaseMemory, lim.MaxMemory, "memory_mb", megabytes); err != nil {
		return refuse(422, "%v", err), nil
	}
	s.choose(req.code)
	if e.room, err = s.open(at); err != nil {
		return Answer{}, err
	}
	defer e.room.Close()
	e.prepare()
	err = e.runAll(lend)
	if err == nil {
		err = e.settle()
	}
	if err == nil {
		err = e.confirm()
	}
	if errors.Is(err, errSpent) {
		e.skipRest()
	} else if err != nil {
		return Answer{}, err
	}
	return e.answer(), nil
}

// prepare reads the cases' texts.
func (e *evaluation) prepare() {
	e.cases = make([]caseState, len(e.req.cases))
	e.todo = make([]int, 0, len(e.req.cases))
	for i, raw := range e.req.cases {
		c := &e.cases[i]
		c.expected.Raw = raw.output
		call, err := parseInput(raw.input)
		if err == nil {
			c.call = call
			c.expected, err = verdict.ParseExpected(raw.output)
		}
		if err != nil {
			c.finish(verdict.Fail(protocol.Errored, err.Error()))
			continue
		}
		e.todo = append(e.todo, i)
	}
}

// parseInput makes the arguments of a call out of a case's "input".
func parseInput(raw []byte) (pyrunner.Case, error) {
	if len(raw) == 0 {
		return pyrunner.Case{}, errors.New(`KeyError: 'input': the case has no "input"`)
	}
	if raw[0] != '"' {
		return pyrunner.Case{}, fmt.Errorf("TypeError: input: want a string such as \"a=1, b=2\", got %.40s", raw)
	}
	s, err := pyvalue.UnquoteJSON(raw)
	if err != nil {
		return pyrunner.Case{}, fmt.Errorf("ValueError: input: %w", err)
	}
	args, ok := pyvalue.ParseArgs(s)
	switch {
	case !ok:
		return pyrunner.Case{Kind: pyrunner.Text, Args: pymarshal.AppendString(nil, s)}, nil
	case len(args.Keywords) > 0:
		return pyrunner.Case{Kind: pyrunner.Keywords, Args: args.AppendMarshal(nil)}, nil
	}
	return pyrunner.Case{Kind: pyrunner.Positional, Args: args.AppendMarshal(nil)}, nil
}

// finish gives a case its final result.
func (c *caseState) finish(r verdict.Result) {
	c.Result = r
	c.done, c.final, c.answered = true, true, false
}

// spent reports whether the request has used up its time.
func (e *evaluation) spent() bool { return time.Since(e.start) >= e.slot.cfg.Limits.Budget }

// limits are those of a process that runs n cases.
func (e *evaluation) limits(n int) sandbox.Limits {
	cpu := wholeSeconds(e.cpu)
	return sandbox.Limits{CPUSeconds: cpu, CPUTotal: n * cpu, MemoryBytes: e.memory}
}

// importFrom is the directory that the code may import modules from, if any.
func (e *evaluation) importFrom() string {
	if e.at.Importable {
		return e.room.Work()
	}
	return ""
}

// skipRest skips what has no result when the time is used up.
func (e *evaluation) skipRest() {
	for i := range e.cases {
		if c := &e.cases[i]; !c.done {
			c.finish(verdict.Fail(protocol.Skipped, fmt.Sprintf(
				"Skipped: the request had used up its time of %s; send fewer cases in one request", seconds(e.slot.cfg.Limits.Budget))))
		}
	}
}

// answer encodes the results.
func (e *evaluation) answer() Answer {
	lim := e.slot.cfg.Limits
	a := Answer{Status: 200, Outcome: "ok", Statuses: map[protocol.CaseStatus]int{}, Marks: map[string]int{}}
	cases := make([]verdict.Case, len(e.cases))
	stopped := false
	for i := range e.cases {
		c := &e.cases[i]
		if stopped || !c.done {
			c.finish(verdict.Fail(protocol.Skipped, "Skipped: a case before it failed"))
		}
		if c.blocked {
			c.Integrity = append(c.Integrity, integrityBlocked)
		}
		a.mark(c.Integrity)
		stopped = stopped || e.req.stopOnFailure && !c.Passed()
		a.Statuses[c.Status]++
		cases[i] = verdict.Case{Result: &c.Result, Input: e.req.cases[i].input, Output: e.req.cases[i].output}
	}
	a.Body = verdict.Encode(cases, verdict.Limits{Value: lim.Value, Answer: lim.Answer})
	return a
}
