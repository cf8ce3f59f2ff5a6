package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
)

// ErrWrongAnswers is in the chain of Run's error if any answer was wrong: a
// verdict missing or other than recorded, another output, another content.
// The report says which; its numbers are of the right answers.
var ErrWrongAnswers = errors.New("some answers were wrong")

// ErrNoAnswers is in the chain of Run's error if a server gave no right answer
// at all to a kind of request.
var ErrNoAnswers = errors.New("no right answer")

// server is one of the two under load.
type server struct {
	name string // A or B
	api  *fleetclient.Client
}

// Run measures what cfg asks for and prints the report to out: tables as they
// come, or one JSON object at the end. The error says what kept it from
// measuring, or that answers were missing or wrong.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	cfg = cfg.WithDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	servers, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range servers {
			s.api.Close()
		}
	}()
	all, err := kinds(cfg)
	if err != nil {
		return err
	}
	report := newReport(cfg, servers)
	if !cfg.JSON {
		if err := report.printHead(out); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	}
	for _, k := range all {
		measured, err := measure(ctx, cfg, k, servers)
		if err != nil {
			return err
		}
		result := report.add(k, servers, measured)
		if !cfg.JSON {
			if err := result.print(out); err != nil {
				return fmt.Errorf("print report: %w", err)
			}
		}
	}
	if cfg.JSON {
		if err := report.printJSON(out); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	}
	return report.judge()
}

// connect makes a client for each server and sees that each is there.
func connect(ctx context.Context, cfg Config) ([]*server, error) {
	var servers []*server
	for i, url := range cfg.URL {
		api, err := fleetclient.New(fleetclient.Config{
			URL: url, AllowRemote: cfg.AllowRemote, Connections: cfg.Clients, Timeout: cfg.Timeout,
		})
		if err != nil {
			return nil, err
		}
		servers = append(servers, &server{name: string(rune('A' + i)), api: api})
	}
	for _, s := range servers {
		if err := s.api.Ping(ctx); err != nil {
			return nil, fmt.Errorf("reach server %s, is it running? %w", s.name, err)
		}
	}
	return servers, nil
}

// measure drives each server with one kind of request, in turns.
func measure(ctx context.Context, cfg Config, k *kind, servers []*server) ([]*measurement, error) {
	all := make([]*series, len(servers))
	measured := make([]*measurement, len(servers))
	for i, s := range servers {
		var err error
		if all[i], err = newSeries(ctx, k, s.api, cfg.Clients); err != nil {
			return nil, fmt.Errorf("server %s: %w", s.name, err)
		}
		measured[i] = newMeasurement(cfg.Clients)
		if cfg.Warmup > 0 {
			all[i].round(ctx, bounds{until: time.Now().Add(cfg.Warmup), upTo: noEnd})
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
			seen, wall := s.round(ctx, b)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("measure %s: %w", k.name, context.Cause(ctx))
			}
			measured[i].addRound(seen, wall)
		}
	}
	for i, s := range all {
		measured[i].rows = int(min(s.next.Load(), int64(len(k.rows))))
	}
	return measured, nil
}
