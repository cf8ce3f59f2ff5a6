package roster

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// register adds the metrics of the roster:
//
//   - gradefleet_workers_live: live workers, draining ones included
//   - gradefleet_workers_slots: their slots
func (r *Roster) register(reg prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gradefleet_workers_live",
			Help: "Workers whose heartbeat this gateway has seen lately, draining ones included.",
		}, func() float64 { return float64(len(r.Snapshot())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gradefleet_workers_slots",
			Help: "Slots of the live workers: how many jobs the fleet runs at once.",
		}, func() float64 {
			slots := 0
			for _, w := range r.Snapshot() {
				slots += w.Slots
			}
			return float64(slots)
		}),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics of the roster: %w", err)
		}
	}
	return nil
}
