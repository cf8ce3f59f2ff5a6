package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// isolationCollector tells the level in force, which the self-test decides
// after the metrics are registered.
func isolationCollector(p *sandbox.Policy) prometheus.Collector {
	return infoFunc{prometheus.NewDesc("gradefleet_isolation_info", "Always 1; the label says which isolation level is in force.", []string{"level"}, nil),
		func() string { return string(p.Level()) }}
}

// infoFunc is a gauge of 1 whose label's value is looked up when asked for.
type infoFunc struct {
	desc  *prometheus.Desc
	value func() string
}

func (i infoFunc) Describe(ch chan<- *prometheus.Desc) { ch <- i.desc }

func (i infoFunc) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(i.desc, prometheus.GaugeValue, 1, i.value())
}

// metrics of what jobs came to and of the sessions on disk.
type metrics struct {
	cases    *prometheus.CounterVec
	outcomes *prometheus.CounterVec
	restarts prometheus.Counter
	lent     prometheus.Counter
	marks    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, n *Node) *metrics {
	m := &metrics{
		cases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_cases_total", Help: "Cases graded, by status.",
		}, []string{"status"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_job_outcomes_total", Help: "Jobs carried out, by kind and by what became of them: ok, invalid, timeout, output_limit.",
		}, []string{"kind", "outcome"}),
		lent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_slots_lent_total", Help: "Times a free slot helped an evaluation on another slot.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_fork_server_restarts_total", Help: "Fork servers started again after they were lost.",
		}),
	}
	m.marks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gradefleet_integrity_marks_total", Help: "Cases and commands that were seen trying something, by what: subclass, early_exit, result_channel, equals_anything, blocked_call.",
	}, []string{"mark"})
	for _, mark := range execute.Marks {
		m.marks.WithLabelValues(mark)
	}
	layers := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gradefleet_isolation_layer", Help: "Layers of the sandbox: 1 in force, 0 not.",
	}, []string{"layer"})
	for layer, on := range n.policy.InForce() {
		value := 0.0
		if on {
			value = 1
		}
		layers.WithLabelValues(string(layer)).Set(value)
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
	quota := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gradefleet_session_quota_bytes", Help: "What the files of one session may take up; 0 if there is no limit.",
	})
	quota.Set(float64(n.cfg.SessionBytes))
	largest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_session_largest_bytes", Help: "Bytes in the largest of the sessions that this worker owns.",
	}, n.largestSession)
	free := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_data_free_bytes", Help: "Room left on the disk of the data directory.",
	}, func() float64 { return float64(freeBytes(n.cfg.Data)) })
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_data_size_bytes", Help: "Size of the disk of the data directory.",
	}, func() float64 { return float64(sizeBytes(n.cfg.Data)) })
	r.MustRegister(m.cases, m.outcomes, m.restarts, m.lent, m.marks, layers, isolationCollector(n.policy), sessions, bytes, quota, largest, free, size)
	return m
}

// largestSession is looked for at each scrape; nothing is walked.
func (n *Node) largestSession() float64 {
	var most int64
	for _, s := range n.store.List() {
		most = max(most, s.Usage().Bytes)
	}
	return float64(most)
}
