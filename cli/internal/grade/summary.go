package grade

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/workload"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// maxListed is how many differences, and how many submissions without an
	// answer, are listed; all are counted.
	maxListed = 20
	// maxReasonBytes is how much is listed of what a server said, in bytes.
	maxReasonBytes = 160
)

// summary is what became of all rows.
type summary struct {
	submissions, passed, failed int
	cases                       map[protocol.CaseStatus]int
	recorded                    int // verdicts
	casesDiffer, rowsDiffer     int
	differences                 []workload.Difference // the first few
	unanswered                  int
	reasons                     []string // the first few
	again                       int      // requests
	seconds                     float64
}

func newSummary() *summary { return &summary{cases: map[protocol.CaseStatus]int{}} }

// add counts a row, and returns its result line.
func (s *summary) add(g graded) resultLine {
	s.submissions++
	s.again += g.attempts - 1
	line := resultLine{TaskID: g.row.TaskID, Verdicts: []*bool{}, Statuses: []protocol.CaseStatus{}}
	if g.err != nil {
		s.unanswered++
		if len(s.reasons) < maxListed {
			s.reasons = append(s.reasons, g.row.TaskID+": "+shorten(g.err.Error()))
		}
		line.Error = g.err.Error()
		return line
	}
	line.Passed, line.Verdicts = g.answer.Passed, g.answer.Verdicts()
	if g.answer.Error != nil {
		line.Error = *g.answer.Error
	}
	if g.answer.Passed != nil && *g.answer.Passed {
		s.passed++
	} else {
		s.failed++
	}
	for _, c := range g.answer.Cases {
		s.cases[c.Status()]++
		line.Statuses = append(line.Statuses, c.Status())
	}
	s.recorded += len(g.row.Verdicts)
	differences := g.row.Compare(line.Passed, line.Verdicts)
	if len(differences) > 0 {
		s.rowsDiffer++
	}
	for _, d := range differences {
		if d.Case != workload.Whole {
			s.casesDiffer++
		}
		d.Reason = reason(g.answer, d.Case)
		if len(s.differences) < maxListed {
			s.differences = append(s.differences, d)
		}
		line.Differ = append(line.Differ, d.Case)
	}
	return line
}

// reason is what the server said of a case, or of the submission if it said
// nothing of the case.
func reason(e fleetclient.Evaluation, number int) string {
	if number < 0 || number >= len(e.Cases) {
		if e.Error != nil {
			return shorten(*e.Error)
		}
		return ""
	}
	c := e.Cases[number]
	if c.Error == nil {
		return string(c.Status())
	}
	return shorten(string(c.Status()) + ": " + *c.Error)
}

// shorten keeps the start of the first line.
func shorten(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if len(line) > maxReasonBytes {
		line, more = line[:maxReasonBytes], true
	}
	line = strings.ToValidUTF8(line, "")
	if more {
		line += "…"
	}
	return line
}

func (s *summary) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "submissions  %d: %d passed, %d failed, %d without an answer\n", s.submissions, s.passed, s.failed, s.unanswered)
	for _, r := range s.reasons {
		fmt.Fprintf(&b, "    %s\n", r)
	}
	cases := 0
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(s.cases)) {
		cases += s.cases[status]
		parts = append(parts, fmt.Sprintf("%d %s", s.cases[status], status))
	}
	fmt.Fprintf(&b, "cases        %d", cases)
	if len(parts) > 0 {
		fmt.Fprintf(&b, ": %s", strings.Join(parts, ", "))
	}
	fmt.Fprintf(&b, "\nverdicts     %d recorded; %d cases of %d submissions differ\n", s.recorded, s.casesDiffer, s.rowsDiffer)
	for _, d := range s.differences {
		fmt.Fprintf(&b, "    %s\n", d)
	}
	if len(s.differences) == maxListed || len(s.reasons) == maxListed {
		fmt.Fprintf(&b, "    (at most %d of a sort are listed)\n", maxListed)
	}
	fmt.Fprintf(&b, "time         %.1f s: %.1f submissions/s, %.1f cases/s; %d requests sent again\n",
		s.seconds, perSecond(s.submissions, s.seconds), perSecond(cases, s.seconds), s.again)
	_, err := io.WriteString(out, b.String())
	return err
}

// judge returns the error for missing and differing verdicts.
func (s *summary) judge() error {
	switch {
	case s.rowsDiffer > 0 && s.unanswered > 0:
		return fmt.Errorf("check verdicts: %w: %d cases of %d submissions; %w: %d", ErrDiffer, s.casesDiffer, s.rowsDiffer, ErrUnanswered, s.unanswered)
	case s.rowsDiffer > 0:
		return fmt.Errorf("check verdicts: %w: %d cases of %d submissions", ErrDiffer, s.casesDiffer, s.rowsDiffer)
	case s.unanswered > 0:
		return fmt.Errorf("check verdicts: %w: %d", ErrUnanswered, s.unanswered)
	default:
		return nil
	}
}

func perSecond(n int, seconds float64) float64 {
	if seconds == 0 {
		return 0
	}
	return float64(n) / seconds
}
