// Package admit decides who is let in and who goes next: limits for each caller,
// bounds on what this gateway holds at all, and turns between callers, so that
// who floods or is slow waits for himself. It does no I/O.
//
// A job of the gateway's is published only when few enough are published and
// unanswered already; the others wait here, in one line a caller. A queue that
// is first come, first served would make everybody wait for the one who came
// with ten thousand.
package admit

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/rate"
)

// maxCallers bounds how many callers are told apart at a time; more share one name.
const maxCallers = 10_000

// crowd is the name that callers share beyond maxCallers.
const crowd = "other"

// Config of a gate. Zeros are no limit.
type Config struct {
	// PerCaller is how many requests of one caller may be under way.
	PerCaller int
	// Rate is how many requests (or lines of batches) a second one caller may
	// send, and Burst how many at once after a pause.
	Rate  float64
	Burst int
	// Waiting is how many jobs may wait for their turn, of all callers.
	Waiting int
	// Bytes is what bodies of requests under way may take up, bytes.
	Bytes int64
	// Window is how many jobs of a queue may be published and unanswered. It is
	// called with the gate locked.
	Window func(queue string) int
}

// Gate lets requests in. Its methods may be called from any goroutine; their
// errors are of package fault.
type Gate struct {
	cfg Config
	now func() time.Time

	mu      sync.Mutex
	callers map[string]*caller
	active  int // callers with a request under way
	lanes   map[string]*lane
	waiting int
	bytes   int64
	room    chan struct{} // closed when bytes were given back; nil if nobody waits
	done    rate.Meter    // jobs answered, of all queues
}

// caller is what is known of one.
type caller struct {
	name   string
	now    int     // requests under way
	tokens float64 // of Rate, as of filled
	filled time.Time
}

// New returns a gate.
func New(cfg Config) *Gate {
	return &Gate{cfg: cfg, now: time.Now, callers: map[string]*caller{}, lanes: map[string]*lane{}}
}

// Visit is a request that was let in, until Leave.
type Visit struct {
	gate   *Gate
	caller *caller
	bytes  int64
}

// Arrive lets a request of a caller in, or says when to come again.
func (g *Gate) Arrive(name string) (Visit, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	c := g.caller(name, now)
	if g.cfg.PerCaller > 0 && c.now >= g.cfg.PerCaller {
		return Visit{}, &fault.Error{
			Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("You have %d requests under way, the limit for one caller; wait for some of them", c.now),
			// Those who are active share what the fleet does.
			RetryAfter: g.done.RetryAfter(now, float64(max(g.active, 1))),
		}
	}
	if wait := g.spend(c, now, false); wait > 0 {
		return Visit{}, &fault.Error{
			Status:     http.StatusTooManyRequests,
			Detail:     fmt.Sprintf("You send more than %g requests a second, the limit for one caller", g.cfg.Rate),
			RetryAfter: int(math.Ceil(wait.Seconds())),
		}
	}
	if c.now++; c.now == 1 {
		g.active++
	}
	return Visit{gate: g, caller: c}, nil
}

// Leave ends a visit.
func (v *Visit) Leave() {
	if v.gate == nil {
		return
	}
	g := v.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.caller.now--; v.caller.now == 0 {
		g.active--
	}
	g.giveBack(v.bytes)
	v.gate = nil
}

// Hold counts the memory of the visit's body.
func (v *Visit) Hold(bytes int64) error {
	g := v.gate
	if g == nil || bytes <= 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full(bytes) {
		return &fault.Error{
			Status:     http.StatusTooManyRequests,
			Detail:     fmt.Sprintf("The gateway holds %d bytes of requests under way, its limit is %d; try again later", g.bytes, g.cfg.Bytes),
			RetryAfter: g.done.RetryAfter(g.now(), float64(g.waiting)/10),
		}
	}
	g.bytes += bytes
	v.bytes += bytes
	return nil
}

// full reports whether so much more is too much. Whatever is alone fits.
func (g *Gate) full(bytes int64) bool {
	return g.cfg.Bytes > 0 && g.bytes > 0 && g.bytes+bytes > g.cfg.Bytes
}

func (g *Gate) giveBack(bytes int64) {
	g.bytes -= bytes
	if bytes > 0 && g.room != nil {
		close(g.room)
		g.room = nil
	}
}

// Line lets one line of a batch in, of a caller whose batch was let in: it waits
// where a request would be refused. leave ends it.
func (g *Gate) Line(ctx context.Context, name string, bytes int64) (leave func(), err error) {
	g.mu.Lock()
	wait := g.spend(g.caller(name, g.now()), g.now(), true)
	for g.full(bytes) {
		if g.room == nil {
			g.room = make(chan struct{})
		}
		room := g.room
		g.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil, fault.Gone()
		}
		g.mu.Lock()
	}
	g.bytes += bytes
	g.mu.Unlock()
	leave = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.giveBack(bytes)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			leave()
			return nil, fault.Gone()
		}
	}
	return leave, nil
}

