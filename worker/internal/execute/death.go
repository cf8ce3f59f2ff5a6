package execute

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

func (e *evaluation) cpuTimeout() string {
	return fmt.Sprintf("Timeout: the case used more than %s of CPU time", seconds(e.cpu))
}

// death says what became of a case whose process ended without reporting on it.
func (e *evaluation) death(exit pyrunner.Exit, lost bool) verdict.Result {
	r := func(status protocol.CaseStatus, format string, args ...any) verdict.Result {
		v := verdict.Fail(status, fmt.Sprintf(format, args...))
		v.CPU, v.Wall, v.PeakKB = exit.CPU, exit.Wall, exit.PeakKB
		return v
	}
	switch {
	case lost && e.room.OutOfMemory(): // the kernel chose the fork server
		return r(protocol.OutOfMemory, "%s", starved(e.memory))
	case lost:
		return r(protocol.Crashed, "Crashed: the submission ended its own runner")
	case exit.Ending == pyrunner.EndedWall:
		return r(protocol.TimedOut, "Timeout: no answer within %s", seconds(e.wall))
	case exit.Ending == pyrunner.EndedGuard:
		status, text := breachText(exit.Breach)
		return r(status, "%s", text)
	case exit.Ending == pyrunner.EndedOutput:
		return r(protocol.OutputLimit, "Output limit: printed more than %d bytes", e.slot.cfg.Limits.OutputStop)
	case exit.Ending == pyrunner.EndedProtocol:
		v := r(protocol.Crashed, "Crashed: the submission wrote to the channel that carries its results")
		v.Integrity = []string{integrityChannel}
		return v
	case exit.Status.Signaled():
		sig := exit.Status.Signal()
		// The hard limit's SIGKILL comes a second after the soft limit's SIGXCPU.
		if sig == unix.SIGXCPU || sig == unix.SIGKILL && exit.CPU >= e.cpu {
			return r(protocol.TimedOut, "%s", e.cpuTimeout())
		}
		if sig == unix.SIGKILL && e.room.OutOfMemory() {
			return r(protocol.OutOfMemory, "%s", starved(e.memory))
		}
		if sig == unix.SIGKILL && int64(exit.PeakKB)<<10 >= e.memory/10*9 {
			return r(protocol.OutOfMemory, "MemoryError: the process was killed at %d MB of memory, the limit is %s", exit.PeakKB>>10, megabytes(e.memory))
		}
		return r(protocol.Crashed, "Crashed: the process was killed by signal %d (%s)", int(sig), unix.SignalName(sig))
	}
	v := r(protocol.Crashed, "Crashed: the process exited with status %d before it answered", exit.Status.ExitStatus())
	v.Integrity = []string{integrityExit}
	return v
}

// starved is the text where the kernel has acted on a limit of memory, in bytes.
func starved(limit int64) string {
	return "MemoryError: the kernel ended a process: all its processes together may use " + megabytes(limit) + " of memory"
}

// breachText says what a job was ended for that its processes together used too much of.
func breachText(reason any) (protocol.CaseStatus, string) {
	b, _ := reason.(sandbox.Breach)
	switch b.Kind {
	case sandbox.BreachMemory:
		if b.Value == 0 {
			return protocol.OutOfMemory, starved(b.Limit)
		}
		return protocol.OutOfMemory, fmt.Sprintf("MemoryError: all its processes together used %s of memory, the limit is %s", megabytes(b.Value), megabytes(b.Limit))
	case sandbox.BreachCPU:
		return protocol.TimedOut, fmt.Sprintf("Timeout: all its processes together used %s of CPU time, the limit is %s", seconds(time.Duration(b.Value).Round(time.Millisecond)), seconds(time.Duration(b.Limit)))
	case sandbox.BreachDiskBytes:
		return protocol.OutputLimit, fmt.Sprintf("Disk limit: its files take up %d bytes, the limit is %d", b.Value, b.Limit)
	case sandbox.BreachDiskFiles:
		return protocol.OutputLimit, fmt.Sprintf("Disk limit: it has %d files and directories, the limit is %d; directories too deep or unreadable count as too many", b.Value, b.Limit)
	}
	return protocol.Crashed, fmt.Sprintf("Crashed: ended by its guard: %v", reason)
}

// isBreach says whether a job was ended for a breach of that kind.
func isBreach(exit pyrunner.Exit, kind sandbox.BreachKind) bool {
	b, ok := exit.Breach.(sandbox.Breach)
	return ok && b.Kind == kind
}

// errFault is an error for a child whose own, trusted part failed.
func errFault(text string) error { return fmt.Errorf("run job: %s", text) }
