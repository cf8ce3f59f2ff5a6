package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// metrics of what jobs came to and of the sessions on disk.
type metrics struct {
	cases    *prometheus.CounterVec
	outcomes *prometheus.CounterVec
	restarts prometheus.Counter
}

func newMetrics(r prometheus.Registerer, n *Node) *metrics {
	m := &metrics{
		cases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_cases_total", Help: "Cases graded, by status.",
		}, []string{"status"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_job_outcomes_total", Help: "Jobs carried out, by kind and by what became of them: ok, invalid, timeout, output_limit.",
		}, []string{"kind", "outcome"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_fork_server_restarts_total", Help: "Fork servers started again after they were lost.",
		}),
	}
	for _, s := range protocol.CaseStatuses {
		m.cases.WithLabelValues(string(s))
	}
	sessions := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_sessions", Help: "Sessions that this worker owns.",
	}, func() float64 { count, _ := n.store.Stats(); return float64(count) })
	bytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_session_bytes", Help: "Bytes in the sessions that this worker owns, as of their last change through the API or job.",
	}, func() float64 { _, b := n.store.Stats(); return float64(b) })
	r.MustRegister(m.cases, m.outcomes, m.restarts, sessions, bytes)
	return m
}
