package fleetclient

import "github.com/gradefleet/gradefleet/shared/protocol"

// Evaluation is the answer to an evaluate request, as far as verdicts go. A
// pointer is nil where the answer had nothing, or null.
type Evaluation struct {
	Passed *bool        `json:"passed"`
	Cases  []CaseResult `json:"case_results"`
	Error  *string      `json:"error"`
}

// CaseResult is the verdict of one case.
type CaseResult struct {
	Passed *bool               `json:"passed"`
	Error  *string             `json:"error"`
	Named  protocol.CaseStatus `json:"status"`
}

// Status is the case's status as the server named it; where it names none (the
// key isn't part of the original API) it follows from the verdict and the error.
func (r CaseResult) Status() protocol.CaseStatus {
	switch {
	case r.Named != "":
		return r.Named
	case r.Passed != nil && *r.Passed:
		return protocol.Passed
	case r.Error != nil:
		return protocol.Errored
	default:
		return protocol.Failed
	}
}

// Verdicts returns the verdict of each case, nil where there is none.
func (e *Evaluation) Verdicts() []*bool {
	verdicts := make([]*bool, len(e.Cases))
	for i := range e.Cases {
		verdicts[i] = e.Cases[i].Passed
	}
	return verdicts
}

// RunResult is the answer to a run request.
type RunResult struct {
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

type runRequest struct {
	ID      string `json:"id"`
	Command string `json:"cmd"`
}

type writeRequest struct {
	ID      string `json:"id"`
	Path    string `json:"rel_path"`
	Content string `json:"content"`
}
