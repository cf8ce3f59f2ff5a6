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
	Slots   int          `json:"slots,omitempty"` // of each of ours
	Servers []serverName `json:"servers"`
	Kinds   []kindReport `json:"kinds"`
	// Memory is of idle slots, Targets what the project wants to reach; both
	// only where ours are measured.
	Memory  []memoryReport `json:"memory,omitempty"`
	Targets []targetReport `json:"targets,omitempty"`
}

type serverName struct {
	Name string `json:"name"`
	// What is a server's URL, or says what it is.
	What string `json:"what"`
}

// kindReport is one kind of request on each server.
type kindReport struct {
	Kind    string         `json:"kind"`
	Rows    int            `json:"rows"` // of the workload; 0 for requests without rows
	LeftOut leftOut        `json:"rows_left_out"`
	Results []serverReport `json:"results"`
	Ratios  []ratios       `json:"ratios"`

	workload bool
}

// serverReport is one kind of request on one server. Requests, rates and
// latencies are of right answers only.
type serverReport struct {
	Server            string  `json:"server"`
	Requests          int     `json:"requests"`
	Cases             int     `json:"cases"`
	WallSeconds       float64 `json:"wall_s"`
	RequestsPerSecond float64 `json:"requests_per_s"`
	CasesPerSecond    float64 `json:"cases_per_s"`
	P50               float64 `json:"p50_ms"`
	P95               float64 `json:"p95_ms"`
	P99               float64 `json:"p99_ms"`
	// CPU is what all of its processes used for a right answer, 0 if unknown;
	// DriverCPU what the load did.
	CPU       float64        `json:"cpu_ms"`
	DriverCPU float64        `json:"driver_cpu_ms"`
	Errors    map[string]int `json:"errors"` // by status, or by what became of the connection
	// RowsAsked is how many rows of the workload were asked for at least once.
	RowsAsked         int                   `json:"rows_asked"`
	CasesDiffer       int                   `json:"cases_differ"`
	SubmissionsDiffer int                   `json:"submissions_differ"`
	Differences       []workload.Difference `json:"differences"` // the first few
}

// ratios of one server by another. 0: there is none.
type ratios struct {
	Of                string  `json:"of"`
	By                string  `json:"by"`
	RequestsPerSecond float64 `json:"requests_per_s"`
	CasesPerSecond    float64 `json:"cases_per_s"`
	CPU               float64 `json:"cpu"`
	P50               float64 `json:"p50"`
	P95               float64 `json:"p95"`
	P99               float64 `json:"p99"`
	// Lowest, Median and Highest are of RequestsPerSecond, among rounds.
	Lowest  float64 `json:"lowest"`
	Median  float64 `json:"median"`
	Highest float64 `json:"highest"`
}

// pairs are those whose ratios are told, where both were measured.
var pairs = [][2]string{
	{"A", "B"},
	{nameEngine, nameFork},
	{nameFleet, nameEngine},
	{nameProcesses, nameFleet},
	{nameFleet, nameOriginal},
	{nameProcesses, nameOriginal},
}

func newReport(cfg Config, targets []*target) *report {
	r := &report{Clients: cfg.Clients, Seconds: cfg.Seconds, Rounds: cfg.Rounds, Once: cfg.Once, Kinds: []kindReport{}}
	if len(cfg.Rows) > 0 {
		r.Slots = cfg.Slots
	}
	for _, t := range targets {
		r.Servers = append(r.Servers, serverName{t.name, t.what})
	}
	return r
}

// add takes in what was measured of one kind, one measurement a target.
func (r *report) add(k *kind, targets []*target, measured []*measurement, left leftOut) kindReport {
	result := kindReport{Kind: k.name, Rows: len(k.rows), LeftOut: left, Ratios: []ratios{}, workload: k.workload}
	at := map[string]int{}
	for i, m := range measured {
		total, rate := m.total(), rateOf(m.clients)
		s := serverReport{
			Server: targets[i].name, Requests: total.requests, Cases: total.cases, WallSeconds: m.wall.Seconds(),
			RequestsPerSecond: rate.requests, CasesPerSecond: rate.cases,
			Errors: m.errors, RowsAsked: m.rows, Differences: m.verdicts.list(),
		}
		s.P50, s.P95, s.P99 = m.latencyMS()
		s.CPU, s.DriverCPU = m.perRequest()
		s.CasesDiffer, s.SubmissionsDiffer = m.verdicts.count()
		result.Results = append(result.Results, s)
		at[s.Server] = i
	}
	for _, p := range pairs {
		i, ok := at[p[0]]
		j, also := at[p[1]]
		if !ok || !also {
			continue
		}
		a, b := result.Results[i], result.Results[j]
		q := ratios{
			Of: p[0], By: p[1],
			RequestsPerSecond: ratio(a.RequestsPerSecond, b.RequestsPerSecond),
			CasesPerSecond:    ratio(a.CasesPerSecond, b.CasesPerSecond),
			CPU:               ratio(a.CPU, b.CPU),
			P50:               ratio(a.P50, b.P50),
			P95:               ratio(a.P95, b.P95),
			P99:               ratio(a.P99, b.P99),
		}
		q.Lowest, q.Median, q.Highest = spread(measured[i].rounds, measured[j].rounds)
		result.Ratios = append(result.Ratios, q)
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

const rowFormat = "%-18s %-18s %8s %10s %10s %8s %9s %9s %9s  %s\n"

func (r *report) printHead(out io.Writer) error {
	var b strings.Builder
	for _, s := range r.Servers {
		fmt.Fprintf(&b, "%s is %s\n", s.Name, s.What)
	}
	each := fmt.Sprintf("%g s on each server", r.Seconds)
	if r.Once {
		each = "each row once on each server"
	}
	fmt.Fprintf(&b, "clients: %d; each kind: %s, in %d rounds\n\n", r.Clients, each, r.Rounds)
	fmt.Fprintf(&b, rowFormat, "kind", "server", "requests", "requests/s", "cases/s", "CPU ms", "p50 ms", "p95 ms", "p99 ms", "errors")
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
			milliseconds(s.CPU), milliseconds(s.P50), milliseconds(s.P95), milliseconds(s.P99), reasons(s.Errors))
		name = ""
	}
	for _, q := range k.Ratios {
		note := fmt.Sprintf("rounds: %s to %s, median %s", times(q.Lowest), times(q.Highest), times(q.Median))
		fmt.Fprintf(&b, rowFormat, "", q.Of+"/"+q.By, "", times(q.RequestsPerSecond), times(q.CasesPerSecond), times(q.CPU), times(q.P50), times(q.P95), times(q.P99), note)
	}
	for _, s := range k.Results {
		// Trivial submissions are one row: that none differs goes without saying.
		if (k.Rows <= 1 || s.RowsAsked == 0) && s.SubmissionsDiffer == 0 {
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
	if n := k.LeftOut.Limit; n > 0 {
		fmt.Fprintf(&b, "  %d submissions were left out: they run into a limit, or take longer than %v\n", n, rulyTime)
	}
	if n := k.LeftOut.Original; n > 0 {
		fmt.Fprintf(&b, "  %d submissions were left out: the original fails them\n", n)
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
