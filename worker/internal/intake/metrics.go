package intake

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Metrics of the jobs of one worker.
type Metrics struct {
	jobs    *prometheus.CounterVec
	wait    *prometheus.HistogramVec
	seconds *prometheus.HistogramVec
	busy    prometheus.Gauge
	again   *prometheus.CounterVec
}

// jobBuckets reach from a trivial submission to the longest budget, in seconds.
var jobBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer, slots int) *Metrics {
	m := &Metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_worker_jobs_total", Help: "Jobs that this worker was given, by kind and by how they ended here.",
		}, []string{"kind", "outcome"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gradefleet_queue_wait_seconds", Help: "Time from the gateway's publish to a slot.", Buckets: jobBuckets,
		}, []string{"kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gradefleet_execution_seconds", Help: "Time a job held its slot.", Buckets: jobBuckets,
		}, []string{"kind"}),
		again: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_redeliveries_total", Help: "Jobs that this worker was given after another delivery had ended without an acknowledgement: a worker died, was cut off or gave them back.",
		}, []string{"kind"}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{Name: "gradefleet_slots_busy", Help: "Slots that run a job now."}),
	}
	total := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gradefleet_slots", Help: "Jobs that this worker runs at once."})
	total.Set(float64(slots))
	for _, kind := range []protocol.Kind{protocol.Evaluate, protocol.Run} {
		m.again.WithLabelValues(string(kind)) // shown as 0 from the start
	}
	r.MustRegister(m.jobs, m.wait, m.seconds, m.busy, m.again, total)
	return m
}

func (m *Metrics) ended(kind protocol.Kind, outcome string) {
	m.jobs.WithLabelValues(string(kind), outcome).Inc()
}
