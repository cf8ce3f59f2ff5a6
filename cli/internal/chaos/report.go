package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

// counters are the fleet's own, summed over its processes.
var counters = []string{"gradefleet_redeliveries_total", "gradefleet_session_failovers_total", "gradefleet_duplicate_results_total", "gradefleet_jobs_exhausted_total"}

var outcomes = []history.Outcome{history.OK, history.Missing, history.Refused, history.Unknown, history.Unanswered, history.GivenUp, history.Fault}

// report checks the history and prints what was found; ErrBroken if that is
// more than nothing.
func (s *stage) report(faults []Fault, totals *procs.Totals) error {
	counts := s.history.Counts()
	fmt.Fprintf(s.out, "\n%-10s", "requests")
	for _, o := range outcomes {
		fmt.Fprintf(s.out, "%12s", o)
	}
	fmt.Fprintln(s.out)
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(s.out, "%-10s", kind)
		for _, o := range outcomes {
			fmt.Fprintf(s.out, "%12d", counts[kind][o])
		}
		fmt.Fprintln(s.out)
	}
	s.reasons()
	fmt.Fprintf(s.out, "\nfaults     %s\n", tally(faults))
	for _, name := range counters {
		fmt.Fprintf(s.out, "%s %.0f\n", name, totals.Sum(name))
	}
	r := s.history.Check()
	for _, p := range s.fleet.All() {
		for _, text := range p.Died() {
			r.Violations = append(r.Violations, history.Violation{Class: history.Wrong, Text: text})
		}
	}
	fmt.Fprintf(s.out, "%d answers, %d verdicts, %d commands and %d sessions checked: %d lost, %d doubled, %d wrong, %d unanswered, %d sessions with two owners\n",
		r.Answers, r.Verdicts, r.Tokens, r.Sessions, r.Count(history.Lost), r.Count(history.Doubled), r.Count(history.Wrong), r.Count(history.Missed), r.Count(history.TwoOwners))
	if r.GivenUp > 0 {
		fmt.Fprintf(s.out, "%d jobs were given up since %d workers that ran them were lost in a row\n", r.GivenUp, history.MaxTries)
	}
	if len(r.Violations) == 0 {
		return nil
	}
	for i, v := range r.Violations {
		if i == shownViolations {
			fmt.Fprintf(s.out, "… and %d more\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(s.out, "\n%s: session %s: %s\n", strings.ToUpper(string(v.Class)), cmp.Or(v.Session, "-"), v.Text)
		for _, o := range v.Ops {
			fmt.Fprintln(s.out, "  ", o)
		}
	}
	return fmt.Errorf("%w: %d violations with seed %d", ErrBroken, len(r.Violations), s.cfg.Seed)
}

// shownReasons bounds how many are printed.
const shownReasons = 15

// reasons prints why requests were not answered, the most frequent first.
func (s *stage) reasons() {
	counts := s.history.Reasons()
	sorted := slices.SortedFunc(maps.Keys(counts), func(a, b history.Reason) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	for i, r := range sorted[:min(len(sorted), shownReasons)] {
		if i == 0 {
			fmt.Fprintln(s.out)
		}
		fmt.Fprintf(s.out, "%6d  %-8s %-8s %3d %s\n", counts[r], r.Kind, r.Outcome, r.Status, r.Text)
	}
}

// shownViolations bounds how many are printed.
const shownViolations = 20

// tally counts faults by class and action.
func tally(faults []Fault) string {
	counts := map[string]int{}
	for _, f := range faults {
		counts[fmt.Sprint(f.Class, " ", f.Action)]++
	}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", what, counts[what]))
	}
	return strings.Join(parts, ", ")
}
