package execute

import (
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
)

// runAll runs every case once, on other slots too if that is quicker.
func (e *evaluation) runAll(lend Lender) error {
	if lend == nil || e.req.stopOnFailure || len(e.todo) < 2 {
		_, err := e.runList()
		return err
	}
	all := e.todo
	e.spread = startSpread(e, lend, spreadAfter)
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
