package grade

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progress counts what is done while it is done, in whatever order. The zero
// value is ready.
type progress struct {
	submissions, cases, failed, unanswered, again atomic.Int64
}

func (p *progress) add(g graded) {
	p.again.Add(int64(g.attempts - 1))
	if g.err != nil {
		p.unanswered.Add(1)
	} else if g.answer.Passed == nil || !*g.answer.Passed {
		p.failed.Add(1)
	}
	p.cases.Add(int64(len(g.answer.Cases)))
	p.submissions.Add(1)
}

// report prints a line at each interval until ctx is done.
func (p *progress) report(ctx context.Context, interval time.Duration, out io.Writer) {
	start := time.Now()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.print(out, time.Since(start))
		}
	}
}

func (p *progress) print(out io.Writer, elapsed time.Duration) {
	n := int(p.submissions.Load())
	fmt.Fprintf(out, "%6.0f s  %d submissions, %d cases, %.1f submissions/s; %d failed, %d without an answer, %d requests sent again\n",
		elapsed.Seconds(), n, p.cases.Load(), perSecond(n, elapsed.Seconds()), p.failed.Load(), p.unanswered.Load(), p.again.Load())
}
