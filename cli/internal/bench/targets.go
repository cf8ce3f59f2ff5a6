package bench

import (
	"fmt"
	"io"
	"strings"
)

// wanted is a ratio that the project wants to reach.
type wanted struct {
	kind, of, by string
	measure      string // rate, p50
	// least or most is the bound; the other is 0.
	least, most float64
}

// problems stands for the kinds of workload files in wanted.
const problems = "problems"

// allWanted is docs/performance.md's list.
var allWanted = []wanted{
	{kind: "1 case", of: nameFleet, by: nameEngine, measure: measureRate, least: 0.85},
	{kind: "10 cases", of: nameFleet, by: nameEngine, measure: measureRate, least: 0.85},
	{kind: "100 cases", of: nameFleet, by: nameEngine, measure: measureRate, least: 0.85},
	{kind: problems, of: nameFleet, by: nameEngine, measure: measureRate, least: 0.85},
	{kind: "100 cases", of: nameEngine, by: nameFork, measure: measureRate, least: 1 / 1.5},
	{kind: "1 case", of: nameFleet, by: nameOriginal, measure: measureRate, least: 10},
	{kind: "10 cases", of: nameFleet, by: nameOriginal, measure: measureRate, least: 12},
	{kind: "100 cases", of: nameFleet, by: nameOriginal, measure: measureRate, least: 15},
	{kind: kindSingle, of: nameFleet, by: nameOriginal, measure: measureP50, most: 0.25},
	{kind: problems, of: nameFleet, by: nameOriginal, measure: measureRate, least: 8},
	{kind: kindRun, of: nameFleet, by: nameOriginal, measure: measureRate, least: 1},
	{kind: kindWrite, of: nameFleet, by: nameOriginal, measure: measureRate, least: 1},
	{kind: kindRead, of: nameFleet, by: nameOriginal, measure: measureRate, least: 1},
}

// What of a ratio is wanted: requests a second, the median over the rounds, or
// the median latency.
const measureRate, measureP50 = "requests/s", "p50"

// targetReport is one wanted ratio beside the one measured.
type targetReport struct {
	Kind    string  `json:"kind"`
	Of      string  `json:"of"`
	By      string  `json:"by"`
	Measure string  `json:"measure"`
	Least   float64 `json:"least,omitempty"`
	Most    float64 `json:"most,omitempty"`
	Got     float64 `json:"got"`
	// CPU is the ratio of CPU time for a right answer, 0 if unknown.
	CPU float64 `json:"cpu"`
	Met bool    `json:"met"`
}

// judgeTargets holds what was measured against what is wanted.
func judgeTargets(kinds []kindReport) []targetReport {
	var all []targetReport
	for _, w := range allWanted {
		for _, k := range kinds {
			if k.Kind != w.kind && !(w.kind == problems && k.workload) {
				continue
			}
			for _, q := range k.Ratios {
				if q.Of != w.of || q.By != w.by {
					continue
				}
				t := targetReport{Kind: k.Kind, Of: w.of, By: w.by, Measure: w.measure, Least: w.least, Most: w.most, Got: q.Median, CPU: q.CPU}
				if w.measure == measureP50 {
					t.Got = q.P50
				}
				t.Met = t.Got > 0 && t.Got >= w.least && (w.most == 0 || t.Got <= w.most)
				all = append(all, t)
			}
		}
	}
	return all
}

// printEnd prints what follows the table of requests.
func (r *report) printEnd(out io.Writer) error {
	var b strings.Builder
	for i, m := range r.Memory {
		if i == 0 {
			fmt.Fprintf(&b, "\n%-28s %8s %8s %8s  %s\n", "memory, idle, MB", "PSS", "private", "RSS", "processes")
		}
		fmt.Fprintf(&b, "%-28s %8.1f %8.1f %8.1f  %s\n", m.What, m.PSS, m.Private, m.RSS, m.Processes)
	}
	for i, t := range r.Targets {
		if i == 0 {
			fmt.Fprintf(&b, "\n%-18s %-18s %-10s %8s %8s  %-6s  %s\n", "wanted", "ratio", "of", "want", "got", "", "CPU time")
		}
		bound, verdict := "≥ "+times(t.Least), "missed"
		if t.Most > 0 {
			bound = "≤ " + times(t.Most)
		}
		if t.Met {
			verdict = "met"
		}
		fmt.Fprintf(&b, "%-18s %-18s %-10s %8s %8s  %-6s  %s\n", t.Kind, t.Of+"/"+t.By, t.Measure, bound, times(t.Got), verdict, times(t.CPU))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
