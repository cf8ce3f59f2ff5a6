package dispatch

import (
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A result is a plain message. In a cluster it is lost when the connection between
// two NATS servers breaks, which neither its worker nor its gateway notices. So a
// gateway asks for the results that it waits long for: workers remember what they
// sent of late. An evaluate that is no longer in the stream has had its result
// sent; if nobody has that any more, the caller is told to ask again.

const (
	// overdueInterval is how often results are asked for, and how long they are
	// waited for before.
	overdueInterval = 3 * time.Second
	// maxAsked is how many ids one message asks for: it stays small.
	maxAsked = 1000
	// maxOverdueLooks bounds how many jobs are looked up at a time: they come with
	// their bodies.
	maxOverdueLooks = 50
)

// watchOverdue asks until the dispatcher is closed.
func (d *Dispatcher) watchOverdue() {
	defer d.watching.Done()
	tick := time.NewTicker(d.overdueInterval)
	defer tick.Stop()
	for {
		select {
		case <-d.closing:
			return
		case <-tick.C:
		}
		jobs := d.awaiting(d.overdueInterval)
		d.askAgain(jobs)
		looks := 0
		for _, p := range jobs {
			if p.kind != protocol.Evaluate || p.sequence.Load() == 0 {
				continue
			}
			if looks++; looks > maxOverdueLooks {
				break
			}
			// Missed twice: the first time its result may have been on its way.
			missing := !d.queued(p)
			if missing && p.missing && d.take(p.id) != nil {
				d.cfg.Log.Warn("result lost: its job is not in the queue any more", "job", p.id)
				p.answer <- *resultLost()
			}
			p.missing = missing
		}
	}
}

// awaiting returns the jobs that have been pending for so long.
func (d *Dispatcher) awaiting(least time.Duration) (jobs []*pending) {
	before := time.Now().Add(-least)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pending {
		if p.since.Before(before) {
			jobs = append(jobs, p)
		}
	}
	return jobs
}

// askAgain asks all workers to send the results of jobs again, if they have sent
// them of late.
func (d *Dispatcher) askAgain(jobs []*pending) {
	select {
	case <-d.closing:
		return
	default:
	}
	for len(jobs) > 0 {
		n := min(len(jobs), maxAsked)
		ids := make([]string, n)
		for i, p := range jobs[:n] {
			ids[i] = p.id
		}
		jobs = jobs[n:]
		if err := d.cfg.NC.Publish(protocol.ResendSubject(d.cfg.Gateway), []byte(strings.Join(ids, "\n"))); err != nil {
			d.cfg.Log.Warn("results are not asked for again", "error", err)
			return
		}
	}
}
