package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/limit"
	"github.com/gradefleet/gradefleet/cli/internal/localfleet"
	"github.com/gradefleet/gradefleet/cli/internal/proctable"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/node"
)

// The names of targets that are ours, in tables.
const (
	nameInline    = "no fork"
	nameFork      = "fork"
	nameEngine    = "engine"
	nameFleet     = "fleet"
	nameProcesses = "processes"
	nameOriginal  = "original"
)

// own is what this process started to measure it.
type own struct {
	targets []*target
	fleets  map[string]*localfleet.Fleet // by the target's name
	pids    []int                        // of all but the engine
	slots   int
	closers []closer // the newest is closed first
}

// closer ends something that was started.
type closer struct {
	do    func() error
	fleet *localfleet.Fleet // what it ends, if that is a fleet
}

// startOwn starts what cfg asks for, and joins the original. On an error too,
// close ends what was started.
func startOwn(ctx context.Context, cfg Config) (*own, error) {
	o := &own{slots: cfg.Slots, fleets: map[string]*localfleet.Fleet{}}
	var engine *node.Engine
	for i, row := range []string{rowEngine, rowLimit, rowFleet, rowProcesses} {
		if !cfg.has(row) {
			continue
		}
		var err error
		local := localfleet.Config{Binaries: cfg.Binaries, Slots: cfg.Slots, Number: i}
		switch row {
		case rowEngine:
			engine, err = o.startEngine(ctx, cfg, i)
		case rowLimit:
			err = o.startLimit(cfg, engine)
		case rowFleet:
			err = o.startFleet(cfg, nameFleet, "gradefleet up: gateway, NATS and worker in one process, over HTTP", func() (*localfleet.Fleet, error) { return localfleet.AllInOne(ctx, local) })
		case rowProcesses:
			err = o.startFleet(cfg, nameProcesses, "nats-server, gateway and worker as processes, over HTTP", func() (*localfleet.Fleet, error) { return localfleet.Separate(ctx, local) })
		}
		if err != nil {
			return o, err
		}
	}
	if cfg.Original != "" {
		t, err := server(cfg, nameOriginal, cfg.Original)
		if err != nil {
			return o, err
		}
		o.add(t)
		if err := ping(ctx, t); err != nil {
			return o, err
		}
	}
	order := []string{nameInline, nameFork, nameEngine, nameFleet, nameProcesses, nameOriginal}
	slices.SortFunc(o.targets, func(a, b *target) int { return slices.Index(order, a.name) - slices.Index(order, b.name) })
	return o, nil
}

func (o *own) add(t *target) {
	o.targets = append(o.targets, t)
	if t.close != nil {
		o.closers = append(o.closers, closer{do: t.close})
	}
}

// close ends everything, what was started last first.
func (o *own) close() error {
	var errs []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		errs = append(errs, o.closers[i].do())
	}
	o.closers = nil
	return errors.Join(errs...)
}

