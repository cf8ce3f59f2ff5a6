package grade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

// ErrDiffer is in the chain of Run's error if a verdict is missing or other
// than recorded. The summary and the result lines are complete.
var ErrDiffer = errors.New("verdicts differ from the recorded ones")

// ErrUnanswered is in the chain of Run's error if a submission got no verdicts
// at all. The summary and the result lines say why.
var ErrUnanswered = errors.New("submissions without an answer")

// ErrGone is in the chain of Run's error if the server stopped answering. Rows
// after that were not graded; the summary is of those before.
var ErrGone = errors.New("the server does not answer any more")

// Run grades the files of cfg. The summary goes to out, progress to errOut.
// When ctx is done it stops, and sums up what was graded so far.
func Run(ctx context.Context, cfg Config, out, errOut io.Writer) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	return run(ctx, cfg, out, errOut, sleep)
}

func run(ctx context.Context, cfg Config, out, errOut io.Writer, wait func(context.Context, time.Duration) error) (err error) {
	cfg = cfg.withDefaults()
	api, err := fleetclient.New(fleetclient.Config{
		URL: cfg.URL, AllowRemote: cfg.AllowRemote, Key: cfg.Key.Reveal(), Connections: cfg.Concurrency, Timeout: cfg.Timeout,
	})
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.Ping(ctx); err != nil {
		return fmt.Errorf("reach the server, is it running? %w", err)
	}
	evaluate := api.Evaluate
	if cfg.Batch {
		if err := takesBatches(ctx, api); err != nil {
			return err
		}
		batch := api.NewBatch(ctx)
		defer batch.Close()
		evaluate = batch.Evaluate
	}
	results, err := openResults(cfg.Out, cfg.Files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, results.close()) }()

	p := &pipeline{cfg: cfg, asker: asker{evaluate: evaluate, retries: cfg.Retries, wait: wait}, results: results, sum: newSummary()}
	start := time.Now()
	err = p.run(ctx, errOut)
	p.sum.seconds = time.Since(start).Seconds()
	if printErr := p.sum.print(out); printErr != nil {
		return errors.Join(err, fmt.Errorf("print summary: %w", printErr))
	}
	return errors.Join(err, p.sum.judge())
}

// takesBatches checks that the server does, once: else each submission would be
// refused. One that is only busy is no error yet.
func takesBatches(ctx context.Context, api *fleetclient.Client) error {
	err := api.PingBatch(ctx)
	if err == nil || fleetclient.Transient(err) {
		return nil
	}
	if e, ok := errors.AsType[*fleetclient.StatusError](err); ok && (e.Code == http.StatusNotFound || e.Code == http.StatusMethodNotAllowed) {
		return fmt.Errorf("check --batch: %s takes no batches, leave it out: %w", api.URL(), err)
	}
	return fmt.Errorf("check --batch: %w", err)
}

// window is how many rows may be read ahead of the first that has no answer
// yet, for each submission under way; batchWindow is that of batches, which have
// many more under way. It bounds memory when one is slow.
const window, batchWindow = 32, 4

// pipeline reads rows, grades some at a time, and collects them in order.
type pipeline struct {
	cfg      Config
	asker    asker
	progress progress

	// Only the collector uses these.
	results *results
	sum     *summary
}

// place is a row's place in the order of results.
type place struct {
	row  *workload.Row
	done chan graded // gets one value
}

func (p *pipeline) run(ctx context.Context, errOut io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)

	jobs := make(chan place)
	ahead := window * p.cfg.Concurrency
	if p.cfg.Batch {
		ahead = batchWindow * p.cfg.Concurrency
	}
	order := make(chan place, ahead)
	var readErr error // the reader's, until order is closed
	running.Go(func() {
		defer close(order)
		defer close(jobs)
		readErr = p.read(ctx, jobs, order)
	})
	for range p.cfg.Concurrency {
		running.Go(func() {
			for job := range jobs {
				g := p.asker.ask(ctx, job.row)
				p.progress.add(g)
				job.done <- g
			}
		})
	}
	if p.cfg.Progress > 0 {
		running.Go(func() { p.progress.report(ctx, p.cfg.Progress, errOut) })
	}
	if err := p.collect(ctx, order); err != nil {
		cancel(err)
		return err
	}
	return readErr
}

// read puts each row in both queues, first into the order of results.
func (p *pipeline) read(ctx context.Context, jobs, order chan<- place) error {
	n := 0
	for row, err := range workload.Rows(p.cfg.Files...) {
		if err != nil {
			return err
		}
		next := place{row: row, done: make(chan graded, 1)}
		for _, queue := range []chan<- place{order, jobs} {
			select {
			case queue <- next:
			case <-ctx.Done():
				return nil // the collector says why
			}
		}
		if n++; n == p.cfg.Limit {
			return nil
		}
	}
	return nil
}

// patience is how many submissions in a row, besides those under way when it
// happened, may get no answer before the server counts as gone.
const patience = 2

// collect takes in results in the order of rows, until there are no more.
func (p *pipeline) collect(ctx context.Context, order <-chan place) error {
	unreached := 0 // rows in a row
	for next := range order {
		var g graded
		select {
		case g = <-next.done:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return fmt.Errorf("grade: %w", context.Cause(ctx))
		}
		line := p.sum.add(g)
		if err := p.results.write(line); err != nil {
			return err
		}
		if !fleetclient.Unreached(g.err) {
			unreached = 0
			continue
		}
		if unreached++; unreached >= p.cfg.Concurrency+patience {
			return fmt.Errorf("grade %s: %w, %d submissions in a row: %w", g.row.TaskID, ErrGone, unreached, g.err)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("grade: %w", context.Cause(ctx))
	}
	return nil
}
