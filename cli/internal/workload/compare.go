package workload

import "fmt"

// Whole is the case number of a difference in the submission's own verdict.
const Whole = -1

// The words of a Difference, besides passed and failed.
const (
	wordMissing = "missing"
	wordAny     = "a verdict"
	wordNoCase  = "no such case"
)

// Difference is a verdict that isn't as it should be.
type Difference struct {
	TaskID string `json:"task_id"`
	// Case counts from 0, as the API does; see Whole.
	Case int    `json:"case"`
	Got  string `json:"got"`
	Want string `json:"want"`
	// Reason is what the server said of the case, if anything.
	Reason string `json:"reason,omitempty"`
}

func (d Difference) String() string {
	at := fmt.Sprintf("case %d", d.Case)
	if d.Case == Whole {
		at = "as a whole"
	}
	s := fmt.Sprintf("%s %s: got %s, want %s", d.TaskID, at, d.Got, d.Want)
	if d.Reason != "" {
		s += " (" + d.Reason + ")"
	}
	return s
}

// Compare checks an answer against the row: there is one verdict for each case,
// each as recorded if any are recorded, and the verdict of the whole is passed
// exactly if all cases passed. A nil verdict is a missing one. The result is
// empty if all is as it should be.
func (r *Row) Compare(whole *bool, cases []*bool) []Difference {
	var differences []Difference
	differ := func(i int, got, want string) {
		differences = append(differences, Difference{TaskID: r.TaskID, Case: i, Got: got, Want: want})
	}
	all, complete := true, len(cases) == r.Cases
	for i := range max(r.Cases, len(cases)) {
		want := wordAny
		if i < len(r.Verdicts) {
			want = word(&r.Verdicts[i])
		}
		switch {
		case i >= r.Cases:
			differ(i, word(cases[i]), wordNoCase)
		case i >= len(cases) || cases[i] == nil:
			complete = false
			differ(i, wordMissing, want)
		default:
			all = all && *cases[i]
			if got := word(cases[i]); want != wordAny && got != want {
				differ(i, got, want)
			}
		}
	}
	if whole == nil || complete && *whole != all {
		differ(Whole, word(whole), word(&all))
	}
	return differences
}

func word(v *bool) string {
	switch {
	case v == nil:
		return wordMissing
	case *v:
		return "passed"
	default:
		return "failed"
	}
}
