package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// How a job ended, for the caller.
const (
	answered    = "answered"     // by a result, whatever its status
	timeout     = "timeout"      // 504
	cancelled   = "cancelled"    // the caller went away
	rejected    = "rejected"     // 429: the queue was full
	callerLimit = "caller_limit" // 429: the caller had as many waiting as he may
	unavailable = "unavailable"  // 503
	failed      = "error"        // anything else
)

type metrics struct {
	published  *prometheus.CounterVec
	done       *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	duplicates prometheus.Counter
	exhausted  prometheus.Counter
}

func register(reg prometheus.Registerer, jobs, backlog jetstream.Stream) (*metrics, error) {
	m := &metrics{
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_jobs_published_total",
			Help: "Jobs that this gateway published, by kind.",
		}, []string{"kind"}),
		done: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_jobs_ended_total",
			Help: "Jobs of this gateway that ended, by kind and outcome.",
		}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gradefleet_job_seconds",
			Help:    "Time from a job's publication to its result, waiting in the queue included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 14), // 1 ms to 150 s
		}, []string{"kind"}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_duplicate_results_total",
			Help: "Results dropped since their job had been answered or given up before.",
		}),
		exhausted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gradefleet_jobs_exhausted_total",
			Help: "Jobs answered 500 since every worker that got them died or gave up.",
		}),
	}
	for _, kind := range []protocol.Kind{protocol.Evaluate, protocol.Run} {
		m.published.WithLabelValues(string(kind))
		for _, outcome := range []string{answered, timeout, cancelled, rejected, callerLimit, unavailable, failed} {
			m.done.WithLabelValues(string(kind), outcome) // shown as 0 from the start
		}
	}
	for _, c := range []prometheus.Collector{m.published, m.done, m.seconds, m.duplicates, m.exhausted, depth{jobs, backlog}} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of dispatch: %w", err)
		}
	}
	return m, nil
}

// Ended counts a job that ended before it was published.
func (d *Dispatcher) Ended(kind protocol.Kind, err error) { d.metrics.ended(kind, err, 0) }

func (m *metrics) ended(kind protocol.Kind, err error, took time.Duration) {
	outcome := failed
	var f *fault.Error
	switch {
	case err == nil:
		outcome = answered
		m.seconds.WithLabelValues(string(kind)).Observe(took.Seconds())
	case errors.As(err, &f):
		switch f.Status {
		case 504:
			outcome = timeout
		case fault.StatusClientClosed:
			outcome = cancelled
		case 429:
			outcome = rejected
			if errors.Is(err, errOwnLimit) {
				outcome = callerLimit
			}
		case 503:
			outcome = unavailable
		}
	}
	m.done.WithLabelValues(string(kind), outcome).Inc()
}

// depthTimeout is how long a scrape waits for JetStream.
const depthTimeout = 500 * time.Millisecond

// depth asks JetStream at each scrape how many jobs its queues hold; nothing
// is shown when it doesn't answer in time.
type depth struct{ jobs, backlog jetstream.Stream }

var depthDesc = prometheus.NewDesc("gradefleet_queue_depth",
	"Jobs that wait or run, by queue: the shared one (evaluate), all workers' own together (worker), bulk, and what waits to come to that (backlog).",
	[]string{"queue"}, nil)

// Describe implements prometheus.Collector.
func (depth) Describe(ch chan<- *prometheus.Desc) { ch <- depthDesc }

// Collect implements prometheus.Collector.
func (d depth) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), depthTimeout)
	defer cancel()
	info, err := d.jobs.Info(ctx, jetstream.WithSubjectFilter(protocol.JobsSubjects))
	if err != nil {
		return
	}
	var shared, owned, bulk uint64
	for subject, n := range info.State.Subjects {
		switch subject {
		case protocol.EvaluateQueue:
			shared += n
		case protocol.BulkQueue:
			bulk += n
		default:
			owned += n
		}
	}
	ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(shared), "evaluate")
	ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(owned), "worker")
	ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(bulk), "bulk")
	if info, err = d.backlog.Info(ctx); err == nil {
		ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(info.State.Msgs), "backlog")
	}
}
