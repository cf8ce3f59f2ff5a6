package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// ErrWrongAnswers is in the chain of Run's error if any answer was wrong: a
// verdict missing or other than recorded, another output, another content.
// The report says which; its numbers are of the right answers.
var ErrWrongAnswers = errors.New("some answers were wrong")

// ErrNoAnswers is in the chain of Run's error if a server gave no right answer
// at all to a kind of request.
var ErrNoAnswers = errors.New("no right answer")

// Run measures what cfg asks for and prints the report to out: tables as they
// come, or one JSON object at the end. The error says what kept it from
// measuring, or that answers were missing or wrong.
func Run(ctx context.Context, cfg Config, out io.Writer) (err error) {
	cfg = cfg.WithDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	all, err := kinds(cfg)
	if err != nil {
		return err
	}
	targets, own, closeAll, err := start(ctx, cfg)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	report := newReport(cfg, targets)
	if !cfg.JSON {
		if err := report.printHead(out); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	}
	for _, k := range all {
		var left leftOut
		if k.workload && !cfg.Once {
			if left, err = screen(ctx, k, targets, cfg.Slots); err != nil {
				return err
			}
		}
		able := slices.DeleteFunc(slices.Clone(targets), func(t *target) bool { return !t.does(k.class) })
		measured, err := measure(ctx, cfg, k, able)
		if err != nil {
			return err
		}
		result := report.add(k, able, measured, left)
		if !cfg.JSON {
			if err := result.print(out); err != nil {
				return fmt.Errorf("print report: %w", err)
			}
		}
	}
	if own != nil {
		if report.Memory, err = own.memory(); err != nil {
			return err
		}
		report.Targets = judgeTargets(report.Kinds)
	}
	if cfg.JSON {
		err = report.printJSON(out)
	} else {
		err = report.printEnd(out)
	}
	if err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return report.judge()
}

// start connects to the servers, and starts what is ours; own is nil if nothing
// is. closeAll ends it all, and may be called again.
func start(ctx context.Context, cfg Config) (targets []*target, own *own, closeAll func() error, err error) {
	if len(cfg.Rows) > 0 {
		own, err = startOwn(ctx, cfg)
		return own.targets, own, own.close, err
	}
	targets, err = connect(ctx, cfg)
	return targets, nil, func() error {
		for _, t := range targets {
			t.close()
		}
		return nil
	}, err
}

// measure drives each target with one kind of request, in turns.
func measure(ctx context.Context, cfg Config, k *kind, targets []*target) ([]*measurement, error) {
	all := make([]*series, len(targets))
	measured := make([]*measurement, len(targets))
	clients := k.clients
	if clients == 0 {
		clients = cfg.Clients
	}
	for i, t := range targets {
		if t.loop != nil {
			all[i] = &series{kind: k, loop: t.loop}
		} else {
			var err error
			if all[i], err = newSeries(ctx, k, t.api, clients); err != nil {
				return nil, fmt.Errorf("server %s: %w", t.name, err)
			}
		}
		measured[i] = newMeasurement()
		if cfg.Warmup > 0 {
			if _, _, err := all[i].round(ctx, bounds{until: time.Now().Add(cfg.Warmup), upTo: noEnd}); err != nil {
				return nil, fmt.Errorf("warm up %s: %w", t.name, err)
			}
		}
		if cfg.Once {
			all[i].rewind()
		}
	}
	for r := range cfg.Rounds {
		for i, s := range all {
			b := bounds{until: time.Now().Add(cfg.round()), upTo: noEnd}
			if cfg.Once {
				b = s.part(r, cfg.Rounds)
			}
			before, err := targets[i].spent()
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", k.name, err)
			}
			seen, wall, err := s.round(ctx, b)
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", k.name, err)
			}
			after, err := targets[i].spent()
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", k.name, err)
			}
			measured[i].addRound(seen, wall, after.minus(before))
		}
	}
	for i, s := range all {
		measured[i].rows = int(min(s.next.Load(), int64(len(k.rows))))
	}
	return measured, nil
}
