package server

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/admit"
)

// registerInfo adds gradefleet_gateway_info, whose label names the build.
func registerInfo(reg prometheus.Registerer, build string) error {
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "gradefleet_gateway_info",
		Help:        "Always 1; the label says which build of the gateway this is.",
		ConstLabels: prometheus.Labels{"build": build},
	}, func() float64 { return 1 })
	if err := reg.Register(info); err != nil {
		return fmt.Errorf("register metrics of the gateway: %w", err)
	}
	return nil
}

// registerWaiting adds gradefleet_jobs_waiting.
func registerWaiting(reg prometheus.Registerer, gate *admit.Gate) error {
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_jobs_waiting",
		Help: "Jobs that wait in this gateway for their caller's turn, beside those in the queues.",
	}, func() float64 { return float64(gate.Waiting()) })
	if err := reg.Register(waiting); err != nil {
		return fmt.Errorf("register metrics of the gateway: %w", err)
	}
	return nil
}
