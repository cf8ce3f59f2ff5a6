package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

const (
	// batchSize is how many submissions go through one connection, batchKills how
	// many workers are killed meanwhile.
	batchSize, batchKills = 10_000, 20
	// batchDown is how long a killed worker is away.
	batchDown = 300 * time.Millisecond
)

// Batch sends 10,000 submissions through /evaluate_batch on one connection, kills
// workers 20 times meanwhile, spread over the results, and fails unless every
// result came once and is right.
func Batch(ctx context.Context, cfg Config, out io.Writer) error {
	s, err := open(ctx, cfg, out)
	if err != nil {
		return err
	}
	return s.close(s.batch(ctx))
}

func (s *stage) batch(ctx context.Context) error {
	killed := make(chan struct{}, batchKills)
	var wg sync.WaitGroup
	var killErr error
	kills := 0
	wg.Go(func() {
		for range killed {
			p := s.fleet.Workers[kills%len(s.fleet.Workers)]
			p.Kill()
			kills++
			fmt.Fprintf(s.out, "%s killed\n", p.Name)
			wait(ctx, batchDown)
			if killErr = errors.Join(killErr, p.Start()); killErr != nil {
				return
			}
		}
	})
	totals := procs.NewTotals(s.fleet, counters...)
	begun := time.Now()
	asked := 0
	r, err := s.clients.GradeMany(ctx, s.cfg.Seed, batchSize, func(answered int) {
		if answered >= (asked+1)*batchSize/(batchKills+1) && asked < batchKills {
			asked++
			killed <- struct{}{}
			totals.Scrape()
		}
	})
	took := time.Since(begun)
	close(killed)
	wg.Wait()
	if err = errors.Join(err, killErr); err != nil {
		return err
	}
	totals.Scrape()
	fmt.Fprintf(s.out, "%d submissions through one connection with %d kills in %.1f s (%.0f a second): %d answered once and right, %d missing, %d twice, %d wrong; %.0f redeliveries\n",
		batchSize, kills, took.Seconds(), batchSize/took.Seconds(), r.Right, r.Missing, r.Twice, r.Wrong, totals.Sum("gradefleet_redeliveries_total"))
	for _, text := range r.Examples {
		fmt.Fprintln(s.out, "  ", text)
	}
	if r.Right != batchSize {
		return fmt.Errorf("%w: %d of %d submissions were not answered once and right", ErrBroken, batchSize-r.Right, batchSize)
	}
	if kills < batchKills {
		return fmt.Errorf("%d workers were killed, %d were to be", kills, batchKills)
	}
	return nil
}
