package verdict

import (
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// Trust says on whose word a verdict rests, where it isn't the worker's own.
type Trust string

// TrustSubmission marks a verdict for which the submission's own definitions
// were asked: its ==, or its names in an expected text.
const TrustSubmission Trust = "submission"

// Result is the outcome of one case.
type Result struct {
	Status protocol.CaseStatus
	// HasGot says that the submission answered: with Got, or with something
	// that is no literal and reads as Opaque.
	HasGot bool
	Got    pyvalue.Value
	Opaque string
	// ShowExpected says that Want is shown as the expected value; otherwise the
	// case's own text is, and Opaque expected values are shown as text.
	ShowExpected bool
	Want         pyvalue.Value
	WantOpaque   string
	// Error says what went wrong; empty for a plain pass or fail.
	Error string
	// CPU and Wall are what the case used, PeakKB the peak resident memory of
	// the process it ran in, in KiB.
	CPU, Wall      time.Duration
	PeakKB         int
	Stdout, Stderr []byte
	// StdoutTruncated and StderrTruncated say that more was printed.
	StdoutTruncated, StderrTruncated bool
	Trust                            Trust
	// Integrity lists what the submission was seen trying.
	Integrity []string
}

// Passed reports whether the case passed.
func (r *Result) Passed() bool { return r.Status == protocol.Passed }

// Fail makes a result of a status and an error text.
func Fail(status protocol.CaseStatus, text string) Result {
	return Result{Status: status, Error: text}
}

// Judge compares an answer with what is known to be expected.
func (r *Result) Judge(want pyvalue.Value) {
	r.ShowExpected, r.Want = true, want
	if pyvalue.Equal(r.Got, want) {
		r.Status = protocol.Passed
	} else {
		r.Status = protocol.Failed
	}
}
