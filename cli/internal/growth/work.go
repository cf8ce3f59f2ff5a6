package growth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/simulate"
)

// mix are the lengths of jobs, as multiples of the mean, and how often each
// comes: most are short, and a few hold their slots long.
var mix = []struct{ share, length float64 }{{0.60, 0.4}, {0.30, 1}, {0.09, 4}, {0.01, 10}}

// lengthOf draws a length around a mean.
func lengthOf(mean time.Duration, rng *rand.Rand) time.Duration {
	at := rng.Float64()
	for _, m := range mix {
		if at < m.share {
			return time.Duration(m.length * float64(mean))
		}
		at -= m.share
	}
	return mean
}

// seen is what came back.
type seen struct {
	mu      sync.Mutex
	waits   []time.Duration // an answer's time less its job's
	queued  []time.Duration // of that, in NATS' queue
	runs    []run
	jobs    map[string]int // by worker
	failed  int
	failure error // one of them
}

// run is when a job held a slot, to within what its answer took to come back.
type run struct{ from, to time.Time }

// window is the time in which jobs were sent. What an answer costs is counted
// over it, without the end in which the last long jobs are waited for.
type window struct {
	from, to      time.Time
	before, after map[string]time.Duration // CPU time of each part
}

// close ends a window.
func (w *window) close(f *fleet) (err error) {
	w.to = time.Now()
	w.after, err = f.spent()
	return err
}

func (f *fleet) open() (*window, error) {
	before, err := f.spent()
	return &window{from: time.Now(), before: before}, err
}

// ended counts the jobs that ended in the window, and the slots' time that jobs
// took of it.
func (s *seen) ended(w *window) (jobs int, took time.Duration) {
	for _, r := range s.runs {
		if !r.to.After(w.to) {
			jobs++
		}
		from, to := r.from, r.to
		if to.After(w.to) {
			to = w.to
		}
		took += max(to.Sub(from), 0)
	}
	return jobs, took
}

func newSeen() *seen { return &seen{jobs: map[string]int{}} }

func (s *seen) add(a simulate.Answer, sent time.Time, err error) {
	took := time.Since(sent)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
		s.failure = err
		return
	}
	length := time.Duration(a.Length) * time.Microsecond
	s.waits = append(s.waits, max(took-length, 0))
	s.queued = append(s.queued, time.Duration(a.Wait)*time.Microsecond)
	now := sent.Add(took)
	s.runs = append(s.runs, run{now.Add(-length), now})
	s.jobs[a.Worker]++
}

// ask sends a job and takes its answer in.
func (s *seen) ask(ctx context.Context, c *client, length time.Duration) error {
	begun := time.Now()
	a, err := c.job(ctx, length)
	if ctx.Err() == nil {
		s.add(a, begun, err)
	}
	return err
}

// failedPause is how long a client waits after an error, so that a fleet which
// refuses is not asked thousands of times a second.
const failedPause = 200 * time.Millisecond

// work has the fleet do jobs, at a steady rate and with all slots busy.
func (s *size) work(ctx context.Context, f *fleet, cfg Config) error {
	mean := max(time.Duration(float64(f.slots)/cfg.Rate*float64(time.Second)), minMean)
	full := float64(f.slots) / mean.Seconds() // jobs a second
	s.MeanMS = float64(mean) / float64(time.Millisecond)
	upTo := func(jobs int, rate float64) int { return min(jobs, int(rate*cfg.Most.Seconds())) }

	part := cfg.Jobs * 2 / 5
	got, w, err := steady(ctx, f, upTo(part, cfg.Load*full), cfg.Load*full, mean)
	if err != nil {
		return err
	}
	if s.Steady, err = f.summary(ctx, got, w); err != nil {
		return err
	}
	first, second, w, err := busy(ctx, f, upTo(cfg.Jobs-part, full), mean)
	if err != nil {
		return err
	}
	s.FirstCaller, s.SecondCaller = waitOf(first.waits), waitOf(second.waits)
	first.merge(second)
	s.Busy, err = f.summary(ctx, first, w)
	return err
}