// caller returns what is known of a caller.
func (g *Gate) caller(name string, now time.Time) *caller {
	if c := g.callers[name]; c != nil {
		return c
	}
	if len(g.callers) >= maxCallers {
		for other, c := range g.callers {
			if c.now == 0 && g.fill(c, now) >= float64(g.cfg.Burst) {
				delete(g.callers, other)
			}
		}
		if len(g.callers) >= maxCallers && name != crowd {
			return g.caller(crowd, now)
		}
	}
	c := &caller{name: name, tokens: float64(g.cfg.Burst), filled: now}
	g.callers[name] = c
	return c
}

// fill brings a caller's tokens up to date.
func (g *Gate) fill(c *caller, now time.Time) float64 {
	if g.cfg.Rate > 0 {
		c.tokens = min(float64(g.cfg.Burst), c.tokens+g.cfg.Rate*now.Sub(c.filled).Seconds())
	}
	c.filled = now
	return c.tokens
}

// spend takes a token of the caller's, or returns how long until there is one;
// with ahead it is taken already, and to be waited for.
func (g *Gate) spend(c *caller, now time.Time, ahead bool) time.Duration {
	if g.cfg.Rate <= 0 {
		return 0
	}
	missing := 1 - g.fill(c, now)
	if missing <= 0 || ahead {
		c.tokens--
	}
	return time.Duration(max(missing, 0) / g.cfg.Rate * float64(time.Second))
}

// lane is the way to one queue.
type lane struct {
	out   int // published and unanswered
	rings [classes]ring
}

// Class says who goes first.
type Class int

// The classes of jobs.
const (
	Interactive Class = iota
	Bulk
	classes
)

// ring holds those who wait, in one line a caller; lines take turns.
type ring struct {
	lines list.List // of *line, the next in front
	of    map[string]*list.Element
}

type line struct {
	caller  string
	waiters list.List // of *waiter
}

type waiter struct {
	ready   chan struct{} // closed with the gate locked when it may go
	granted bool
}

// Enter waits for a caller's turn to publish a job to a queue. Leave must be
// called when the job is answered.
func (g *Gate) Enter(ctx context.Context, caller, queue string, class Class) error {
	g.mu.Lock()
	l := g.lanes[queue]
	if l == nil {
		l = &lane{}
		g.lanes[queue] = l
	}
	if l.out < g.cfg.Window(queue) && l.rings[Interactive].lines.Len() == 0 && (class == Interactive || l.rings[Bulk].lines.Len() == 0) {
		l.out++
		g.mu.Unlock()
		return nil
	}
	if g.cfg.Waiting > 0 && g.waiting >= g.cfg.Waiting {
		err := &fault.Error{
			Status:     http.StatusTooManyRequests,
			Detail:     fmt.Sprintf("%d jobs wait for their turn in this gateway, its limit; try again later", g.waiting),
			RetryAfter: g.done.RetryAfter(g.now(), float64(g.waiting)/10),
		}
		g.mu.Unlock()
		return err
	}
	w := &waiter{ready: make(chan struct{})}
	own, at := l.rings[class].add(caller, w)
	g.waiting++
	g.grant(queue, l) // a window may have grown
	g.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.granted {
		g.leave(queue, l)
	} else {
		l.rings[class].remove(own, at)
		g.waiting--
		g.tidy(queue, l)
	}
	return context.Cause(ctx)
}

// Leave says that a job that was let in is answered.
func (g *Gate) Leave(queue string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done.Tick(g.now())
	if l := g.lanes[queue]; l != nil {
		g.leave(queue, l)
	}
}

func (g *Gate) leave(queue string, l *lane) {
	l.out--
	g.grant(queue, l)
	g.tidy(queue, l)
}

// tidy forgets a lane that nobody uses: workers come and go.
func (g *Gate) tidy(queue string, l *lane) {
	if l.out == 0 && l.rings[Interactive].lines.Len() == 0 && l.rings[Bulk].lines.Len() == 0 {
		delete(g.lanes, queue)
	}
}

// grant lets those in whose turn it is.
func (g *Gate) grant(queue string, l *lane) {
	for window := g.cfg.Window(queue); l.out < window; l.out++ {
		w := l.rings[Interactive].next()
		if w == nil {
			w = l.rings[Bulk].next()
		}
		if w == nil {
			return
		}
		w.granted = true
		close(w.ready)
		g.waiting--
	}
}

// Waiting is how many jobs wait for their turn.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

func (r *ring) add(caller string, w *waiter) (*list.Element, *list.Element) {
	e := r.of[caller]
	if e == nil {
		if r.of == nil {
			r.of = map[string]*list.Element{}
		}
		e = r.lines.PushBack(&line{caller: caller})
		r.of[caller] = e
	}
	return e, e.Value.(*line).waiters.PushBack(w)
}

// next takes out the one whose turn it is; its line goes to the back.
func (r *ring) next() *waiter {
	e := r.lines.Front()
	if e == nil {
		return nil
	}
	l := e.Value.(*line)
	w := l.waiters.Remove(l.waiters.Front()).(*waiter)
	r.lines.MoveToBack(e)
	r.tidy(e)
	return w
}

func (r *ring) remove(e, at *list.Element) {
	e.Value.(*line).waiters.Remove(at)
	r.tidy(e)
}

// tidy takes an empty line out.
func (r *ring) tidy(e *list.Element) {
	if l := e.Value.(*line); l.waiters.Len() == 0 {
		r.lines.Remove(e)
		delete(r.of, l.caller)
	}
}
