package execute

import (
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
)

// addOutput gives a case what was written to its process' own descriptors.
func (e *evaluation) addOutput(c *caseState, exit pyrunner.Exit) {
	c.Stdout, c.StdoutTruncated = e.keep(append(c.Stdout, exit.Stdout...), c.StdoutTruncated || exit.StdoutTruncated)
	c.Stderr, c.StderrTruncated = e.keep(append(c.Stderr, exit.Stderr...), c.StderrTruncated || exit.StderrTruncated)
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
