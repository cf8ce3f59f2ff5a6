// Package growth measures what a fleet costs as it grows: a real NATS server and
// a real gateway as processes, driven over HTTP, and simulated workers in a
// process of their own, which speak the real protocol and sleep for as long as a
// job says. The jobs are mixed in length, and so long on average that fleets of
// every size get the same number of them a second: what a job costs more in a
// larger fleet is the fleet's doing.
package growth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/localfleet"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/logging"
	"github.com/gradefleet/gradefleet/worker/simulate"
)

// Config of a measurement.
type Config struct {
	Workers  []int          `name:"workers" default:"1,10,100,1000" help:"Numbers of workers, each measured on its own."`
	Slots    int            `name:"slots" default:"2" help:"Slots of each worker."`
	Jobs     int            `name:"jobs" default:"100000" help:"Jobs for each number of workers, a part at a steady rate and the rest with all slots busy; fewer where they would take longer than --most."`
	Rate     float64        `name:"rate" default:"2000" help:"Jobs a second that keep all slots busy; the mean length of a job follows, but is 10 ms at least."`
	Load     float64        `name:"load" default:"0.6" help:"The steady part's rate, as a part of that."`
	Sessions int            `name:"sessions" default:"2000" help:"Sessions made by a first write."`
	Idle     time.Duration  `name:"idle" default:"5s" help:"Time to measure a fleet without work."`
	Most     time.Duration  `name:"most" default:"40s" help:"Longest time for each part."`
	Servers  int            `name:"servers" default:"1" help:"NATS servers: 1, or 3 as a cluster that keeps three copies."`
	Binaries string         `name:"binaries" default:"bin" type:"path" help:"Directory of gradefleet, gateway and nats-server."`
	JSON     bool           `name:"json" help:"Print JSON instead of a table."`
	Simulate int            `name:"simulate" hidden:"" help:"Be so many workers instead, at NATS_URL."`
	NATS     bus.Config     `embed:""`
	Log      logging.Config `embed:""`
}

func (c Config) validate() error {
	for _, n := range c.Workers {
		if n < 1 || n > maxWorkers {
			return fmt.Errorf("check --workers: %d, want 1 to %d", n, maxWorkers)
		}
	}
	switch {
	case c.Slots < 1 || c.Slots > 64:
		return fmt.Errorf("check --slots: %d, want 1 to 64", c.Slots)
	case c.Servers != 1 && c.Servers != 3:
		return fmt.Errorf("check --servers: %d, want 1 or 3", c.Servers)
	case c.Jobs < 100:
		return fmt.Errorf("check --jobs: %d, want 100 or more", c.Jobs)
	case !(c.Rate >= 1 && c.Rate <= 100_000):
		return fmt.Errorf("check --rate: %v, want 1 to 100000", c.Rate)
	case !(c.Load > 0 && c.Load < 1):
		return fmt.Errorf("check --load: %v, want more than 0 and less than 1", c.Load)
	case c.Sessions < 1 || c.Idle <= 0 || c.Most <= 0:
		return errors.New("check --sessions, --idle and --most: want more than 0")
	}
	return nil
}

const (
	// maxWorkers is what the descriptors of one process are enough for.
	maxWorkers = 5000
	// joining is how many simulated workers join at the same time.
	joining = 50
	// minMean is the shortest mean length of jobs: with shorter ones a slot
	// would mostly wait for its next.
	minMean = 10 * time.Millisecond
	// joinTimeout is how long all workers may take to join.
	joinTimeout = 2 * time.Minute
)

// Run measures and prints, or is the simulated workers.
func Run(ctx context.Context, cfg Config, out, logTo io.Writer) error {
	if cfg.Simulate > 0 {
		log, err := logging.New(cfg.Log, logTo)
		if err != nil {
			return err
		}
		return simulate.Run(ctx, simulate.Config{
			Workers: cfg.Simulate, Slots: cfg.Slots, NATS: cfg.NATS, Joining: joining, Log: log,
		}, func() { log.Info("all joined", "workers", cfg.Simulate) })
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	var all []*size
	var failure error // what was measured before it is told all the same
	for _, n := range cfg.Workers {
		s, err := measure(ctx, cfg, n)
		if err != nil {
			failure = fmt.Errorf("measure %d workers: %w", n, err)
			break
		}
		all = append(all, s)
		if !cfg.JSON {
			fmt.Fprintf(logTo, "%d workers measured in %.0f s\n", n, s.Seconds)
		}
	}
	if len(all) == 0 {
		return failure
	}
	if cfg.JSON {
		return errors.Join(failure, printJSON(out, cfg, all))
	}
	return errors.Join(failure, printTable(out, all))
}

// fleet is what is measured.
type fleet struct {
	*localfleet.Fleet
	workers, slots int
	pids           map[string][]int // by part: gateway, nats, workers
	api            *client
}

// measure measures a fleet of n workers.
func measure(ctx context.Context, cfg Config, n int) (_ *size, err error) {
	begun := time.Now()
	slots := n * cfg.Slots
	control, err := localfleet.Control(ctx, localfleet.ControlConfig{
		Binaries: cfg.Binaries, Servers: cfg.Servers,
		QueueLimit: max(bus.DefaultQueueLimit, 4*slots),
		// One caller, which is this process, keeps all slots busy.
		Env: []string{"GRADEFLEET_CALLER_INFLIGHT=-1"},
	})
	if err != nil {
		return nil, err
	}
	f := &fleet{Fleet: control, workers: n, slots: slots, api: newClient(control.URL)}
	defer func() {
		f.api.close()
		err = errors.Join(err, f.Stop())
	}()
	s := &size{Workers: n, Slots: slots}
	if s.Join, err = f.join(ctx, cfg); err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error { return s.idle(ctx, f, cfg.Idle) },
		func() error { return s.place(ctx, f, cfg.Sessions) },
		func() error { return s.work(ctx, f, cfg) },
		func() error { return s.memory(f) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	s.Seconds = time.Since(begun).Seconds()
	return s, nil
}

// join starts the workers and waits until the gateway sees them all.
func (f *fleet) join(ctx context.Context, cfg Config) (seconds float64, err error) {
	begun := time.Now()
	p, err := f.Join(cfg.Binaries, "gradefleet", "growth", "--simulate", fmt.Sprint(f.workers), "--slots", fmt.Sprint(cfg.Slots), "--log-level", "warn")
	if err != nil {
		return 0, err
	}
	for deadline := begun.Add(joinTimeout); ; {
		heartbeats, err := f.api.workers(ctx)
		if err != nil {
			return 0, err
		}
		if len(heartbeats) == f.workers {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("only %d workers joined within %v\n%s", len(heartbeats), joinTimeout, p.Log())
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-p.Ended():
			return 0, fmt.Errorf("the simulated workers ended by themselves\n%s", p.Log())
		case <-time.After(100 * time.Millisecond):
		}
	}
	f.pids = map[string][]int{gateway: f.PidsOf("gateway"), nats: f.PidsOf("nats-server"), workers: {p.Pid()}}
	return time.Since(begun).Seconds(), nil
}
