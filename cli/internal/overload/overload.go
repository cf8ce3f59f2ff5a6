// Package overload drives a fleet of its own with several times the requests it
// can answer, for a minute, and checks what then counts: every answer is right or
// a 429, those let in wait no longer than what may wait for them takes, and
// memory stays flat.
package overload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/localfleet"
	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

// Config of a run.
type Config struct {
	Binaries string        `name:"binaries" default:"bin" type:"path" help:"Directory of gateway, worker and nats-server."`
	Times    float64       `name:"times" default:"4" help:"Requests sent, as a multiple of what the fleet answers."`
	For      time.Duration `name:"for" default:"60s" help:"How long."`
	Waiting  int           `name:"waiting" default:"400" help:"The fleet's waiting-limit: jobs that may wait in the gateway."`
	Slots    int           `name:"slots" default:"2" help:"Slots of the worker."`
}

const (
	// capacityTime is how long the fleet's own speed is measured, with
	// capacityClients that each send one request after the other.
	capacityTime    = 5 * time.Second
	capacityClients = 16
	// tick is how often requests are sent: as many as are due.
	tick = 5 * time.Millisecond
	// maxOutstanding bounds the requests without an answer, so that a fleet that
	// doesn't answer can't take all memory. It is far above what may wait.
	maxOutstanding = 20_000
	// settle is when memory is first looked at: buffers have their size by then.
	settle = 10 * time.Second
	// growth and growthBytes are how much more memory may be in use at the end
	// than after settle: the noise of a garbage-collected heap.
	growth      = 1.25
	growthBytes = 32 << 20
	// slack is how far the slowest hundredth may be above what the bound says:
	// the load is on the same machine, and throughput isn't even.
	slack = 1.5
)

// ErrFailed is in the chain of Run's error if the fleet did not hold.
var ErrFailed = errors.New("the fleet did not hold")

// Run does all of that and prints a report.
func Run(ctx context.Context, cfg Config, out io.Writer) (err error) {
	fleet, err := localfleet.Separate(ctx, localfleet.Config{
		Binaries: cfg.Binaries, Slots: cfg.Slots,
		Env: []string{fmt.Sprint("GRADEFLEET_WAITING_LIMIT=", cfg.Waiting), "GRADEFLEET_CALLER_INFLIGHT=-1"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Stop()) }()
	c := newClient(fleet.URL)
	defer c.close()
	capacity, err := c.capacity(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d clients, one request after the other: %.0f answers a second; now %.0f a second for %v, %d may wait\n",
		capacityClients, capacity, cfg.Times*capacity, cfg.For, cfg.Waiting)
	m := &memory{fleet: fleet}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() { m.watch(ctx) })
	c.flood(ctx, cfg.Times*capacity, cfg.For)
	cancel()
	watching.Wait()
	return report(out, cfg, c, m)
}

// flood sends so many requests a second, whatever becomes of them, and waits for
// the last answer.
func (c *client) flood(ctx context.Context, rate float64, length time.Duration) {
	var outstanding sync.WaitGroup
	var count atomic.Int64
	begun := time.Now()
	clock := time.NewTicker(tick)
	defer clock.Stop()
	sent := 0
	for ctx.Err() == nil {
		passed := time.Since(begun)
		if passed >= length {
			break
		}
		for due := int(passed.Seconds() * rate); sent < due; sent++ {
			if count.Load() >= maxOutstanding {
				c.skipped++
				continue
			}
			count.Add(1)
			outstanding.Go(func() {
				c.request(ctx)
				count.Add(-1)
			})
		}
		<-clock.C
	}
	c.sending = time.Since(begun)
	outstanding.Wait()
}

// report prints what was seen and returns what was wrong with it.
func report(out io.Writer, cfg Config, c *client, m *memory) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.took)
	at := func(p float64) time.Duration {
		if len(c.took) == 0 {
			return 0
		}
		return c.took[int(p*float64(len(c.took)-1))].Round(time.Millisecond)
	}
	throughput := float64(len(c.took)) / c.sending.Seconds()
	bound := time.Duration(float64(cfg.Waiting) / max(throughput, 1e-9) * float64(time.Second)).Round(time.Millisecond)
	fmt.Fprintf(out, "accepted and right: %d (%.0f a second), refused with 429: %d, anything else: %d, not sent: %d\n",
		len(c.took), throughput, c.refused, len(c.errors), c.skipped)
	fmt.Fprintf(out, "accepted requests took: p50 %v, p99 %v, longest %v; %d that wait at this rate take %v\n", at(0.5), at(0.99), at(1), cfg.Waiting, bound)
	fmt.Fprintf(out, "Retry-After of refusals: %d to %d s\n", c.retryMin, c.retryMax)
	var errs []error
	for i, name := range m.names {
		first, last, most := m.first[i], m.last[i], m.most[i]
		fmt.Fprintf(out, "memory of %s: %d MB after %v, %d MB at the end, %d MB at most\n", name, first>>20, settle, last>>20, most>>20)
		if float64(last) > growth*float64(first)+growthBytes {
			errs = append(errs, fmt.Errorf("%w: %s grew from %d to %d MB", ErrFailed, name, first>>20, last>>20))
		}
	}
	for _, e := range c.errors[:min(len(c.errors), 5)] {
		errs = append(errs, fmt.Errorf("%w: %s", ErrFailed, e))
	}
	if len(c.took) == 0 || c.refused == 0 {
		errs = append(errs, fmt.Errorf("%w: %d accepted, %d refused: this was no overload", ErrFailed, len(c.took), c.refused))
	}
	if most := time.Duration(slack * float64(bound)); at(0.99) > most {
		errs = append(errs, fmt.Errorf("%w: the slowest hundredth took %v or more, %v would be right", ErrFailed, at(0.99), most))
	}
	return errors.Join(errs...)
}

// memory is what the fleet's processes have in use, their own pages.
type memory struct {
	fleet             *localfleet.Fleet
	names             []string
	first, last, most []int64
}

// watch looks each second until ctx is done.
func (m *memory) watch(ctx context.Context) {
	processes := m.fleet.Processes()
	m.first, m.last, m.most = make([]int64, len(processes)), make([]int64, len(processes)), make([]int64, len(processes))
	for _, p := range processes {
		m.names = append(m.names, p.Name)
	}
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	settled := time.Now().Add(settle)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-clock.C:
			for i, p := range processes {
				used, err := proctable.ReadMemory(p.Pid())
				if err != nil {
					continue
				}
				if m.first[i] == 0 && now.After(settled) {
					m.first[i] = used.Private
				}
				m.last[i], m.most[i] = used.Private, max(m.most[i], used.Private)
			}
		}
	}
}
