package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	callers  *callers
}

func register(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_http_requests_total",
			Help: "Requests answered, by route (unknown paths are one), method and status; 499 is a caller that went away.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gradefleet_http_request_seconds",
			Help:    "Time from a request's headers to its answer, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 15), // 0.5 ms to 186 s
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gradefleet_http_in_flight",
			Help: "Requests that are being answered.",
		}),
		callers: newCallers(time.Now),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.callers} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the API: %w", err)
		}
	}
	return m, nil
}

// observe counts a request. route is the pattern, "" for an unknown path.
func (m *metrics) observe(route, method string, status int, took time.Duration) {
	if route == "" {
		route = "unknown"
	}
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
	default:
		method = "other" // a caller can invent any
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
