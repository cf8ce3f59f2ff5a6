package bench

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// busyPause is how long a client waits after a 429 that names no time.
	busyPause = 100 * time.Millisecond
	// unreachedPause is how long it waits after a request without an answer:
	// a server that is gone refuses thousands a second.
	unreachedPause = 50 * time.Millisecond
	// maxBusy is how often one request is sent again after a 429.
	maxBusy = 100
)

// busyReason is how a 429 is counted.
var busyReason = strconv.Itoa(http.StatusTooManyRequests)

// series is one kind of request on one server.
type series struct {
	kind  *kind
	users []*user
	next  atomic.Int64 // the number of the next request
	loop  looper       // what goes through the requests by itself; nil: the users do
}

// newSeries makes clients with a session each, ready to send.
func newSeries(ctx context.Context, k *kind, api api, clients int) (*series, error) {
	s := &series{kind: k}
	for range clients {
		u := &user{api: api, session: protocol.NewUUID()}
		s.users = append(s.users, u)
		if k.prepare == nil {
			continue
		}
		if err := prepare(ctx, k, u); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", k.name, err)
		}
	}
	return s, nil
}

// prepare has patience with a server that is busy.
func prepare(ctx context.Context, k *kind, u *user) error {
	for attempt := 0; ; attempt++ {
		err := k.prepare(ctx, u)
		if err == nil || attempt == maxBusy {
			return err
		}
		if !fleetclient.Busy(err) {
			return err
		}
		u.turn.after(fleetclient.RetryAfter(err))
		if !u.turn.wait(ctx, time.Time{}) {
			return err
		}
	}
}

// bounds of a round.
type bounds struct {
	until time.Time // no request starts then or later; zero: no such end
	upTo  int64     // the number of the first request that isn't part of it
}

// noEnd is for rounds that end by time only.
const noEnd = math.MaxInt64

// observation is what one client saw in one round.
type observation struct {
	work
	latencies []time.Duration
	errors    map[string]int
	verdicts  verdicts
}

// round lets all clients send until the round's end, and waits for the answers.
func (s *series) round(ctx context.Context, b bounds) (seen []*observation, wall time.Duration, err error) {
	if s.loop != nil {
		start := time.Now()
		seen, err = s.loop(s.kind, b.until)
		return seen, time.Since(start), err
	}
	seen = make([]*observation, len(s.users))
	start := time.Now()
	var clients sync.WaitGroup
	for i, u := range s.users {
		clients.Go(func() {
			o := &observation{errors: map[string]int{}, verdicts: newVerdicts()}
			s.drive(ctx, u, b, o)
			o.busy = time.Since(start)
			seen[i] = o
		})
	}
	clients.Wait()
	wall = time.Since(start)
	if s.kind.review != nil && ctx.Err() == nil {
		for i, u := range s.users {
			right, err := s.kind.review(ctx, u)
			if err != nil {
				seen[i].errors[fleetclient.Reason(err)]++
			} else if !right {
				seen[i].errors[wrong]++
			}
		}
	}
	return seen, wall, nil
}

// drive is one client's round. A short one may be over on a busy machine before it
// has begun: a request is sent all the same, or the round would say nothing.
func (s *series) drive(ctx context.Context, u *user, b bounds, o *observation) {
	for first := true; u.turn.wait(ctx, b.until) || first && u.turn.free(ctx); first = false {
		n, ok := u.turn.take(&s.next, b.upTo)
		if !ok {
			return
		}
		sent := time.Now()
		out, err := s.kind.step(ctx, u, n)
		took := time.Since(sent)
		if ctx.Err() != nil {
			return // not the server's doing
		}
		if fleetclient.Busy(err) {
			o.errors[busyReason]++
			u.turn.after(fleetclient.RetryAfter(err))
			u.turn.again(n)
			continue
		}
		u.turn.done()
		o.verdicts.add(out.row, out.differences)
		switch {
		case err != nil:
			o.errors[fleetclient.Reason(err)]++
			if fleetclient.Unreached(err) {
				u.turn.after(unreachedPause)
			}
		case !out.right:
			o.errors[wrong]++
		default:
			o.requests++
			o.cases += out.cases
			o.latencies = append(o.latencies, took)
		}
	}
}

// turn is when a client may send, and what. It outlives rounds: a wish of the
// server holds in the next one too.
type turn struct {
	notBefore time.Time
	pending   int64 // the request to send again, if refused > 0
	refused   int   // times in a row
}

// after keeps the client from sending for a while; 0 is a short one.
func (t *turn) after(d time.Duration) {
	if d <= 0 {
		d = busyPause
	}
	t.notBefore = time.Now().Add(d)
}

// wait returns when the client may send: true, or false if the round, which
// has no end if until is zero, or ctx is over first.
func (t *turn) wait(ctx context.Context, until time.Time) bool {
	now := time.Now()
	ends := !until.IsZero()
	if ctx.Err() != nil || ends && !now.Before(until) {
		return false
	}
	if !t.notBefore.After(now) {
		return true
	}
	wake, over := t.notBefore, false
	if ends && !wake.Before(until) {
		wake, over = until, true
	}
	timer := time.NewTimer(wake.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return !over
	}
}

// free reports whether the client may send now.
func (t *turn) free(ctx context.Context) bool {
	return ctx.Err() == nil && !t.notBefore.After(time.Now())
}

// take returns the number of the request to send, or false if the round has no
// more.
func (t *turn) take(next *atomic.Int64, upTo int64) (int64, bool) {
	if t.refused > 0 {
		return t.pending, true
	}
	n := next.Add(1) - 1
	return n, n < upTo
}

// again makes n the next request, unless it was refused too often.
func (t *turn) again(n int64) {
	t.pending = n
	if t.refused++; t.refused > maxBusy {
		t.refused = 0
	}
}

func (t *turn) done() { t.refused = 0 }

// rewind forgets what a warm-up left, so that each row is asked for once.
func (s *series) rewind() {
	for _, u := range s.users {
		u.turn.done()
	}
}

// part starts the r-th of n rounds that together go through all rows once.
// Clients that found a round at its end have counted on, so each starts anew.
func (s *series) part(r, n int) bounds {
	rows := int64(len(s.kind.rows))
	s.next.Store(rows * int64(r) / int64(n))
	return bounds{upTo: rows * int64(r+1) / int64(n)}
}
