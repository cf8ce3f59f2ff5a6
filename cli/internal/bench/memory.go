package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

// memoryReport is the memory of some processes that have nothing to do, in MB
// of 2^20 bytes.
type memoryReport struct {
	What string `json:"what"`
	// RSS counts pages that processes share once for each of them, PSS once in
	// all, Private not at all.
	PSS       float64 `json:"pss_mb"`
	Private   float64 `json:"private_mb"`
	RSS       float64 `json:"rss_mb"`
	Processes string  `json:"processes"`
}

// settle is how long a fleet is left alone before its memory is read: after its
// last job a slot forks a child ahead of need.
const settle = 500 * time.Millisecond

// memory reads what an idle slot takes, and the other processes, of the fleet of
// separate processes if there is one. Everything else is ended first: PSS shares
// a page among all processes that have it, and a fleet by itself shares less.
func (o *own) memory() ([]memoryReport, error) {
	name := nameProcesses
	f := o.fleets[name]
	if f == nil {
		name = nameFleet
		f = o.fleets[name]
	}
	if f == nil {
		return nil, nil
	}
	kept := closer{do: f.Stop, fleet: f}
	o.closers = slices.DeleteFunc(o.closers, func(c closer) bool { return c.fleet == f })
	err := o.close()
	o.closers = append(o.closers, kept)
	if err != nil {
		return nil, err
	}
	time.Sleep(settle)
	slots, err := f.Slots()
	if err != nil {
		return nil, err
	}
	var all []memoryReport
	var ofSlots proctable.Memory
	var names []string
	for _, p := range slots {
		m, err := proctable.ReadMemory(p.Pid)
		if os.IsNotExist(err) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		ofSlots = ofSlots.Add(m)
		names = append(names, p.Name)
	}
	slices.Sort(names)
	all = append(all, newMemoryReport(fmt.Sprintf("a slot of %s, of %d", name, o.slots), ofSlots, float64(o.slots),
		fmt.Sprintf("of all slots: %s", strings.Join(names, " "))))
	for _, p := range f.Processes() {
		m, err := proctable.ReadMemory(p.Pid())
		if err != nil {
			return nil, err
		}
		all = append(all, newMemoryReport(p.Name, m, 1, "itself"))
	}
	return all, nil
}

func newMemoryReport(what string, m proctable.Memory, by float64, processes string) memoryReport {
	mb := func(bytes int64) float64 { return float64(bytes) / (1 << 20) / by }
	return memoryReport{What: what, PSS: mb(m.PSS), Private: mb(m.Private), RSS: mb(m.RSS), Processes: processes}
}
