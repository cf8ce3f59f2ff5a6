// Package execute carries out one job on one slot: it reads the request, has
// its cases or its command run by the slot's fork server inside the sandbox,
// has the verdict made, and writes the answer. It knows neither NATS nor which
// worker owns a session: it is told a place to run in.
package execute

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/interpreter"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// Config of an Engine. Limits without a unit in their name are bytes.
type Config struct {
	Python *interpreter.Interpreter
	Policy *sandbox.Policy
	Limits Limits
	// KillTimeout is pyrunner's; 0 means its default.
	KillTimeout time.Duration
	Log         *slog.Logger
}

// Limits of jobs: what a case or command gets when it doesn't say, and the
// most it may ask for.
type Limits struct {
	CaseWall, MaxCaseWall time.Duration
	CaseCPU, MaxCaseCPU   time.Duration
	// CaseMemory bounds the address space of each process of a job.
	CaseMemory, MaxMemory int64
	RunWall, MaxRunWall   time.Duration
	RunCPU                time.Duration
	RunMemory             int64
	// Budget bounds the time one evaluate request may take of its slot, all
	// cases together; those not reached are skipped.
	Budget time.Duration
	// Output is what is kept of each of stdout and stderr, of a command or of
	// all of a process; CaseOutput what is kept of a case's.
	Output, CaseOutput int
	// OutputStop is how much a job may print to each before it is ended.
	OutputStop int
	// Result bounds a returned value as it is carried; Value as it is shown.
	Result, Value int
	// Answer bounds a whole answer.
	Answer int
}

// DefaultLimits are the documented ones; the case's are the original's.
func DefaultLimits() Limits {
	return Limits{
		CaseWall: 5 * time.Second, MaxCaseWall: 60 * time.Second,
		CaseCPU: 4 * time.Second, MaxCaseCPU: 60 * time.Second,
		CaseMemory: 2048 << 20, MaxMemory: 4096 << 20,
		RunWall: 30 * time.Second, MaxRunWall: 120 * time.Second,
		RunCPU: 120 * time.Second, RunMemory: 4096 << 20,
		Budget: 240 * time.Second,
		Output: 1 << 20, CaseOutput: 16 << 10, OutputStop: 64 << 20,
		Result: 16 << 20, Value: 256 << 10,
		Answer: protocol.MaxMessageBytes - protocol.MessageOverheadBytes,
	}
}

// Validate checks the limits against each other.
func (l Limits) Validate() error {
	var errs []error
	atMost := func(name string, value, most any, bad bool) {
		if bad {
			errs = append(errs, fmt.Errorf("%s is %v, more than its maximum %v", name, value, most))
		}
	}
	atMost("case wall time", l.CaseWall, l.MaxCaseWall, l.CaseWall > l.MaxCaseWall)
	atMost("case CPU time", l.CaseCPU, l.MaxCaseCPU, l.CaseCPU > l.MaxCaseCPU)
	atMost("case memory", l.CaseMemory, l.MaxMemory, l.CaseMemory > l.MaxMemory)
	atMost("run wall time", l.RunWall, l.MaxRunWall, l.RunWall > l.MaxRunWall)
	atMost("run memory", l.RunMemory, l.MaxMemory, l.RunMemory > l.MaxMemory)
	for _, p := range []struct {
		name  string
		value int64
	}{
		{"case wall time", int64(l.CaseWall)}, {"case CPU time", int64(l.CaseCPU)}, {"case memory", l.CaseMemory},
		{"run wall time", int64(l.RunWall)}, {"run CPU time", int64(l.RunCPU)}, {"run memory", l.RunMemory},
		{"evaluate budget", int64(l.Budget)}, {"output", int64(l.Output)}, {"answer", int64(l.Answer)},
	} {
		if p.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d, want more than 0", p.name, p.value))
		}
	}
	return errors.Join(errs...)
}

// reported are the limits that children report by.
func (l Limits) reported() pyrunner.Limits {
	return pyrunner.Limits{Result: l.Result, Text: 64 << 10, Keep: l.CaseOutput, Stop: l.OutputStop}
}

// Place is where a job runs.
type Place struct {
	sandbox.Place
	// Importable lets the code import modules from the working directory: it is
	// a session's, with files of the caller's.
	Importable bool
}

// Answer is what goes back to the caller.
type Answer struct {
	// Status is the HTTP status.
	Status int
	Body   []byte
	// Outcome names the end of the job, for metrics: ok, invalid, timeout.
	Outcome string
	// Statuses counts the cases by status.
	Statuses map[protocol.CaseStatus]int
	// Marks counts the cases and commands by what they were seen trying.
	Marks map[string]int
}

// What a submission may be seen trying, in a result's "integrity". A program
// that means no harm can do some of it too, but seldom.
const (
	// integritySubclass: it returned an instance of a builtin's subclass that
	// has its own idea of equality.
	integritySubclass = "subclass"
	// integrityExit: it ended its process, or raised SystemExit, instead of answering.
	integrityExit = "early_exit"
	// integrityChannel: it wrote to the channel that carries its results.
	integrityChannel = "result_channel"
	// integrityEquals: its answer called itself equal to values that it was not
	// expected to equal.
	integrityEquals = "equals_anything"
	// integrityBlocked: it made a system call that only a program makes which
	// wants out, and was refused.
	integrityBlocked = "blocked_call"
)

// Marks lists all of them.
var Marks = []string{integritySubclass, integrityExit, integrityChannel, integrityEquals, integrityBlocked}

func (a *Answer) mark(marks []string) {
	for _, m := range marks {
		a.Marks[m]++
	}
}

func refuse(status int, format string, args ...any) Answer {
	return Answer{Status: status, Body: protocol.ErrorBody(fmt.Sprintf(format, args...)), Outcome: "invalid"}
}
