package bench

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

// report is the whole result; its JSON form is what --json prints.
type report struct {
	Clients int          `json:"clients"`
	Seconds float64      `json:"seconds"` // asked for, for each server and kind
	Rounds  int          `json:"rounds"`
	Once    bool         `json:"once"`
	Servers []serverName `json:"servers"`
	Kinds   []kindReport `json:"kinds"`
}

type serverName struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// kindReport is one kind of request on each server.
type kindReport struct {
	Kind    string         `json:"kind"`
	Rows    int            `json:"rows"` // of the workload; 0 for requests without rows
	Results []serverReport `json:"results"`
	Ratio   *ratios        `json:"ratio,omitempty"`
}

// serverReport is one kind of request on one server. Requests, rates and
// latencies are of right answers only.
type serverReport struct {
	Server            string         `json:"server"`
	Requests          int            `json:"requests"`
	Cases             int            `json:"cases"`
	WallSeconds       float64        `json:"wall_s"`
	RequestsPerSecond float64        `json:"requests_per_s"`
	CasesPerSecond    float64        `json:"cases_per_s"`
	P50               float64        `json:"p50_ms"`
	P95               float64        `json:"p95_ms"`
	P99               float64        `json:"p99_ms"`
	Errors            map[string]int `json:"errors"` // by status, or by what became of the connection
	// RowsAsked is how many rows of the workload were asked for at least once.
	RowsAsked         int                   `json:"rows_asked"`
	CasesDiffer       int                   `json:"cases_differ"`
	SubmissionsDiffer int                   `json:"submissions_differ"`
	Differences       []workload.Difference `json:"differences"` // the first few
}

// ratios are of the first server by the second. 0: there is none.
type ratios struct {
	RequestsPerSecond float64 `json:"requests_per_s"`
	CasesPerSecond    float64 `json:"cases_per_s"`
	P50               float64 `json:"p50"`
	P95               float64 `json:"p95"`
	P99               float64 `json:"p99"`
	// Lowest and Highest are the extremes of RequestsPerSecond among rounds.
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
}

func newReport(cfg Config, servers []*server) *report {
	r := &report{Clients: cfg.Clients, Seconds: cfg.Seconds, Rounds: cfg.Rounds, Once: cfg.Once, Kinds: []kindReport{}}
	for _, s := range servers {
		r.Servers = append(r.Servers, serverName{s.name, s.api.URL()})
	}
	return r
}

// add takes in what was measured of one kind, one measurement a server.
func (r *report) add(k *kind, servers []*server, measured []*measurement) kindReport {
	result := kindReport{Kind: k.name, Rows: len(k.rows)}
	for i, m := range measured {
		total, rate := m.total(), rateOf(m.clients)
		s := serverReport{
			Server: servers[i].name, Requests: total.requests, Cases: total.cases, WallSeconds: m.wall.Seconds(),
			RequestsPerSecond: rate.requests, CasesPerSecond: rate.cases,
			Errors: m.errors, RowsAsked: m.rows, Differences: m.verdicts.list(),
		}
		s.P50, s.P95, s.P99 = m.latencyMS()
		s.CasesDiffer, s.SubmissionsDiffer = m.verdicts.count()
		result.Results = append(result.Results, s)
	}
	if len(measured) == 2 {
		a, b := result.Results[0], result.Results[1]
		result.Ratio = &ratios{
			RequestsPerSecond: ratio(a.RequestsPerSecond, b.RequestsPerSecond),
			CasesPerSecond:    ratio(a.CasesPerSecond, b.CasesPerSecond),
			P50:               ratio(a.P50, b.P50),
			P95:               ratio(a.P95, b.P95),
			P99:               ratio(a.P99, b.P99),
		}
		result.Ratio.Lowest, result.Ratio.Highest = spread(measured[0].rounds, measured[1].rounds)
	}
	r.Kinds = append(r.Kinds, result)
	return result
}

// judge returns the error for missing and wrong answers.
func (r *report) judge() error {
	var faults []error
	answersWrong := 0
	for _, k := range r.Kinds {
		for _, s := range k.Results {
			if s.Requests == 0 {
				faults = append(faults, fmt.Errorf("measure %s on server %s: %w (%s)", k.Kind, s.Server, ErrNoAnswers, reasons(s.Errors)))
			}
			answersWrong += s.Errors[wrong]
		}
	}
	if answersWrong > 0 {
		faults = append(faults, fmt.Errorf("check answers: %w: %d", ErrWrongAnswers, answersWrong))
	}
	return errors.Join(faults...)
}

func (r *report) printJSON(out io.Writer) error {
	text, err := json.Marshal(r, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

const rowFormat = "%-22s %-6s %9s %10s %10s %9s %9s %9s  %s\n"

func (r *report) printHead(out io.Writer) error {
	var b strings.Builder
	for _, s := range r.Servers {
		fmt.Fprintf(&b, "%s is %s\n", s.Name, s.URL)
	}
	each := fmt.Sprintf("%g s on each server", r.Seconds)
	if r.Once {
		each = "each row once on each server"
	}
	fmt.Fprintf(&b, "clients: %d; each kind: %s, in %d rounds\n\n", r.Clients, each, r.Rounds)
	fmt.Fprintf(&b, rowFormat, "kind", "server", "requests", "requests/s", "cases/s", "p50 ms", "p95 ms", "p99 ms", "errors")
	_, err := io.WriteString(out, b.String())
	return err
}

// print prints the kind's rows of the table, and what differed.
func (k kindReport) print(out io.Writer) error {
	var b strings.Builder
	name := k.Kind
	for _, s := range k.Results {
		cases := "-"
		if s.Cases > 0 {
			cases = fmt.Sprintf("%.1f", s.CasesPerSecond)
		}
		fmt.Fprintf(&b, rowFormat, name, s.Server, fmt.Sprint(s.Requests), fmt.Sprintf("%.1f", s.RequestsPerSecond), cases,
			milliseconds(s.P50), milliseconds(s.P95), milliseconds(s.P99), reasons(s.Errors))
		name = ""
	}
	if q := k.Ratio; q != nil {
		note := fmt.Sprintf("rounds: %s to %s", times(q.Lowest), times(q.Highest))
		fmt.Fprintf(&b, rowFormat, "", "A/B", "", times(q.RequestsPerSecond), times(q.CasesPerSecond), times(q.P50), times(q.P95), times(q.P99), note)
	}
	for _, s := range k.Results {
		// Trivial submissions are one row: that none differs goes without saying.
		if k.Rows <= 1 && s.SubmissionsDiffer == 0 {
			continue
		}
		fmt.Fprintf(&b, "  %s: %d cases of %d submissions differ, of %d submissions asked for\n", s.Server, s.CasesDiffer, s.SubmissionsDiffer, s.RowsAsked)
		for _, d := range s.Differences {
			fmt.Fprintf(&b, "    %s\n", d)
		}
		if len(s.Differences) == maxListed {
			fmt.Fprintf(&b, "    (at most %d are listed)\n", maxListed)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func milliseconds(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ms)
}

func times(r float64) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", r)
}

// reasons prints counted errors, in a fixed order.
func reasons(counts map[string]int) string {
	if len(counts) == 0 {
		return "none"
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s: %d", reason, counts[reason]))
	}
	return strings.Join(parts, ", ")
}
