package growth

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func printJSON(out io.Writer, cfg Config, all []*size) error {
	text, err := json.Marshal(struct {
		Jobs  int     `json:"jobs"`
		Rate  float64 `json:"rate"`
		Load  float64 `json:"load"`
		Sizes []*size `json:"sizes"`
	}{cfg.Jobs, cfg.Rate, cfg.Load, all}, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// line is a line of the table: a name, and a text for each size.
type line struct {
	name string
	of   func(*size) string
}

func number(format string, of func(*size) float64) func(*size) string {
	return func(s *size) string { return fmt.Sprintf(format, of(s)) }
}

func each(of func(*size) spread) func(*size) string {
	return func(s *size) string {
		e := of(s)
		return fmt.Sprintf("%.0f…%.1f…%.0f", e.Min, e.Mean, e.Max)
	}
}

// waits prints the median and the 99th percentile.
func waits(of func(*size) wait) func(*size) string {
	return func(s *size) string { w := of(s); return fmt.Sprintf("%.1f, %.1f", w.P50, w.P99) }
}

func parts(of func(*size) map[string]float64) func(*size) string {
	return func(s *size) string {
		m := of(s)
		return fmt.Sprintf("%.0f, %.0f, %.0f", m[gateway], m[nats], m[workers])
	}
}

var table = []line{
	{"slots", func(s *size) string { return fmt.Sprint(s.Slots) }},
	{"all have joined after, s", number("%.1f", func(s *size) float64 { return s.Join })},
	{"NATS: connections", func(s *size) string { return fmt.Sprint(s.Idle.Connections) }},
	{"NATS: subscriptions", func(s *size) string { return fmt.Sprint(s.Idle.Subscriptions) }},
	{"NATS: consumers", func(s *size) string { return fmt.Sprint(s.Idle.Consumers) }},
	{"idle: NATS messages a second, in", number("%.0f", func(s *size) float64 { return s.Idle.In })},
	{"idle: NATS messages a second, out", number("%.0f", func(s *size) float64 { return s.Idle.Out })},
	{"idle: CPU ms a second, gateway NATS workers", parts(func(s *size) map[string]float64 { return s.Idle.CPU })},
	{"sessions placed a second", number("%.0f", func(s *size) float64 { return s.Sessions.PerSecond })},
	{"  a first write, p50 and p99 ms", func(s *size) string { return fmt.Sprintf("%.1f, %.1f", s.Sessions.P50, s.Sessions.P99) }},
	{"  sessions a worker", each(func(s *size) spread { return s.Sessions.Each })},
	{"  gateway CPU each, µs", number("%.0f", func(s *size) float64 { return s.Sessions.GatewayUS })},
	{"mean length of a job, ms", number("%.0f", func(s *size) float64 { return s.MeanMS })},
	{"steady: jobs", func(s *size) string { return fmt.Sprint(s.Steady.Wait.Jobs) }},
	{"  jobs a second", number("%.0f", func(s *size) float64 { return s.Steady.PerSecond })},
	{"  slots busy", number("%.2f", func(s *size) float64 { return s.Steady.SlotsBusy })},
	{"  waited beside the job, p50 and p99 ms", waits(func(s *size) wait { return s.Steady.Wait })},
	{"  of that in NATS' queue, p50 and p99 ms", waits(func(s *size) wait { return s.Steady.Queue })},
	{"  jobs a worker", each(func(s *size) spread { return s.Steady.Each })},
	{"  CPU µs a job, gateway NATS workers", parts(func(s *size) map[string]float64 { return s.Steady.CPU })},
	{"all busy: jobs", func(s *size) string { return fmt.Sprint(s.Busy.Wait.Jobs) }},
	{"  jobs a second", number("%.0f", func(s *size) float64 { return s.Busy.PerSecond })},
	{"  slots busy", number("%.2f", func(s *size) float64 { return s.Busy.SlotsBusy })},
	{"  waited, who sends many, p50 and p99 ms", waits(func(s *size) wait { return s.FirstCaller })},
	{"  waited, who sends few, p50 and p99 ms", waits(func(s *size) wait { return s.SecondCaller })},
	{"  jobs a worker", each(func(s *size) spread { return s.Busy.Each })},
	{"  CPU µs a job, gateway NATS workers", parts(func(s *size) map[string]float64 { return s.Busy.CPU })},
	{"resident MB, gateway NATS workers", parts(func(s *size) map[string]float64 { return s.Resident })},
	{"failed requests", func(s *size) string { return fmt.Sprint(s.Steady.Failed + s.Busy.Failed) }},
}

func printTable(out io.Writer, all []*size) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-46s", "workers")
	for _, s := range all {
		fmt.Fprintf(&b, " %16d", s.Workers)
	}
	b.WriteString("\n")
	for _, l := range table {
		fmt.Fprintf(&b, "%-46s", l.name)
		for _, s := range all {
			fmt.Fprintf(&b, " %16s", l.of(s))
		}
		b.WriteString("\n")
	}
	for _, s := range all {
		if f := cmp.Or(s.Steady.Failure, s.Busy.Failure); f != "" {
			fmt.Fprintf(&b, "%d workers: a request failed: %s\n", s.Workers, f)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
