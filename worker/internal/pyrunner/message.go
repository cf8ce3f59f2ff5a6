package pyrunner

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
)

// CaseKind says in which form a case's arguments are given.
type CaseKind int64

// The forms of arguments; the numbers are runner.py's.
const (
	// Keywords is a marshalled dict of name to value.
	Keywords CaseKind = iota
	// Positional is a marshalled tuple of values.
	Positional
	// Text is a marshalled str that the child must make sense of itself.
	Text
)

// Case is one call. Args is marshal data, as Kind says.
type Case struct {
	Kind CaseKind
	Args []byte
}

// Limits of what a child reports, all in bytes.
type Limits struct {
	// Result bounds a returned value, marshalled; more is FrameLimit.
	Result int
	// Text bounds the text of an exception or of a repr; more is cut.
	Text int
	// Keep bounds what is kept of each of stdout and stderr a case; more is cut.
	Keep int
	// Stop bounds what a case may print to each at all; more is FrameLimit.
	Stop int
}

// Confinement is marshal data that the sandbox prepared for its enter(). What
// belongs to it as a descriptor is [Job.Ruleset].
type Confinement []byte

// EvaluateSpec asks for cases of a submission, in order, in one process.
type EvaluateSpec struct {
	Source, EntryPoint string
	// First is the number of the first case; the rest count on from it.
	First int
	Cases []Case
	// CPUSeconds is what each case may use, in whole seconds.
	CPUSeconds int
	// Captured keeps what cases print in the process and reports it with each
	// case; otherwise it goes to the job's stdout and stderr as it is printed.
	Captured bool
	Limits   Limits
}

// Message is a job for a child, ready to be sent.
type Message []byte

// begin starts a message: its length, to be set by end, and its op.
func begin(op string, size int) Message {
	b := make(Message, 4, 96+size)
	return pymarshal.AppendString(pymarshal.AppendTuple(b, 5), op)
}

// tokenBytes is the length of the token at the end of a job's message.
const tokenBytes = 16

// token is what a fault frame of this job's child must begin with. The child
// forgets it before it runs a submission, which so can't call its own doing a
// fault of the platform's.
func (m Message) token() []byte { return m[len(m)-tokenBytes:] }

// end closes a message with what every job has.
func (m Message) end(c Confinement, importFrom string) Message {
	m = append(m, c...)
	if importFrom == "" {
		m = pymarshal.AppendNone(m)
	} else {
		m = pymarshal.AppendString(m, importFrom)
	}
	m = pymarshal.AppendString(m, fmt.Sprintf("%0*x", tokenBytes, rand.Uint64()))
	binary.LittleEndian.PutUint32(m, uint32(len(m)-4))
	return m
}

func (m Message) limits(l Limits) Message {
	m = pymarshal.AppendTuple(m, 4)
	for _, n := range [...]int{l.Result, l.Text, l.Keep, l.Stop} {
		m = pymarshal.AppendInt(m, int64(n))
	}
	return m
}

func (m Message) cases(cases ...Case) Message {
	m = pymarshal.AppendTuple(m, len(cases))
	for _, c := range cases {
		m = m.oneCase(c)
	}
	return m
}

func (m Message) oneCase(c Case) Message {
	m = pymarshal.AppendTuple(m, 2)
	m = pymarshal.AppendInt(m, int64(c.Kind))
	return append(m, c.Args...)
}

// Evaluate builds the message for a batch of cases. importFrom, if not empty,
// is a directory that the code may import modules from.
func Evaluate(s EvaluateSpec, c Confinement, importFrom string) Message {
	size := len(s.Source) + len(s.EntryPoint) + len(c)
	for i := range s.Cases {
		size += len(s.Cases[i].Args) + 16
	}
	m := begin("evaluate", size)
	m = pymarshal.AppendTuple(m, 7)
	m = pymarshal.AppendString(m, s.Source)
	m = pymarshal.AppendString(m, s.EntryPoint)
	m = pymarshal.AppendInt(m, int64(s.First))
	m = Message(m).cases(s.Cases...)
	m = pymarshal.AppendInt(m, int64(s.CPUSeconds))
	m = pymarshal.AppendBool(m, s.Captured)
	m = Message(m).limits(s.Limits)
	return Message(m).end(c, importFrom)
}

// Expr builds the message that evaluates expected texts: with the definitions
// of *source, or with builtins only when source is nil.
func Expr(source *string, texts []string, cpuSeconds int, l Limits, c Confinement, importFrom string) Message {
	m := begin("expr", len(c))
	m = pymarshal.AppendTuple(m, 4)
	if source == nil {
		m = pymarshal.AppendNone(m)
	} else {
		m = pymarshal.AppendString(m, *source)
	}
	m = pymarshal.AppendTuple(m, len(texts))
	for _, t := range texts {
		m = pymarshal.AppendString(m, t)
	}
	m = pymarshal.AppendInt(m, int64(cpuSeconds))
	m = Message(m).limits(l)
	return Message(m).end(c, importFrom)
}

// Compare builds the message that computes one case's answer and waits, after
// FrameReady, for the Candidates to compare it with.
func Compare(source, entryPoint string, cs Case, cpuSeconds int, l Limits, c Confinement, importFrom string) Message {
	m := begin("compare", len(source)+len(cs.Args)+len(c))
	m = pymarshal.AppendTuple(m, 5)
	m = pymarshal.AppendString(m, source)
	m = pymarshal.AppendString(m, entryPoint)
	m = Message(m).oneCase(cs)
	m = pymarshal.AppendInt(m, int64(cpuSeconds))
	m = Message(m).limits(l)
	return Message(m).end(c, importFrom)
}

// Candidates builds the second message of a comparison: the marshalled values
// to compare with, and an expected text to evaluate in the submission's
// namespace and to compare with last, if text isn't nil.
func Candidates(text *string, values [][]byte) Message {
	m := pymarshal.AppendTuple(make(Message, 4, 256), 2)
	if text == nil {
		m = pymarshal.AppendNone(m)
	} else {
		m = pymarshal.AppendString(m, *text)
	}
	m = pymarshal.AppendTuple(m, len(values))
	for _, v := range values {
		m = append(m, v...)
	}
	binary.LittleEndian.PutUint32(m, uint32(len(m)-4))
	return m
}

// Run builds the message that runs a shell command.
func Run(command string, c Confinement) Message {
	m := begin("run", len(command)+len(c))
	m = pymarshal.AppendString(pymarshal.AppendTuple(m, 1), command)
	return Message(m).end(c, "")
}
