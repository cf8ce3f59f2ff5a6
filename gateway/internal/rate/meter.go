// Package rate measures how fast jobs are answered, and says from that when it
// pays to try again.
package rate

import (
	"math"
	"sync"
	"time"
)

// Meter counts the results of the last seconds.
type Meter struct {
	mu      sync.Mutex
	counts  [meterSeconds]int64
	seconds [meterSeconds]int64 // which second a count is of
}

// meterSeconds is how far back a meter looks.
const meterSeconds = 10

// maxRetryAfter is the longest wait we ask for, in seconds.
const maxRetryAfter = 60

// Tick counts a result.
func (m *Meter) Tick(now time.Time) {
	s := now.Unix()
	i := s % meterSeconds
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seconds[i] != s {
		m.seconds[i], m.counts[i] = s, 0
	}
	m.counts[i]++
}

// PerSecond is the rate over the last seconds.
func (m *Meter) PerSecond(now time.Time) float64 {
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

// RetryAfter estimates, in whole seconds from 1 to a minute, when so many jobs
// will have been worked off at the rate of this gateway's own results.
func (m *Meter) RetryAfter(now time.Time, jobs float64) int {
	return RetryAfter(jobs, m.PerSecond(now))
}

// RetryAfter is the same at a rate that another has measured.
func RetryAfter(jobs, perSecond float64) int {
	if perSecond <= 0 {
		return meterSeconds // nothing has finished for so long
	}
	return int(min(max(math.Ceil(jobs/perSecond), 1), maxRetryAfter))
}
