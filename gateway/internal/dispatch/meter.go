package dispatch

import (
	"sync"
	"time"
)

// meter counts the results of the last seconds.
type meter struct {
	mu      sync.Mutex
	counts  [meterSeconds]int64
	seconds [meterSeconds]int64 // which second a count is of
}

// meterSeconds is how far back a meter looks.
const meterSeconds = 10

// maxRetryAfter is the longest wait we ask for, in seconds.
const maxRetryAfter = 60

func (m *meter) tick(now time.Time) {
	s := now.Unix()
	i := s % meterSeconds
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seconds[i] != s {
		m.seconds[i], m.counts[i] = s, 0
	}
	m.counts[i]++
}

// perSecond is the rate over the last seconds.
func (m *meter) perSecond(now time.Time) float64 {
	oldest := now.Unix() - meterSeconds
	var sum int64
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range m.seconds {
		if s > oldest {
			sum += m.counts[i]
		}
	}
	return float64(sum) / meterSeconds
}

// retryAfter estimates, in whole seconds of at least 1, when a tenth of a full
// queue will have been worked off at the rate of this gateway's own results. By
// then it pays to try again; others who wait will have been let in before.
func (m *meter) retryAfter(now time.Time, limit int64) int {
	rate := m.perSecond(now)
	if rate == 0 {
		return meterSeconds // nothing has finished for so long
	}
	return int(min(max(float64(limit)/10/rate, 1), maxRetryAfter))
}
