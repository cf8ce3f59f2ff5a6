package execute

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

// settle gives a result to the cases that were answered but not compared yet:
// those whose expected text is no literal, and those whose answer is none.
//
// An expected text is evaluated in a fresh process, after the answer is in:
// first with Python's own names only, so that the submission has no say in it;
// if it uses other names, with the submission's definitions, and then the
// verdict is marked as resting on the submission's word.
func (e *evaluation) settle() error {
	var exprs []int
	for _, i := range e.todo {
		if c := &e.cases[i]; c.answered && !c.expected.Known {
			exprs = append(exprs, i)
		}
	}
	if len(exprs) > 0 {
		unnamed, err := e.evaluateExpected(exprs, false)
		if err == nil && len(unnamed) > 0 {
			_, err = e.evaluateExpected(unnamed, true)
		}
		if err != nil {
			return err
		}
	}
	for _, i := range e.todo {
		if c := &e.cases[i]; c.answered {
			if err := e.compare(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluateExpected evaluates the expected texts of cases, in one process unless
// one of them ends it. It returns those that need the submission's names.
func (e *evaluation) evaluateExpected(list []int, withNames bool) (unnamed []int, err error) {
	lim := e.slot.cfg.Limits
	var source *string
	importFrom := "" // a submission may have planted a module in its session
	if withNames {
		source, importFrom = &e.req.code, e.importFrom()
	}
	for len(list) > 0 {
		if e.spent() {
			return nil, errSpent
		}
		texts := make([]string, len(list))
		for k, i := range list {
			texts[k] = e.cases[i].expected.Text
		}
		limits := e.limits(len(list))
		handled, fault := 0, ""
		exit, lost, err := e.slot.run(e.ctx, e.room, pyrunner.Job{
			Message:  pyrunner.Expr(source, texts, wholeSeconds(e.cpu), lim.reported(), e.room.Confine(limits), importFrom),
			Guard:    e.room.Guard(limits),
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
				i := list[handled]
				handled++
				if !withNames && f.Kind == pyrunner.FrameError && bytes.HasPrefix(f.Body, []byte("NameError")) {
					unnamed = append(unnamed, i)
				} else {
					e.expect(&e.cases[i], f, withNames)
				}
				return nil, pyrunner.Continue
			},
		})
		if err == nil && fault != "" {
			err = errFault(fault)
		}
		if err != nil {
			return nil, err
		}
		if handled < len(list) {
			c := &e.cases[list[handled]]
			r := e.death(exit, lost)
			r.Error = "expected output: " + r.Error
			c.finish(r)
			handled++
		}
		list = list[handled:]
	}
	return unnamed, nil
}

// expect takes in the value of an expected text, and judges by it if it can.
func (e *evaluation) expect(c *caseState, f pyrunner.Frame, withNames bool) {
	if withNames {
		c.Trust = verdict.TrustSubmission
	}
	switch f.Kind {
	case pyrunner.FrameValue:
		if len(f.Body) > 0 {
			if v, _, err := pyvalue.DecodeMarshal(f.Body[1:], pyvalue.Limits{}); err == nil {
				c.expected.Value = v
				c.ShowExpected, c.Want = true, v
				if c.Opaque == "" {
					c.Judge(v)
					c.done, c.answered, c.final = true, false, withNames || c.final
				}
				return
			}
		}
		c.fail(protocol.Errored, "ValueError: the expected output's value can't be carried")
	case pyrunner.FrameOpaque:
		c.ShowExpected, c.WantOpaque = true, string(f.Body)
	default:
		c.fail(protocol.Errored, string(f.Body))
	}
}

// fail makes the result an error, keeping what was measured.
func (c *caseState) fail(status protocol.CaseStatus, text string) {
	r := verdict.Fail(status, text)
	r.CPU, r.Wall, r.PeakKB, r.Stdout, r.Stderr = c.CPU, c.Wall, c.PeakKB, c.Stdout, c.Stderr
	c.finish(r)
}

// decoys is how many wrong values stand beside the right one when only the
// submission's == can tell whether an answer is right.
const decoys = 15

// compare asks the submission's own == whether the answer, which is no literal,
// equals what is expected. The process computes the answer and says so before
// it is sent anything to compare it with. A literal expected value comes in a
// line-up with decoys of its shape, and must be the only one called equal: an
// object that equals everything fails.
func (e *evaluation) compare(c *caseState) error {
	if e.spent() {
		return errSpent
	}
	lim := e.slot.cfg.Limits
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	var text *string
	var lineUp []pyvalue.Value
	right := 0
	if c.expected.Known || c.ShowExpected && c.WantOpaque == "" {
		lineUp = pyvalue.Decoys(c.expected.Value, decoys, rng)
		right = rng.IntN(len(lineUp) + 1)
		lineUp = append(lineUp, pyvalue.None())
		copy(lineUp[right+1:], lineUp[right:])
		lineUp[right] = c.expected.Value
	} else {
		text = &c.expected.Text
		lineUp = pyvalue.Decoys(pyvalue.Int(rng.Int64()), 3, rng)
		right = len(lineUp)
	}
	values := make([][]byte, len(lineUp))
	for k, v := range lineUp {
		values[k] = pyvalue.AppendMarshal(nil, v)
	}
	var truths []byte
	var shown string
	ready := false
	var ended *pyrunner.Frame
	limits := e.limits(1)
	fault := ""
	exit, lost, err := e.slot.run(e.ctx, e.room, pyrunner.Job{
		Prompt:   true,
		Message:  pyrunner.Compare(e.req.code, e.req.entryPoint, c.call, wholeSeconds(e.cpu), lim.reported(), e.room.Confine(limits), e.importFrom()),
		Guard:    e.room.Guard(limits),
		Wall:     e.wall,
		Keep:     lim.CaseOutput,
		Stop:     lim.OutputStop,
		MaxFrame: lim.Result + 2*lim.CaseOutput + (1 << 20),
		OnFrame: func(f pyrunner.Frame) (pyrunner.Message, pyrunner.Verdict) {
			switch {
			case f.Kind == pyrunner.FrameFault:
				fault = string(f.Body)
				return nil, pyrunner.Stop
			case truths != nil || ended != nil || ready && f.Kind == pyrunner.FrameReady:
				return nil, pyrunner.Protocol
			case f.Kind == pyrunner.FrameReady:
				ready = true
				return pyrunner.Candidates(text, values), pyrunner.Continue
			case f.Kind == pyrunner.FrameTruths && len(f.Body) >= 4:
				n := int(binary.LittleEndian.Uint32(f.Body))
				want := len(values)
				if text != nil {
					want++
				}
				if n != want || len(f.Body) < 4+n {
					return nil, pyrunner.Protocol
				}
				truths, shown = clone(f.Body[4:4+n]), string(f.Body[4+n:])
			default:
				f.Body = clone(f.Body)
				ended = &f
			}
			return nil, pyrunner.Continue
		},
	})
	if err == nil && fault != "" {
		err = errFault(fault)
	}
	if err != nil {
		return err
	}
	c.done, c.final, c.answered = true, true, false
	c.Trust = verdict.TrustSubmission
	if c.expected.Known {
		c.ShowExpected, c.Want = true, c.expected.Value
	}
	switch {
	case truths != nil:
		if exit.Ending == pyrunner.EndedProtocol {
			c.Integrity = append(c.Integrity, integrityChannel)
		}
		if text != nil {
			c.ShowExpected, c.WantOpaque = true, shown
		}
		c.judgeLineUp(truths, right, shown)
	case ended != nil && ended.Kind != pyrunner.FrameReady:
		status := protocol.Errored
		if ended.Kind == pyrunner.FrameMemory {
			status = protocol.OutOfMemory
		}
		got, opaque := c.Got, c.Opaque
		c.fail(status, "comparing with the expected output: "+firstLine(string(ended.Body)))
		c.HasGot, c.Got, c.Opaque = true, got, opaque
	default:
		r := e.death(exit, lost)
		r.Error = "comparing with the expected output: " + r.Error
		c.finish(r)
	}
	return nil
}

// judgeLineUp decides by what the submission's == said of each candidate: 0 no,
// 1 yes, 2 that it can't compare, as raised says.
func (c *caseState) judgeLineUp(truths []byte, right int, raised string) {
	others := 0
	for k, truth := range truths {
		if truth == 1 && k != right {
			others++
		}
	}
	switch {
	case truths[right] == 2:
		c.Status, c.Error = protocol.Errored, "comparing with the expected output: "+firstLine(raised)
	case truths[right] != 1:
		c.Status = protocol.Failed
	case others == 0:
		c.Status = protocol.Passed
	default:
		c.Status = protocol.Failed
		c.Error = "the answer calls itself equal to values that it was not expected to equal"
		c.Integrity = append(c.Integrity, integrityEquals)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// confirm runs cases alone whose result may be owed to the cases before them.
func (e *evaluation) confirm() error {
	var wrong []int
	for _, i := range e.todo {
		c := &e.cases[i]
		switch {
		case c.suspect && c.done && c.Passed():
			if err := e.again(i); err != nil {
				return err
			}
		case !c.done || c.final || c.Passed():
		case c.hard:
			if err := e.again(i); err != nil {
				return err
			}
		default:
			wrong = append(wrong, i)
		}
	}
	for k, i := range wrong {
		before := e.cases[i].Status
		if err := e.again(i); err != nil {
			return err
		}
		if k == 0 && e.cases[i].Status == before {
			return nil // what holds for the first is taken to hold for the rest
		}
	}
	return nil
}

// again runs a case alone and settles it.
func (e *evaluation) again(i int) error {
	c := &e.cases[i]
	c.Trust = ""
	if err := e.runAlone(i); err != nil {
		return err
	}
	if !c.answered {
		return nil
	}
	unnamed, err := e.evaluateExpected(only(i, !c.expected.Known), false)
	if err == nil {
		_, err = e.evaluateExpected(unnamed, true)
	}
	if err == nil && c.answered {
		err = e.compare(c)
	}
	c.final = true
	return err
}

func only(i int, yes bool) []int {
	if yes {
		return []int{i}
	}
	return nil
}