func (s *seen) merge(o *seen) {
	s.waits, s.queued = append(s.waits, o.waits...), append(s.queued, o.queued...)
	s.runs = append(s.runs, o.runs...)
	s.failed += o.failed
	s.failure = cmp.Or(s.failure, o.failure)
	for w, n := range o.jobs {
		s.jobs[w] += n
	}
}

// steady sends jobs at random times, so many a second on average, whatever
// becomes of those before.
func steady(ctx context.Context, f *fleet, jobs int, rate float64, mean time.Duration) (*seen, *window, error) {
	got := newSeen()
	w, err := f.open()
	if err != nil {
		return nil, nil, err
	}
	rng := rand.New(rand.NewPCG(1, uint64(f.workers)))
	var all sync.WaitGroup
	next := time.Now()
	for range jobs {
		next = next.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		}
		if ctx.Err() != nil {
			break
		}
		length := lengthOf(mean, rng)
		all.Go(func() { got.ask(ctx, f.api, length) })
	}
	err = w.close(f)
	all.Wait()
	return got, w, err
}

// waiting is how many jobs one caller keeps waiting beside those that run, for
// each slot: more than the gateway publishes ahead, so that callers take turns.
const waiting = 5

// fewClients is how many requests the other caller has under way at most.
const fewClients = 4

// busy keeps all slots busy: one caller has more requests under way than there
// are slots, another a few.
func busy(ctx context.Context, f *fleet, jobs int, mean time.Duration) (first, second *seen, w *window, err error) {
	first, second = newSeen(), newSeen()
	if w, err = f.open(); err != nil {
		return nil, nil, nil, err
	}
	other := newClientFrom(f.api.url, secondCaller)
	defer other.close()
	sent := make(chan struct{}) // closed when the last job of the first caller is
	var mu sync.Mutex
	left := jobs
	take := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			close(sent)
		}
		return left >= 0
	}
	more := func() bool {
		select {
		case <-sent:
			return false
		default:
			return true
		}
	}
	var many, few sync.WaitGroup
	drive := func(to *sync.WaitGroup, clients int, c *client, got *seen, seed uint64, next func() bool) {
		for i := range clients {
			to.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for ctx.Err() == nil && next() {
					if got.ask(ctx, c, lengthOf(mean, rng)) != nil {
						time.Sleep(failedPause)
					}
				}
			})
		}
	}
	drive(&many, (1+waiting)*f.slots, f.api, first, 2, take)
	drive(&few, fewClients, other, second, 3, more)
	select {
	case <-sent:
	case <-ctx.Done():
	}
	err = w.close(f)
	many.Wait()
	few.Wait()
	return first, second, w, err
}

// place makes sessions, and looks which workers got them.
func (s *size) place(ctx context.Context, f *fleet, sessions int) error {
	const clients = 16
	before, err := f.spent()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	var errs []error
	var all sync.WaitGroup
	begun := time.Now()
	for c := range clients {
		all.Go(func() {
			for i := c; i < sessions && ctx.Err() == nil; i += clients {
				sent := time.Now()
				err := f.api.write(ctx, protocol.NewUUID())
				mu.Lock()
				took, errs = append(took, time.Since(sent)), append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	wall := time.Since(begun)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make sessions: %w", err)
	}
	after, err := f.spent()
	if err != nil {
		return err
	}
	time.Sleep(protocol.HeartbeatInterval + protocol.HeartbeatInterval/2) // all have said what they got
	heartbeats, err := f.api.workers(ctx)
	if err != nil {
		return err
	}
	var each []float64
	for _, h := range heartbeats {
		each = append(each, float64(h.Sessions))
	}
	s.Sessions = placement{
		PerSecond: float64(sessions) / wall.Seconds(), P50: quantileMS(took, 0.5), P99: quantileMS(took, 0.99),
		GatewayUS: perJob(after[gateway]-before[gateway], sessions), Each: spreadOf(each),
	}
	return nil
}

// quantileMS is a quantile (nearest rank), in milliseconds.
func quantileMS(values []time.Duration, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return float64(values[min(int(q*float64(len(values))), len(values)-1)]) / float64(time.Millisecond)
}