// startEngine makes a worker's slots in this process.
func (o *own) startEngine(ctx context.Context, cfg Config, number int) (*node.Engine, error) {
	var settings node.Config
	parser, err := kong.New(&settings) // defaults and environment, as the worker's
	if err == nil {
		_, err = parser.Parse(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("configure engine: %w", err)
	}
	dir, err := os.MkdirTemp("", "gradefleet-engine-")
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	o.closers = append(o.closers, closer{do: func() error { return os.RemoveAll(dir) }})
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	settings.Data, settings.Slots = filepath.Join(dir, "state"), cfg.Slots
	settings.UIDBase, settings.UIDCount = localfleet.Users(number)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	engine, err := node.NewEngine(ctx, settings, log)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	o.add(&target{
		name: nameEngine, what: fmt.Sprintf("%d slots of a worker in this process, without HTTP and NATS; isolation %s", cfg.Slots, engine.Level()),
		api: engineAPI{engine}, classes: []class{grading, commands}, inside: true,
		usage: func(t proctable.Table) time.Duration {
			var sum time.Duration
			for _, p := range t.Below(os.Getpid(), o.pids...) {
				sum += p.CPU
			}
			return sum
		},
		close: func() error { engine.Close(); return nil },
	})
	return engine, nil
}

// startLimit starts bare Python of the size of a slot's fork server.
func (o *own) startLimit(cfg Config, engine *node.Engine) error {
	var resident int64
	table, err := proctable.Read()
	if err != nil {
		return err
	}
	for _, p := range table.Below(os.Getpid(), o.pids...) {
		if m, err := proctable.ReadMemory(p.Pid); err == nil {
			resident = max(resident, m.RSS)
		}
	}
	settings := limit.Config{Python: engine.Python(), Processes: cfg.Slots, Preload: engine.Preload(), Resident: resident}
	forking, err := limit.Start(settings)
	if err != nil {
		return err
	}
	o.addLimit(forking, limit.Fork, &target{
		name: nameFork, classes: []class{forks, grading, commands},
		what: fmt.Sprintf("%d bare Python processes that fork a child for each submission and wait for it; %.0f MB resident, as a slot's fork server", cfg.Slots, float64(forking.Resident())/(1<<20)),
	})
	settings.Collect = true
	inline, err := limit.Start(settings)
	if err != nil {
		return err
	}
	o.addLimit(inline, limit.Inline, &target{
		name: nameInline, classes: []class{grading},
		what: fmt.Sprintf("%d such processes that do the same Python work in themselves", cfg.Slots),
	})
	return nil
}

func (o *own) addLimit(l *limit.Limit, mode limit.Mode, t *target) {
	o.pids = append(o.pids, l.Pids()...)
	t.loop, t.close = looperOf(l, mode), l.Close
	t.usage = func(table proctable.Table) time.Duration { return table.CPU(l.Pids()...) }
	o.add(t)
}

func (o *own) startFleet(cfg Config, name, what string, start func() (*localfleet.Fleet, error)) error {
	f, err := start()
	if err != nil {
		return err
	}
	o.closers = append(o.closers, closer{do: f.Stop, fleet: f})
	o.fleets[name] = f
	o.pids = append(o.pids, f.Pids()...)
	t, err := server(cfg, name, f.URL)
	if err != nil {
		return err
	}
	t.what = what
	t.usage = func(table proctable.Table) time.Duration { return table.CPU(f.Pids()...) }
	o.add(t)
	return nil
}

// looperOf has bare Python go through a kind of request.
func looperOf(l *limit.Limit, mode limit.Mode) looper {
	loaded := map[string]bool{}
	return func(k *kind, until time.Time) ([]*observation, error) {
		if !loaded[k.name] {
			rows := make([]limit.Row, len(k.rows))
			for i, r := range k.rows {
				rows[i] = limit.Row{Body: string(r.Body("limit")), Verdicts: r.Verdicts}
			}
			if err := l.Load(k.name, rows); err != nil {
				return nil, err
			}
			loaded[k.name] = true
		}
		m := mode
		switch k.class {
		case forks:
			m = limit.Bare
		case commands:
			m = limit.Run
		}
		rounds, err := l.Do(k.name, m, k.clients, time.Until(until))
		if err != nil {
			return nil, err
		}
		seen := make([]*observation, len(rounds))
		for i, r := range rounds {
			seen[i] = &observation{
				work:      work{requests: len(r.Took), cases: r.Cases, busy: r.Busy},
				latencies: r.Took, errors: map[string]int{}, verdicts: newVerdicts(),
			}
			if len(r.Wrong) > 0 {
				seen[i].errors[wrong] = len(r.Wrong)
			}
		}
		return seen, nil
	}
}

// engineAPI has an engine answer as a server would.
type engineAPI struct{ engine *node.Engine }

// errNoFiles says that files are not the engine's.
var errNoFiles = errors.New("the engine serves no files")

func (e engineAPI) do(ctx context.Context, op string, job protocol.Job, answer any) error {
	result, err := e.engine.Do(ctx, job)
	if err != nil {
		return err
	}
	if result.Status != 200 {
		return &fleetclient.StatusError{Op: op, Code: result.Status, Detail: string(result.Body)}
	}
	return fleetclient.Decode(op, result.Body, answer)
}

func (e engineAPI) Evaluate(ctx context.Context, body []byte) (a fleetclient.Evaluation, err error) {
	return a, e.do(ctx, "evaluate", protocol.Job{Kind: protocol.Evaluate, Body: body}, &a)
}

func (e engineAPI) Run(ctx context.Context, session, command string) (r fleetclient.RunResult, err error) {
	body, err := fleetclient.RunBody(session, command)
	if err != nil {
		return r, err
	}
	return r, e.do(ctx, "run", protocol.Job{Kind: protocol.Run, Session: session, Epoch: node.EngineEpoch, Body: body}, &r)
}

func (e engineAPI) open(session string) error { return e.engine.Create(session) }

func (engineAPI) WriteFile(context.Context, string, string, string) error { return errNoFiles }

func (engineAPI) ReadFile(context.Context, string, string) (string, error) { return "", errNoFiles }
