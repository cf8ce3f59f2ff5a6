package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/load"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

const (
	// rollPause is between two restarts: what a rollout waits after a process
	// says that it is ready.
	rollPause = 2 * time.Second
	// rollRetry is how long clients ask again after a refusal.
	rollRetry = 20 * time.Second
)

// Roll restarts every process in turn with SIGTERM, under load, each when the one
// before is ready, and fails if any request did.
//
// What a client does, and nothing else: a connection that is refused is tried at
// the other gateway, at once; after a 429 or 503 it waits for the Retry-After and
// asks again, for 20 s at most. If a connection is lost after the request was
// sent, an evaluate is asked again; anything else has failed.
func Roll(ctx context.Context, cfg Config, out io.Writer) error {
	s, err := open(ctx, cfg, out)
	if err != nil {
		return err
	}
	return s.close(s.roll(ctx))
}

func (s *stage) roll(ctx context.Context) error {
	totals := procs.NewTotals(s.fleet, counters...)
	l := load.New(load.Config{
		Gateways: s.clients, History: s.history, Seed: s.cfg.Seed,
		Graders: 4, Editors: 8, Sessions: 12, SessionOps: 250, Retry: rollRetry,
	})
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(loading) })
	wait(ctx, rollPause)
	var err error
	for _, p := range s.fleet.All() {
		if err = s.restart(ctx, p, totals); err != nil {
			break
		}
		wait(ctx, rollPause)
	}
	stop()
	wg.Wait()
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	l.Audit()
	err = s.report(nil, totals)
	failed, retried := l.Failed()
	fmt.Fprintf(s.out, "%d restarts: %d requests failed; clients asked again after %d refusals\n", len(s.fleet.All()), len(failed), retried)
	for i, o := range failed {
		if i == shownViolations {
			break
		}
		fmt.Fprintln(s.out, "  ", o)
	}
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d requests failed during a rolling restart", ErrBroken, len(failed)))
	}
	return err
}

func (s *stage) restart(ctx context.Context, p *procs.Process, totals *procs.Totals) error {
	totals.Scrape()
	begun := time.Now()
	if err := p.Terminate(termLimit); err != nil {
		return err
	}
	ended := time.Since(begun)
	if err := p.Start(); err != nil {
		return err
	}
	if err := s.fleet.AwaitWhole(ctx); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s restarted: ended after %.2f s, the fleet whole after %.2f s\n", p.Name, ended.Seconds(), time.Since(begun).Seconds())
	return nil
}
