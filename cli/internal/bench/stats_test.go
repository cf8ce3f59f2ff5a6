package bench

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

func TestPercentile(t *testing.T) {
	upTo := func(n int) []time.Duration {
		values := make([]time.Duration, n)
		for i := range values {
			values[i] = time.Duration(i + 1)
		}
		return values
	}
	for name, test := range map[string]struct {
		values []time.Duration
		p      float64
		want   time.Duration
	}{
		"nothing":              {nil, 50, 0},
		"one value":            {upTo(1), 99, 1},
		"median of an odd one": {upTo(5), 50, 3},
		"median of an even":    {upTo(4), 50, 2},
		"the 95th of 100":      {upTo(100), 95, 95},
		"the 99th of 100":      {upTo(100), 99, 99},
		"the 99th of 10":       {upTo(10), 99, 10},
		"the 95th of 21":       {upTo(21), 95, 20},
		"the lowest":           {upTo(10), 0, 1},
		"the highest":          {upTo(10), 100, 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := percentile(test.values, test.p); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestRatio(t *testing.T) {
	for name, test := range map[string]struct{ a, b, want float64 }{
		"more":         {30, 2, 15},
		"less":         {1, 4, 0.25},
		"nothing by b": {3, 0, 0},
		"nothing by a": {0, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ratio(test.a, test.b); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	requests := func(values ...float64) (rates []rate) {
		for _, v := range values {
			rates = append(rates, rate{requests: v})
		}
		return rates
	}
	for name, test := range map[string]struct {
		a, b              []rate
		low, median, high float64
	}{
		"some rounds":          {requests(10, 30, 20), requests(10, 10, 10), 1, 2, 3},
		"one round":            {requests(10), requests(5), 2, 2, 2},
		"a round without":      {requests(10, 0, 40), requests(10, 10, 10), 1, 2.5, 4},
		"none in the other":    {requests(10), requests(0), 0, 0, 0},
		"no rounds":            {nil, nil, 0, 0, 0},
		"the first is highest": {requests(40, 10), requests(10, 10), 1, 2.5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if low, median, high := spread(test.a, test.b); low != test.low || median != test.median || high != test.high {
				t.Errorf("got %v, %v, %v, want %v, %v, %v", low, median, high, test.low, test.median, test.high)
			}
		})
	}
}

// A client's time ends with its own last answer, so one straggler takes nothing
// from the rate of the others.
func TestRateOfClients(t *testing.T) {
	got := rateOf([]work{
		{requests: 100, cases: 1000, busy: time.Second},
		{requests: 100, cases: 1000, busy: time.Second},
		{requests: 1, cases: 10, busy: 5 * time.Second},
		{busy: time.Second},
		{},
	})
	if math.Abs(got.requests-200.2) > 1e-9 || math.Abs(got.cases-2002) > 1e-9 {
		t.Errorf("got %+v, want 200.2 requests and 2002 cases a second", got)
	}
}

func TestMeasurementAddsRounds(t *testing.T) {
	see := func(requests int, busy time.Duration, errors map[string]int, latencies ...time.Duration) *observation {
		return &observation{work: work{requests, 10 * requests, busy}, errors: errors, latencies: latencies, verdicts: newVerdicts()}
	}
	m := newMeasurement()
	m.addRound([]*observation{see(1, time.Second, map[string]int{"500": 1}, 30*time.Millisecond), see(3, time.Second, nil, 10*time.Millisecond)}, time.Second, spent{300 * time.Millisecond, time.Second})
	m.addRound([]*observation{see(5, 2*time.Second, map[string]int{"500": 2, "reset": 1}), see(1, time.Second, nil, 20*time.Millisecond)}, 2*time.Second, spent{200 * time.Millisecond, 0})
	if got, want := m.total(), (work{10, 100, 5 * time.Second}); got != want {
		t.Errorf("total %+v, want %+v", got, want)
	}
	if got := rateOf(m.clients).requests; got != 6.0/3+4.0/2 {
		t.Errorf("rate %v, want 4", got)
	}
	if want := []rate{{4, 40}, {3.5, 35}}; !reflect.DeepEqual(m.rounds, want) {
		t.Errorf("rounds %v, want %v", m.rounds, want)
	}
	if want := map[string]int{"500": 3, "reset": 1}; !reflect.DeepEqual(m.errors, want) {
		t.Errorf("errors %v, want %v", m.errors, want)
	}
	if p50, p95, p99 := m.latencyMS(); p50 != 20 || p95 != 30 || p99 != 30 {
		t.Errorf("latencies %v, %v, %v", p50, p95, p99)
	}
	if target, driver := m.perRequest(); target != 50 || driver != 100 {
		t.Errorf("CPU %v and %v ms a request, want 50 and 100", target, driver)
	}
	if m.wall != 3*time.Second {
		t.Errorf("wall %v", m.wall)
	}
}

func TestVerdictsCountOnce(t *testing.T) {
	differ := func(cases ...int) (d []workload.Difference) {
		for _, c := range cases {
			d = append(d, workload.Difference{TaskID: "t", Case: c})
		}
		return d
	}
	v, o := newVerdicts(), newVerdicts()
	v.add(7, differ(2, 0, workload.Whole))
	v.add(7, differ(2))
	o.add(7, differ(0))
	o.add(3, differ(1))
	v.merge(o)
	if cases, submissions := v.count(); cases != 3 || submissions != 2 {
		t.Errorf("%d cases of %d submissions, want 3 of 2", cases, submissions)
	}
	var order []int
	for _, d := range v.list() {
		order = append(order, d.Case)
	}
	if want := []int{1, workload.Whole, 0, 2}; !reflect.DeepEqual(order, want) {
		t.Errorf("listed %v, want %v", order, want)
	}
	for i := range 50 {
		v.add(9, differ(i))
	}
	if n := len(v.list()); n != maxListed {
		t.Errorf("%d listed, want %d", n, maxListed)
	}
	if cases, _ := v.count(); cases != 53 {
		t.Errorf("%d cases counted, want 53", cases)
	}
}
