package durable

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The kinds of writes that are counted.
const (
	journalPut = "journal"
	blobPut    = "blob"
)

// Metrics of what is stored and collected.
type Metrics struct {
	putBytes   *prometheus.CounterVec
	putSeconds *prometheus.HistogramVec
	load       prometheus.Histogram
	collected  prometheus.Counter
	expired    prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		putBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_stored_bytes_total", Help: "Bytes stored of durable sessions, by kind: journal, blob.",
		}, []string{"kind"}),
		putSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gradefleet_store_seconds", Help: "Time until JetStream had stored a message of a durable session, by kind: journal, blob.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}, []string{"kind"}),
		load: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gradefleet_journal_load_seconds", Help: "Time to read the journal of a session.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
		collected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_collected_blobs_total", Help: "Blobs removed since no session named them.",
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_expired_sessions_total", Help: "Sessions removed since they were idle for their time to live.",
		}),
	}
	for _, kind := range []string{journalPut, blobPut} {
		m.putBytes.WithLabelValues(kind)
		m.putSeconds.WithLabelValues(kind)
	}
	r.MustRegister(m.putBytes, m.putSeconds, m.load, m.collected, m.expired)
	return m
}

func (m *Metrics) put(kind string, bytes int, took time.Duration) {
	if m != nil {
		m.putBytes.WithLabelValues(kind).Add(float64(bytes))
		m.putSeconds.WithLabelValues(kind).Observe(took.Seconds())
	}
}

func (m *Metrics) loaded(took time.Duration) {
	if m != nil {
		m.load.Observe(took.Seconds())
	}
}

func (m *Metrics) collect() {
	if m != nil {
		m.collected.Inc()
	}
}

// Expired counts a session that was removed since it was idle.
func (m *Metrics) Expired() {
	if m != nil {
		m.expired.Inc()
	}
}
