package chaos

import (
	"reflect"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

// A seed repeats its schedule; another one has another.
func TestScheduleRepeats(t *testing.T) {
	p := Plan{Seed: 7, For: 2 * time.Minute, Gateways: 2, Workers: 3, LoseDisks: true}
	first := p.Schedule()
	if again := p.Schedule(); !reflect.DeepEqual(first, again) {
		t.Error("the same seed made another schedule")
	}
	p.Seed = 8
	if reflect.DeepEqual(first, p.Schedule()) {
		t.Error("another seed made the same schedule")
	}
}

// There is always a majority of NATS servers, a gateway and a worker without a
// fault; over some seeds, everything there is to do is done.
func TestScheduleLeavesEnough(t *testing.T) {
	done := map[procs.Class]map[Action]bool{procs.NATS: {}, procs.Gateway: {}, procs.Worker: {}}
	for seed := range uint64(30) {
		p := Plan{Seed: seed, For: 2 * time.Minute, Gateways: 2, Workers: 3, LoseDisks: true}
		faults := p.Schedule()
		if len(faults) < 20 {
			t.Errorf("seed %d: %d faults in 2 minutes", seed, len(faults))
		}
		for i, f := range faults {
			done[f.Class][f.Action] = true
			if f.At+f.For > p.For {
				t.Errorf("seed %d: %v outlasts the load", seed, f)
			}
			at := map[procs.Class]int{}
			for _, other := range faults[:i+1] {
				if other.At+other.For >= f.At {
					at[other.Class]++
				}
			}
			if at[procs.NATS] > 1 || at[procs.Gateway] > 1 || at[procs.Worker] > 2 {
				t.Errorf("seed %d, at %v: %v in trouble", seed, f.At, at)
			}
		}
	}
	for class, actions := range choices {
		for _, a := range actions {
			if !done[class][a] {
				t.Errorf("%s: never %s", class, a)
			}
		}
	}
	if !done[procs.Worker][Disk] {
		t.Error("no worker ever lost its disk")
	}
}
