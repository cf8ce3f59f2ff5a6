package routing

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a router; nil counts nothing.
type Metrics struct{ failovers prometheus.Counter }

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{failovers: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gradefleet_session_failovers_total", Help: "Sessions that this gateway gave to another worker since their owner was gone.",
	})}
	r.MustRegister(m.failovers)
	return m
}

func (m *Metrics) failover() {
	if m != nil {
		m.failovers.Inc()
	}
}
