package execute

import (
	"bytes"
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
	verdict.Result
	call     pyrunner.Case
	expected verdict.Expected
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

// runAll runs every case once, on other slots too if that is quicker.
func (e *evaluation) runAll(lend Lender) error {
	if lend == nil || e.req.stopOnFailure || len(e.todo) < 2 {
		_, err := e.runList()
		return err
	}
	all := e.todo
	e.spread = startSpread(e, lend)
	_, err := e.runList()
	back := e.spread.finish()
	e.spread = nil
	if err == nil && len(back) > 0 {
		e.todo = back
		_, err = e.runList()
		e.todo = all
	}
	return err
}

// runList runs the cases to do in as few processes as it takes, and returns how
// many are dealt with.
func (e *evaluation) runList() (next int, err error) {
	for next < e.bound() {
		if e.req.eachAlone {
			if err := e.runAlone(e.todo[next]); err != nil {
				return next, err
			}
			if next++; e.req.stopOnFailure && e.failed(e.todo[next-1]) || e.reached(next) {
				break
			}
			continue
		}
		n, err := e.runFrom(next)
		if err != nil {
			return next, err
		}
		next += n
		if e.reached(next) || next == len(e.todo) {
			break
		}
		if e.req.stopOnFailure && n > 0 && e.failed(e.todo[next-1]) {
			// Only a confirmed failure stops the rest.
			i := e.todo[next-1]
			if !e.cases[i].final {
				if err := e.runAlone(i); err != nil {
					return next, err
				}
			}
			if e.failed(i) {
				break
			}
		}
	}
	return next, nil
}

// bound is where in todo this slot is to stop.
func (e *evaluation) bound() int {
	if e.spread == nil {
		return len(e.todo)
	}
	return e.spread.bound()
}

// reached notes that this slot is at a case of todo, and tells whether it is to
// stop there.
func (e *evaluation) reached(next int) bool { return e.spread != nil && e.spread.reached(next) }

// failed reports whether a case has a result that is not a pass.
func (e *evaluation) failed(i int) bool { return e.cases[i].done && !e.cases[i].Passed() }

// runFrom runs the cases from todo[first] on in one process and returns how
// many of them are dealt with. A case that ended its process is confirmed alone
// at once.
func (e *evaluation) runFrom(first int) (int, error) {
	list := e.todo[first:e.bound()]
	handled, exit, lost, err := e.process(list, first, true)
	if err != nil {
		return handled, err
	}
	if lost && e.secondChance() {
		return handled, nil
	}
	e.account(list[:handled], exit)
	if handled > 0 {
		e.cases[list[0]].final = e.cases[list[0]].done && !e.cases[list[0]].suspect
	}
	if handled == 1 && len(list) == 1 {
		c := &e.cases[list[0]]
		e.overCPU(c)
		e.addOutput(c, exit) // what its own processes printed
	}
	if handled == len(list) || exit.Ending == pyrunner.EndedStopped {
		if e.spent() {
			return handled, errSpent
		}
		return handled, nil
	}
	// The process ended in the middle of a case.
	i := list[handled]
	if handled == 0 {
		e.cases[i].finish(e.death(exit, lost))
		e.addOutput(&e.cases[i], exit)
		return 1, nil
	}
	return handled + 1, e.runAlone(i)
}

// secondChance reports, once an evaluation, that a lost fork server may be
// owed to something else than the submission.
func (e *evaluation) secondChance() bool {
	first := !e.retried
	e.retried = true
	return first
}

// addOutput gives a case what was written to its process' own descriptors.
func (e *evaluation) addOutput(c *caseState, exit pyrunner.Exit) {
	c.Stdout, c.StdoutTruncated = e.keep(append(c.Stdout, exit.Stdout...), c.StdoutTruncated || exit.StdoutTruncated)
	c.Stderr, c.StderrTruncated = e.keep(append(c.Stderr, exit.Stderr...), c.StderrTruncated || exit.StderrTruncated)
}

// runAlone runs one case in a process of its own; its result is final, but for
// an expectation that is yet to be evaluated.
func (e *evaluation) runAlone(i int) error {
	c := &e.cases[i]
	handled, exit, lost, err := e.process([]int{i}, -1, false)
	if err == nil && lost && e.secondChance() {
		handled, exit, lost, err = e.process([]int{i}, -1, false)
	}
	if err != nil {
		return err
	}
	if handled == 0 {
		c.finish(e.death(exit, lost))
	}
	e.account([]int{i}, exit)
	e.overCPU(c)
	c.final, c.suspect = c.done, false
	e.addOutput(c, exit)
	return nil
}

// account holds what the cases of a process said of themselves against what the
// kernel says of the process and all it started: a submission shares the process
// with who speaks for it. What the kernel has on top is shared out by wall time;
// what it has less is taken as it is.
func (e *evaluation) account(list []int, exit pyrunner.Exit) {
	if exit.Ending == pyrunner.EndedProtocol {
		for _, i := range list {
			e.cases[i].Integrity = append(e.cases[i].Integrity, integrityChannel)
		}
	}
	if len(list) == 0 || exit.CPU == 0 {
		return
	}
	if len(list) == 1 {
		c := &e.cases[list[0]]
		c.CPU, c.PeakKB = exit.CPU, exit.PeakKB
		return
	}
	var said, wall time.Duration
	peak := 0
	for _, i := range list {
		said += e.cases[i].CPU
		wall += e.cases[i].Wall
		peak = max(peak, e.cases[i].PeakKB)
	}
	more := exit.CPU - said - processCPU
	for _, i := range list {
		c := &e.cases[i]
		switch {
		case more <= said/4:
		case wall > 0:
			c.CPU += time.Duration(float64(more) * float64(c.Wall) / float64(wall))
		default:
			c.CPU += more / time.Duration(len(list))
		}
		if peak < exit.PeakKB-exit.PeakKB/8 || peak > exit.PeakKB {
			c.PeakKB = exit.PeakKB
		}
	}
}

// processCPU is what a process uses beside its cases, with room to spare.
const processCPU = 20 * time.Millisecond

// overCPU makes a case a timeout that was alone in its process, if that used
// more CPU time than a case may, whatever it said itself.
func (e *evaluation) overCPU(c *caseState) {
	if c.CPU > e.cpu && (c.done && c.Passed() || c.answered) {
		c.fail(protocol.TimedOut, e.cpuTimeout())
	}
}

func (e *evaluation) keep(out []byte, cut bool) ([]byte, bool) {
	if most := e.slot.cfg.Limits.CaseOutput; len(out) > most {
		return out[:most], true
	}
	return out, cut
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

// process runs cases in one process and takes in what it reports. It returns
// how many of them were reported on. first is where in todo they begin, -1 for
// a case by itself.
func (e *evaluation) process(list []int, first int, captured bool) (handled int, exit pyrunner.Exit, lost bool, err error) {
	if e.spent() {
		return 0, exit, false, errSpent
	}
	lim := e.slot.cfg.Limits
	spec := pyrunner.EvaluateSpec{
		Source: e.req.code, EntryPoint: e.req.entryPoint, Cases: make([]pyrunner.Case, len(list)),
		CPUSeconds: wholeSeconds(e.cpu), Captured: captured, Limits: lim.reported(),
	}
	for k, i := range list {
		spec.Cases[k] = e.cases[i].call
	}
	limits := e.limits(len(list))
	var fault string
	last := time.Now()
	exit, lost, err = e.slot.run(e.ctx, e.room, pyrunner.Job{
		Message: pyrunner.Evaluate(spec, e.room.Confine(limits), e.importFrom()),
		Guard:   e.room.Guard(limits),
		OnBlocked: func(string) {
			if handled < len(list) {
				e.cases[list[handled]].blocked = true
			}
		},
		Wall:     e.wall,
		Keep:     lim.CaseOutput,
		Stop:     lim.OutputStop,
		MaxFrame: lim.Result + 2*lim.CaseOutput + (1 << 20),
		OnFrame: func(f pyrunner.Frame) (pyrunner.Message, pyrunner.Verdict) {
			if f.Kind == pyrunner.FrameFault {
				fault = string(f.Body)
				return nil, pyrunner.Stop
			}
			if f.Case != handled || handled == len(list) {
				return nil, pyrunner.Protocol
			}
			c := &e.cases[list[handled]]
			if !e.take(c, f) {
				return nil, pyrunner.Protocol
			}
			now := time.Now()
			// Its word on CPU time is checked by the kernel's on a process of
			// its own, if its wall time leaves room for a lie.
			c.suspect = len(list) > 1 && 2*now.Sub(last) > e.cpu
			last = now
			handled++
			if e.req.stopOnFailure && c.done && !c.Passed() || e.spent() || first >= 0 && handled < len(list) && e.reached(first+handled) {
				return nil, pyrunner.Stop
			}
			return nil, pyrunner.Continue
		},
	})
	if err == nil && fault != "" {
		err = errFault(fault)
	}
	return handled, exit, lost, err
}

// take makes a result of what a child reported on a case. It returns false for
// a report that no child of ours writes.
func (e *evaluation) take(c *caseState, f pyrunner.Frame) bool {
	c.Result = verdict.Result{
		CPU: f.CPU, Wall: f.Wall, PeakKB: f.PeakKB,
		Stdout: clone(f.Stdout), Stderr: clone(f.Stderr),
	}
	lim := e.slot.cfg.Limits.CaseOutput
	c.StdoutTruncated, c.StderrTruncated = len(f.Stdout) >= lim, len(f.Stderr) >= lim
	c.done, c.final, c.answered, c.hard = true, false, false, false
	switch f.Kind {
	case pyrunner.FrameValue:
		return e.takeValue(c, f.Body)
	case pyrunner.FrameOpaque:
		c.HasGot, c.Opaque = true, string(f.Body)
		c.done, c.answered = false, true
	case pyrunner.FrameError:
		c.Status, c.Error = protocol.Errored, string(f.Body)
	case pyrunner.FrameExit:
		c.Status, c.Error, c.hard = protocol.Errored, string(f.Body), true
		if bytes.HasPrefix(f.Body, []byte("SystemExit")) {
			c.Integrity = append(c.Integrity, integrityExit)
		}
	case pyrunner.FrameMemory:
		c.Status, c.Error, c.hard = protocol.OutOfMemory, string(f.Body), true
	case pyrunner.FrameLimit:
		c.Status, c.Error, c.hard = protocol.OutputLimit, "Output limit: "+string(f.Body), true
	default:
		return false
	}
	return true
}

// takeValue takes in a returned value: a byte of marks and marshal data.
func (e *evaluation) takeValue(c *caseState, body []byte) bool {
	if len(body) == 0 {
		return false
	}
	if body[0] != 0 {
		c.Integrity = append(c.Integrity, integritySubclass)
	}
	v, rest, err := pyvalue.DecodeMarshal(body[1:], pyvalue.Limits{})
	switch {
	case errors.Is(err, pyvalue.ErrLimit):
		c.Status, c.Error, c.hard = protocol.OutputLimit, "Output limit: result: "+err.Error(), true
		return true
	case err != nil || len(rest) != 0:
		return false
	}
	c.HasGot, c.Got = true, v
	if c.CPU > e.cpu {
		c.Result = verdict.Result{CPU: c.CPU, Wall: c.Wall, PeakKB: c.PeakKB, Stdout: c.Stdout, Stderr: c.Stderr}
		c.Status, c.Error, c.hard = protocol.TimedOut, e.cpuTimeout(), true
		return true
	}
	if c.expected.Known {
		c.Judge(c.expected.Value)
	} else {
		c.done, c.answered = false, true
	}
	return true
}

func clone(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
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
