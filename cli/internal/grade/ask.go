package grade

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/workload"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The wait before a submission is sent again starts at firstWait and doubles
// up to lastWait; a server that asks for a longer one gets it.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// asker sends submissions until they are answered.
type asker struct {
	// evaluate sends a request and returns its answer.
	evaluate func(ctx context.Context, body []byte) (fleetclient.Evaluation, error)
	retries  int
	// wait returns after d, or with an error when ctx is done. Tests have their own.
	wait func(ctx context.Context, d time.Duration) error
}

// graded is what became of one row.
type graded struct {
	row      *workload.Row
	answer   fleetclient.Evaluation
	err      error // there is no answer
	attempts int
}

// ask evaluates a row, in a session of its own. Asking twice does no harm:
// evaluate requests leave nothing behind.
func (a *asker) ask(ctx context.Context, row *workload.Row) graded {
	g := graded{row: row}
	body := row.Body(protocol.NewUUID())
	backoff := firstWait
	for {
		g.attempts++
		g.answer, g.err = a.evaluate(ctx, body)
		if g.err == nil || ctx.Err() != nil || !fleetclient.Transient(g.err) {
			return g
		}
		if g.attempts > a.retries {
			g.err = fmt.Errorf("give up after %d attempts: %w", g.attempts, g.err)
			return g
		}
		// Clients that were refused together shouldn't come back together.
		wait := backoff/2 + rand.N(backoff/2)
		if asked := fleetclient.RetryAfter(g.err); asked > 0 {
			wait = asked + rand.N(backoff/2)
		}
		if err := a.wait(ctx, wait); err != nil {
			return g
		}
		backoff = min(2*backoff, lastWait)
	}
}

// sleep is the wait of every asker but those of tests.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
