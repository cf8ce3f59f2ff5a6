package protocol

// CaseStatus says how one case of a submission ended. It is what the
// submission did, never a fault of the platform.
type CaseStatus string

// The closed set of case statuses.
const (
	Passed      CaseStatus = "passed"
	Failed      CaseStatus = "failed"       // an answer, but the wrong one
	Errored     CaseStatus = "error"        // an exception, or a case that can't be run
	TimedOut    CaseStatus = "timeout"      // the wall or the CPU clock ran out
	OutOfMemory CaseStatus = "memory"       // the memory limit was hit
	Crashed     CaseStatus = "crashed"      // the process ended without an answer
	OutputLimit CaseStatus = "output_limit" // printed or returned more than may be carried
	Skipped     CaseStatus = "skipped"      // not run: stop_on_failure, or no time left
)

// CaseStatuses lists the closed set, for metrics and documentation.
var CaseStatuses = []CaseStatus{Passed, Failed, Errored, TimedOut, OutOfMemory, Crashed, OutputLimit, Skipped}

// StatusMisdirected is the Result status of a worker that doesn't own the
// session it was asked about, or not in that epoch any more: the gateway looks
// the owner up again. It never reaches a caller.
const StatusMisdirected = 421

// StatusOvertaken is the Result status of a change that arrived after one that
// was sent later: it was held up on the way, and its caller may be gone. Nothing
// was done. The gateway sends it again, if somebody still waits for it. It never
// reaches a caller.
const StatusOvertaken = 425
