package execute

import (
	"bytes"
	"errors"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

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
