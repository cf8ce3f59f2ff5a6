package bench

import (
	"math"
	"slices"
	"time"
)

// percentile returns the smallest value that at least p percent of the values
// don't exceed (nearest rank); 0 without values. The values are sorted.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratio is a/b; 0 where there is none.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// work is what one client did in one round, or several.
type work struct {
	requests int           // answered, and rightly
	cases    int           // in those requests
	busy     time.Duration // from the start of a round to the client's last answer
}

func (w *work) add(o work) {
	w.requests += o.requests
	w.cases += o.cases
	w.busy += o.busy
}

// rate is a throughput, a second.
type rate struct{ requests, cases float64 }

// rateOf sums the clients' own rates: they work side by side.
func rateOf(clients []work) rate {
	var r rate
	for _, w := range clients {
		r.requests += ratio(float64(w.requests), w.busy.Seconds())
		r.cases += ratio(float64(w.cases), w.busy.Seconds())
	}
	return r
}

// measurement is all that was seen of one kind of request on one server.
type measurement struct {
	clients   []work // by client, over all rounds
	rounds    []rate // by round
	latencies []time.Duration
	errors    map[string]int // by reason
	wall      time.Duration  // of all rounds
	cpu       spent          // in all rounds
	verdicts  verdicts
	rows      int // of a workload that were asked for
}

func newMeasurement() *measurement {
	return &measurement{errors: map[string]int{}, verdicts: newVerdicts()}
}

// addRound takes what the clients of a round saw, always the same number of
// them, and the CPU time it took.
func (m *measurement) addRound(seen []*observation, wall time.Duration, cpu spent) {
	if m.clients == nil {
		m.clients = make([]work, len(seen))
	}
	round := make([]work, len(seen))
	for i, o := range seen {
		round[i] = o.work
		m.clients[i].add(o.work)
		m.latencies = append(m.latencies, o.latencies...)
		for reason, n := range o.errors {
			m.errors[reason] += n
		}
		m.verdicts.merge(o.verdicts)
	}
	m.rounds = append(m.rounds, rateOf(round))
	m.wall += wall
	m.cpu = m.cpu.plus(cpu)
}

func (m *measurement) total() work {
	var t work
	for _, w := range m.clients {
		t.add(w)
	}
	return t
}

// latencyMS returns the 50th, 95th and 99th percentile, in milliseconds.
func (m *measurement) latencyMS() (p50, p95, p99 float64) {
	slices.Sort(m.latencies)
	ms := func(p float64) float64 { return float64(percentile(m.latencies, p)) / float64(time.Millisecond) }
	return ms(50), ms(95), ms(99)
}

// spread is the lowest, the middle and the highest ratio of requests a second
// among rounds that both servers answered in; zeros without any.
func spread(a, b []rate) (low, median, high float64) {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if r := ratio(a[i].requests, b[i].requests); r != 0 {
			ratios = append(ratios, r)
		}
	}
	if len(ratios) == 0 {
		return 0, 0, 0
	}
	slices.Sort(ratios)
	n := len(ratios)
	return ratios[0], (ratios[(n-1)/2] + ratios[n/2]) / 2, ratios[n-1]
}

// perRequest is CPU time for each right answer, in milliseconds.
func (m *measurement) perRequest() (target, driver float64) {
	requests := float64(m.total().requests)
	ms := float64(time.Millisecond)
	return ratio(float64(m.cpu.target)/ms, requests), ratio(float64(m.cpu.driver)/ms, requests)
}
