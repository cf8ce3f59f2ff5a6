package workcopy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of working copies; nil counts nothing.
type Metrics struct {
	restores      prometheus.Histogram
	restoredBytes prometheus.Counter
	scans         prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		restores: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gradefleet_session_restore_seconds", Help: "Time to restore a session from what is stored, when this worker became its owner.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		restoredBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_session_restored_bytes_total", Help: "Bytes of files restored.",
		}),
		scans: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gradefleet_session_scan_seconds", Help: "Time to find and store the contents that a job changed in its session.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
	}
	r.MustRegister(m.restores, m.restoredBytes, m.scans)
	return m
}

func (m *Metrics) restored(bytes int64, took time.Duration) {
	if m != nil {
		m.restores.Observe(took.Seconds())
		m.restoredBytes.Add(float64(bytes))
	}
}

func (m *Metrics) scanned(took time.Duration) {
	if m != nil {
		m.scans.Observe(took.Seconds())
	}
}
