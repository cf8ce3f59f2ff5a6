package rate

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m Meter
	now := time.Unix(1_000_000, 0)
	if got := m.RetryAfter(now, 10); got != meterSeconds {
		t.Errorf("retry after %d s when nothing finished, want %d", got, meterSeconds)
	}
	for i := range 200 { // 20 a second for 10 seconds
		m.Tick(now.Add(time.Duration(i) * 50 * time.Millisecond))
	}
	now = now.Add(9 * time.Second)
	if got := m.PerSecond(now); got != 20 {
		t.Errorf("%v a second, want 20", got)
	}
	for _, c := range []struct {
		jobs float64
		want int
	}{{0.1, 1}, {100, 5}, {101, 6}, {1000, 50}, {100_000, maxRetryAfter}} {
		if got := m.RetryAfter(now, c.jobs); got != c.want {
			t.Errorf("%v jobs at 20 a second: retry after %d s, want %d", c.jobs, got, c.want)
		}
	}
	if got := m.PerSecond(now.Add(time.Hour)); got != 0 {
		t.Errorf("an hour later: %v a second, want 0", got)
	}
}
