package growth

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/worker/simulate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, args ...string) Config {
	t.Helper()
	var cfg Config
	parser, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The mean of the mix is 1, so that a rate says how many slots are busy.
func TestMix(t *testing.T) {
	var shares, mean float64
	for _, m := range mix {
		shares += m.share
		mean += m.share * m.length
	}
	if math.Abs(shares-1) > 1e-9 || math.Abs(mean-1) > 1e-9 {
		t.Errorf("shares add up to %v, the mean is %v; want 1 and 1", shares, mean)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	counts := map[time.Duration]int{}
	const n = 100_000
	for range n {
		counts[lengthOf(time.Second, rng)]++
	}
	for _, m := range mix {
		got := float64(counts[time.Duration(m.length*float64(time.Second))]) / n
		if math.Abs(got-m.share) > 0.01 {
			t.Errorf("length %v came in %v of all draws, want %v", m.length, got, m.share)
		}
	}
}

func TestWindow(t *testing.T) {
	from := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return from.Add(time.Duration(s * float64(time.Second))) }
	s := &seen{runs: []run{{at(0), at(1)}, {at(1), at(3)}, {at(9), at(12)}, {at(11), at(12)}}}
	jobs, took := s.ended(&window{from: from, to: at(10)})
	if jobs != 2 || took != 4*time.Second {
		t.Errorf("%d jobs ended and took %v, want 2 and 4s: one runs on, one had not begun", jobs, took)
	}
}

func TestSpreadAndQuantiles(t *testing.T) {
	if got, want := spreadOf([]float64{2, 4, 6}), (spread{2, 4, 6, math.Sqrt(8.0/3) / 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("nobody: %+v", got)
	}
	values := []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}
	for q, want := range map[float64]float64{0: 1, 0.5: 2, 1: 3} {
		if got := quantileMS(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestSeen(t *testing.T) {
	s, o := newSeen(), newSeen()
	sent := time.Now().Add(-time.Second)
	s.add(simulate.Answer{Worker: "a", Wait: 100_000, Length: 200_000}, sent, nil)
	o.add(simulate.Answer{}, sent, os.ErrDeadlineExceeded)
	o.add(simulate.Answer{Worker: "a"}, sent, nil)
	s.merge(o)
	if s.failed != 1 || s.failure == nil || s.jobs["a"] != 2 || len(s.waits) != 2 {
		t.Errorf("got %+v", s)
	}
	if r := s.runs[0]; r.to.Sub(r.from) != 200*time.Millisecond || r.to.Sub(sent) < time.Second {
		t.Errorf("run %+v", r)
	}
	if s.waits[0] < 800*time.Millisecond || s.queued[0] != 100*time.Millisecond {
		t.Errorf("waited %v, %v of it in the queue; want 800ms and a little, 100ms", s.waits[0], s.queued[0])
	}
}

func TestRefusals(t *testing.T) {
	for _, args := range []string{"--workers=0", "--workers=1,100000", "--slots=0", "--servers=2", "--jobs=1", "--rate=0", "--load=1", "--sessions=0", "--idle=0s"} {
		flag, _, _ := strings.Cut(args, "=")
		if err := Run(t.Context(), parse(t, args), nil, nil); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: error %v", args, err)
		}
	}
}

func TestSmallFleets(t *testing.T) {
	if os.Getenv("TEST_SEPARATE_PROCESSES") == "" {
		t.Skip("run by make test-processes")
	}
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	args := []string{"--workers=1,3", "--jobs=200", "--rate=200", "--idle=1s", "--sessions=30", "--binaries=" + bin}
	if err := Run(t.Context(), parse(t, append(args, "--json")...), &out, &log); err != nil {
		t.Fatal(err, log.String())
	}
	var r struct {
		Sizes []size `json:"sizes"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || len(r.Sizes) != 2 {
		t.Fatalf("%v in %s", err, out.String())
	}
	s := r.Sizes[1]
	jobs := s.Steady.Wait.Jobs + s.Busy.Wait.Jobs
	if s.Workers != 3 || s.Slots != 6 || jobs < 200 || s.Steady.Failed+s.Busy.Failed > 0 {
		t.Errorf("got %+v", s)
	}
	if s.Idle.Connections != 4 || s.Idle.Consumers < 4 || s.Sessions.Each.Mean != 10 || s.Resident[workers] == 0 || s.Busy.CPU[nats] == 0 {
		t.Errorf("got %+v", s)
	}
	if s.FirstCaller.Jobs == 0 || s.SecondCaller.Jobs == 0 || s.Busy.Each.Min == 0 {
		t.Errorf("got %+v", s)
	}
	out.Reset()
	if err := printTable(&out, []*size{&r.Sizes[0], &s}); err != nil || !strings.Contains(out.String(), "jobs a worker") {
		t.Errorf("%v: %s", err, out.String())
	}
}
