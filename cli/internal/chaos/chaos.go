// Package chaos puts a fleet of real processes under a mixed load while they are
// killed, stopped, cut off and restarted, and proves at the end that nothing was
// lost, doubled or wrong. docs/chaos.md says what is proved and how.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/load"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

// ErrBroken says that a promise was broken; the output has the history.
var ErrBroken = errors.New("the fleet broke a promise")

// Config of a run. The tags are the one definition of flags, environment
// variables, defaults and help.
type Config struct {
	Seed      uint64  `env:"CHAOS_SEED" help:"Seed of the schedule of faults and of the load. 0: one at random, which is printed."`
	Minutes   float64 `env:"CHAOS_MINUTES" default:"2" help:"How long a run takes, about, start and audit included."`
	Bin       string  `env:"CHAOS_BIN" default:"bin" type:"existingdir" help:"Directory of nats-server, gateway and worker."`
	Dir       string  `env:"CHAOS_DIR" help:"Directory for data and logs. Empty: a temporary one, removed at the end of a run without a violation."`
	Isolation string  `env:"CHAOS_ISOLATION" default:"basic" enum:"strict,container,basic" help:"Isolation that the workers ask for: strict, container or basic."`
	Kills     int     `env:"CHAOS_KILLS" default:"50" help:"How many kills the figures are of."`
	Plant     bool    `env:"CHAOS_PLANT" help:"Overwrite a file behind the clients' backs before the end: the run must fail."`
	LoseDisks bool    `env:"CHAOS_LOSE_DISKS" default:"true" negatable:"" help:"Some workers that are killed lose their data directories: only for durable sessions."`
}

const (
	gateways, workers = 2, 3
	// overhead is what starting a fleet and auditing it take of a run.
	overhead = 25 * time.Second
	// settle lets what was under way at the last fault come to its end.
	settle = 3 * time.Second
	// scrapeEvery is how often counters are read, so that few are lost with a process.
	scrapeEvery = 500 * time.Millisecond
	// jobDeadline and fileDeadline are the gateways', below the clients'.
	jobDeadline, fileDeadline = 60 * time.Second, 10 * time.Second
)

// stage is a fleet with what looks at it.
type stage struct {
	cfg     Config
	out     io.Writer
	dir     string
	fleet   *procs.Fleet
	history *history.History
	clients *load.Gateways
	tap     *tap
	keep    bool // the directory
}

// open starts a fleet in a directory of its own.
func open(ctx context.Context, cfg Config, out io.Writer) (*stage, error) {
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64N(1e9) + 1
	}
	s := &stage{cfg: cfg, out: out, dir: cfg.Dir, keep: cfg.Dir != "", history: history.New()}
	var err error
	if s.dir == "" {
		s.dir, err = os.MkdirTemp("", "gradefleet-chaos-")
	} else {
		err = os.MkdirAll(s.dir, 0o711)
	}
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(cfg.Bin)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	s.fleet, err = procs.Start(ctx, procs.Config{Bin: bin, Dir: s.dir, Gateways: gateways, Workers: workers, Env: []string{
		"GRADEFLEET_ISOLATION=" + cfg.Isolation,
		"GRADEFLEET_JOB_DEADLINE=" + jobDeadline.String(),
		"GRADEFLEET_FILE_DEADLINE=" + fileDeadline.String(),
	}})
	if err != nil {
		return nil, fmt.Errorf("start the fleet (logs in %s): %w", s.dir, err)
	}
	fmt.Fprintf(out, "a fleet of %d NATS servers, %d gateways and %d workers is up after %.1f s; data and logs in %s\n",
		len(s.fleet.NATS), gateways, workers, time.Since(begun).Seconds(), s.dir)
	var urls []string
	for _, g := range s.fleet.Gateways {
		urls = append(urls, g.URL)
	}
	s.clients = load.NewGateways(urls)
	if s.tap, err = listen(ctx, s.fleet, s.history); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to the fleet: %w", err), s.fleet.End())
	}
	return s, nil
}

