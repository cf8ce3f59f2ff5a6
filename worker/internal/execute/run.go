package execute

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

// Run carries out a run request: a command of /bin/sh in the session's
// directory. An error means that the platform failed or that ctx is done.
func (s *Slot) Run(ctx context.Context, body []byte, at Place) (Answer, error) {
	req, err := parseRun(body)
	if err != nil {
		return refuse(422, "%v", err), nil
	}
	lim := s.cfg.Limits
	wall, err := within(req.limits.wall, lim.RunWall, lim.MaxRunWall, "wall_s", seconds)
	if err != nil {
		return refuse(422, "%v", err), nil
	}
	cpu, err := within(req.limits.cpu, lim.RunCPU, max(lim.RunCPU, lim.MaxRunWall), "cpu_s", seconds)
	if err != nil {
		return refuse(422, "%v", err), nil
	}
	memory, err := within(req.limits.memory, lim.RunMemory, lim.MaxMemory, "memory_mb", megabytes)
	if err != nil {
		return refuse(422, "%v", err), nil
	}
	if i := indexNUL(req.command); i >= 0 {
		return refuse(422, "body.cmd: a command can't contain a NUL character (at byte %d)", i), nil
	}
	cpuSeconds := wholeSeconds(cpu)
	s.chooseSpawner()
	room, err := s.open(at)
	if err != nil {
		return Answer{}, err
	}
	defer room.Close()
	limits := sandbox.Limits{CPUSeconds: cpuSeconds, CPUTotal: cpuSeconds, MemoryBytes: memory}
	var fault string
	blocked := false
	exit, lost, err := s.run(ctx, room, pyrunner.Job{
		Message:   pyrunner.Run(req.command, room.Confine(limits)),
		Guard:     room.Guard(limits),
		OnBlocked: func(string) { blocked = true },
		Wall:      wall, Keep: lim.Output, Stop: lim.OutputStop, MaxFrame: 64 << 10,
		OnFrame: func(f pyrunner.Frame) (pyrunner.Message, pyrunner.Verdict) {
			fault = string(f.Body)
			return nil, pyrunner.Stop
		},
	})
	if err != nil {
		return Answer{}, err
	}
	if fault != "" {
		return Answer{}, errFault(fault)
	}
	a := Answer{Status: 200, Outcome: "ok", Marks: map[string]int{}}
	var marks []string
	if blocked {
		marks = append(marks, integrityBlocked)
	}
	a.mark(marks)
	stderr := string(exit.Stderr)
	outOfMemory := func() { // a process of it, whatever its shell made of that, or its runner
		a.Outcome = string(protocol.OutOfMemory)
		stderr += endLine(stderr) + fmt.Sprintf("Memory limit: the kernel ended a process: all of the command's processes together may use %s", megabytes(memory))
	}
	switch {
	case lost && room.OutOfMemory():
		outOfMemory()
	case lost:
		stderr += "\nThe command ended its own runner; nothing more is known of it."
	case exit.Ending == pyrunner.EndedWall:
		a.Outcome = "timeout"
		stderr += endLine(stderr) + fmt.Sprintf("Timeout: the command was ended after %s", seconds(wall))
	case exit.Ending == pyrunner.EndedGuard:
		status, text := breachText(exit.Breach)
		a.Outcome = string(status)
		stderr += endLine(stderr) + text
	case room.OutOfMemory():
		outOfMemory()
	case exit.Ending == pyrunner.EndedOutput:
		a.Outcome = "output_limit"
		stderr += endLine(stderr) + fmt.Sprintf("Output limit: the command was ended after it wrote more than %d bytes", lim.OutputStop)
	}
	a.Body = encodeRun(req.session, exit, stderr, lost, marks)
	return a, nil
}

func endLine(s string) string {
	if s == "" || s[len(s)-1] == '\n' {
		return ""
	}
	return "\n"
}

func indexNUL(s string) int {
	for i := range len(s) {
		if s[i] == 0 {
			return i
		}
	}
	return -1
}

// wholeSeconds rounds up to what RLIMIT_CPU can say.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// encodeRun writes the documented answer of a run request.
func encodeRun(session string, exit pyrunner.Exit, stderr string, lost bool, marks []string) []byte {
	b := make([]byte, 0, len(exit.Stdout)+len(stderr)+256)
	b = verdict.AppendText(append(b, `{"stdout":`...), string(exit.Stdout))
	b = verdict.AppendText(append(b, `,"stderr":`...), stderr)
	b = verdict.AppendText(append(b, `,"id":`...), session)
	b = append(b, `,"exit_code":`...)
	switch {
	case lost:
		b = append(b, "null"...)
	case exit.Status.Signaled():
		b = strconv.AppendInt(b, int64(-exit.Status.Signal()), 10) // as subprocess says it
	default:
		b = strconv.AppendInt(b, int64(exit.Status.ExitStatus()), 10)
	}
	b = strconv.AppendBool(append(b, `,"timed_out":`...), exit.Ending == pyrunner.EndedWall || isBreach(exit, sandbox.BreachCPU))
	b = strconv.AppendBool(append(b, `,"truncated":`...), exit.StdoutTruncated || exit.StderrTruncated)
	b = verdict.AppendMillis(append(b, `,"cpu_ms":`...), exit.CPU)
	b = verdict.AppendMillis(append(b, `,"wall_ms":`...), exit.Wall)
	b = strconv.AppendInt(append(b, `,"memory_kb":`...), int64(exit.PeakKB), 10)
	for i, m := range marks {
		if i == 0 {
			b = append(b, `,"integrity":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), m...), '"')
	}
	if len(marks) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}
