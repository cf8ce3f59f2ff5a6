package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
)

// Config of a load.
type Config struct {
	Gateways *Gateways
	History  *history.History
	// Seed of what is asked for.
	Seed uint64
	// Graders send submissions without a session, Editors work in sessions.
	Graders, Editors int
	// Sessions is how many sessions are worked in at a time; SessionOps is after
	// how many operations one is left and another begun.
	Sessions, SessionOps int
	// Batchers send submissions by the batch and for later, and Keys makes some
	// commands carry an idempotency key, where the fleet knows these.
	Batchers int
	Keys     bool
	// Retry makes clients ask again for that long after a refusal, when the
	// answer's Retry-After is over. 0: they go on with something else.
	Retry time.Duration
}

const (
	// think is the longest pause between two requests of a client, so that two
	// cores do for a whole fleet.
	think = 20 * time.Millisecond
	// patience is how long a client goes on asking for one thing that may be
	// asked again.
	patience = 60 * time.Second
	// backOff is the pause after a refusal.
	backOff = 150 * time.Millisecond
	// longestAfter bounds what a client believes of a Retry-After.
	longestAfter = 2 * time.Second
)

// Load is the clients.
type Load struct {
	cfg Config

	mu       sync.Mutex
	serial   int
	sessions []*session // worked in now
	begun    []string   // every session that ever was, without copies
	copies   []string
	failed   []*history.Op
	retried  int
}

type session struct {
	id  string
	ops int
}

// New returns a load that has sent nothing yet.
func New(cfg Config) *Load { return &Load{cfg: cfg} }

// Run asks until ctx is done; what is under way then is waited for.
func (l *Load) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range l.clients() {
		c := &client{Load: l, n: i, rand: rand.New(rand.NewPCG(l.cfg.Seed, uint64(i)))}
		wg.Go(func() {
			for ctx.Err() == nil {
				switch {
				case c.n < l.cfg.Graders:
					c.grade()
				case c.n < l.cfg.Graders+l.cfg.Editors:
					c.edit()
				case c.rand.IntN(2) == 0:
					c.batch()
				default:
					c.async()
				}
				pause(ctx, time.Duration(c.rand.Int64N(int64(think))))
			}
		})
	}
	wg.Wait()
}

func (l *Load) clients() int { return l.cfg.Graders + l.cfg.Editors + l.cfg.Batchers }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// client is one of them; it runs in one goroutine.
type client struct {
	*Load
	n      int
	rand   *rand.Rand
	values int
}

// value makes one that nobody else writes.
func (c *client) value() string {
	c.values++
	return fmt.Sprintf("v%d.%d", c.n, c.values)
}

// session picks one of those that are worked in, or begins another.
func (c *client) session() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.rand.IntN(c.cfg.Sessions)
	if at >= len(c.sessions) {
		c.sessions = append(c.sessions, c.begin())
		at = len(c.sessions) - 1
	}
	s := c.sessions[at]
	if s.ops++; s.ops > c.cfg.SessionOps {
		s = c.begin()
		c.sessions[at] = s
	}
	return s.id
}

// begin needs the lock.
func (l *Load) begin() *session {
	l.serial++
	s := &session{id: fmt.Sprintf("chaos-%d-%d", l.cfg.Seed, l.serial)}
	l.begun = append(l.begun, s.id)
	return s
}

func (l *Load) copied(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.copies = append(l.copies, id)
}

// try sends a request to one gateway and records it; fill may take what is known
// of the answer from it, and may change the outcome.
func (c *client) try(o history.Op, r request, fill func(*history.Op, *answer) history.Outcome) (op *history.Op, out history.Outcome, after time.Duration) {
	o.Client = c.n
	op = c.cfg.History.Begin(o)
	// A request that was begun is always seen to its end.
	a := c.cfg.Gateways.send(context.Background(), o.Gateway, r)
	out = outcome(o.Kind, &a)
	if s, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil {
		after = min(time.Duration(s)*time.Second, longestAfter)
	}
	c.cfg.History.End(op, out, func(op *history.Op) {
		op.Status, op.Detail = a.status, a.detail()
		if out == history.OK && fill != nil {
			out = fill(op, &a)
			op.Outcome = out
		}
		if out == history.Fault && op.Detail == "" {
			op.Detail = fmt.Sprintf("%.300s", a.body)
		}
	})
	return op, out, after
}

// once sends a request through a gateway of choice, or through the others if
// there is no connection to it. After a refusal it pauses, and with Retry asks
// again.
func (c *client) once(o history.Op, r request, fill func(*history.Op, *answer) history.Outcome) (op *history.Op, out history.Outcome) {
	for begun := time.Now(); ; {
		var after time.Duration
		op, out, after = c.somewhere(o, r, fill)
		if out != history.Refused {
			break
		}
		time.Sleep(max(after, backOff))
		if time.Since(begun) >= c.cfg.Retry {
			break
		}
		c.mu.Lock()
		c.retried++
		c.mu.Unlock()
	}
	return op, out
}

// somewhere sends a request to one gateway that it has a connection to; after is
// what a refusal said about when to ask again.
func (c *client) somewhere(o history.Op, r request, fill func(*history.Op, *answer) history.Outcome) (op *history.Op, out history.Outcome, after time.Duration) {
	first := c.rand.IntN(len(c.cfg.Gateways.urls))
	for i := range c.cfg.Gateways.urls {
		o.Gateway = (first + i) % len(c.cfg.Gateways.urls)
		op, out, after = c.try(o, r, fill)
		if out != history.Refused || op.Status != 0 {
			break
		}
	}
	return op, out, after
}

// insist asks again after a refusal or a lost connection, which is safe for what
// has no effect but its answer. It is an error of the fleet if that goes on for
// longer than patience.
func (c *client) insist(o history.Op, r request, fill func(*history.Op, *answer) history.Outcome) (*history.Op, history.Outcome) {
	for begun := time.Now(); ; {
		op, out := c.once(o, r, fill)
		if out != history.Refused && out != history.Unknown {
			return op, out
		}
		if time.Since(begun) > patience {
			o.Client = c.n
			last := c.cfg.History.Begin(o)
			c.cfg.History.End(last, history.Unanswered, func(o *history.Op) {
				o.Detail = fmt.Sprintf("refused for %v; the last time: %d %s", patience, op.Status, op.Detail)
			})
			return last, history.Unanswered
		}
	}
}

// must is once for what can't be asked again without a second effect: any end
// but an answer is a failure, which is remembered.
func (c *client) must(o history.Op, r request, fill func(*history.Op, *answer) history.Outcome) (*history.Op, history.Outcome) {
	op, out := c.once(o, r, fill)
	if out != history.OK && out != history.Missing {
		c.mu.Lock()
		c.failed = append(c.failed, op)
		c.mu.Unlock()
	}
	return op, out
}

// Any is one of the sessions.
func (l *Load) Any() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun[0]
}

// Failed returns the requests that got no answer but a refusal, an unknown fate
// or a fault, and how often a client asked again after a refusal.
func (l *Load) Failed() (failed []*history.Op, retried int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, l.retried
}