// close ends the fleet. Its directory stays if a promise was broken.
func (s *stage) close(err error) error {
	s.clients.Close()
	s.tap.close()
	err = errors.Join(err, s.fleet.End())
	if err != nil || s.keep {
		fmt.Fprintf(s.out, "data and logs stay in %s\n", s.dir)
		return err
	}
	return os.RemoveAll(s.dir)
}

// Run runs one run.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	s, err := open(ctx, cfg, out)
	if err != nil {
		return err
	}
	return s.close(s.run(ctx))
}

func (s *stage) run(ctx context.Context) error {
	length := max(time.Duration(s.cfg.Minutes*float64(time.Minute))-overhead, 10*time.Second)
	faults := Plan{Seed: s.cfg.Seed, For: length, Gateways: gateways, Workers: workers, LoseDisks: s.cfg.LoseDisks}.Schedule()
	fmt.Fprintf(s.out, "seed %d: %d faults in %.0f s (CHAOS_SEED=%d repeats the schedule)\n", s.cfg.Seed, len(faults), length.Seconds(), s.cfg.Seed)
	totals := procs.NewTotals(s.fleet, counters...)
	bulk := 0
	if s.clients.HasBulk(ctx) {
		bulk = 1
	}
	l := load.New(load.Config{
		Gateways: s.clients, History: s.history, Seed: s.cfg.Seed,
		Graders: 4, Editors: 12, Sessions: 12, SessionOps: 250, Batchers: bulk * 2, Keys: bulk > 0,
	})

	loading, stopLoad := context.WithTimeout(ctx, length)
	defer stopLoad()
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(loading) })
	wg.Go(func() {
		for loading.Err() == nil {
			totals.Scrape()
			wait(loading, scrapeEvery)
		}
	})
	err := s.inflict(loading, faults)
	<-loading.Done()
	err = errors.Join(err, s.fleet.Heal())
	wg.Wait()
	if ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	if err = errors.Join(err, s.fleet.AwaitWhole(ctx)); err != nil {
		return err
	}
	wait(ctx, settle)
	totals.Scrape()
	if s.cfg.Plant {
		if err := s.clients.Write(ctx, 0, l.Any(), history.Paths[0], "planted"); err != nil {
			return err
		}
	}
	l.Audit()
	return s.report(faults, totals)
}

// wait waits, or less if ctx is done first.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// inflict carries out a schedule, each fault at its time.
func (s *stage) inflict(ctx context.Context, faults []Fault) error {
	begun := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, len(faults))
	for i, f := range faults {
		wait(ctx, time.Until(begun.Add(f.At)))
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintln(s.out, f)
		wg.Go(func() { errs[i] = s.inflictOne(ctx, f) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// termLimit is how long a process may take to end after SIGTERM.
const termLimit = 25 * time.Second

func (s *stage) inflictOne(ctx context.Context, f Fault) error {
	p := map[procs.Class][]*procs.Process{procs.NATS: s.fleet.NATS, procs.Gateway: s.fleet.Gateways, procs.Worker: s.fleet.Workers}[f.Class][f.Index]
	if !p.Busy().TryLock() {
		fmt.Fprintf(s.out, "          %s is still at the fault before: left out\n", p.Name)
		return nil
	}
	defer p.Busy().Unlock()
	if f.Class == procs.Worker {
		s.history.WorkerLost()
	}
	switch f.Action {
	case Kill, Disk:
		p.Kill()
		if f.Action == Disk {
			if err := p.LoseDisk(); err != nil {
				return err
			}
		}
		wait(ctx, f.For)
		return p.Start()
	case Term:
		if err := p.Terminate(termLimit); err != nil {
			return err
		}
		wait(ctx, f.For)
		return p.Start()
	case Stop:
		p.Stop()
		wait(ctx, f.For)
		p.Continue()
	case Freeze, Lose:
		p.Freeze()
		wait(ctx, f.For)
		p.Heal(f.Action == Lose)
	case Sever:
		p.Sever()
		wait(ctx, f.For)
		p.Heal(true)
	}
	return nil
}
