package execute

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// BenchmarkIsolation is what the layers cost a job, each policy beside one of
// rlimits alone, in turn: a submission of one trivial case, the slot made ready
// for the next one included.
func BenchmarkIsolation(b *testing.B) {
	others := slices.DeleteFunc(sandbox.Layers(), func(l sandbox.Layer) bool { return l == sandbox.Rlimits })
	body := []byte(`{"id":"x","code":"def f(x): return x","entry_point":"f","io_cases":[{"input":"x=1","output":"1"}]}`)
	job := func(b *testing.B, s *Slot, at Place) time.Duration {
		begun := time.Now()
		if _, err := s.Evaluate(context.Background(), body, at, nil); err != nil {
			b.Fatal(err)
		}
		s.Ready()
		return time.Since(begun)
	}
	compare := func(name string, without []sandbox.Layer) {
		b.Run(name, func(b *testing.B) {
			bare, bareAt := newSlotWithout(b, others)
			full, fullAt := newSlotWithout(b, without)
			bareTimes, fullTimes := make([]time.Duration, 0, b.N), make([]time.Duration, 0, b.N)
			for b.Loop() {
				bareTimes = append(bareTimes, job(b, bare, bareAt))
				fullTimes = append(fullTimes, job(b, full, fullAt))
			}
			median := func(t []time.Duration) float64 {
				slices.Sort(t)
				return float64(t[len(t)/2].Nanoseconds()) / 1e3
			}
			x, y := median(bareTimes), median(fullTimes)
			b.ReportMetric(x, "µs/rlimits-job")
			b.ReportMetric(y, "µs/job")
			b.ReportMetric(y-x, "µs/isolation")
			b.ReportMetric(0, "ns/op")
		})
	}
	compare("all layers", nil)
	for _, l := range others {
		compare("only "+string(l), slices.DeleteFunc(slices.Clone(others), func(o sandbox.Layer) bool {
			return o == l || l == sandbox.SessionLandlock && o == sandbox.Landlock
		}))
	}
}
