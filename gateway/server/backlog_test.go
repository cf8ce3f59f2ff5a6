package server_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// submitAs submits a job as a caller, and returns the answer.
func (g *gateway) submitAs(caller, session string) answer {
	g.c.t.Helper()
	return g.with("/evaluate_code", evaluate(session), "Prefer", "respond-async", "X-API-Key", caller)
}

// A caller with two hundred asynchronous jobs doesn't make another's wait for them.
func TestAsyncCallersTakeTurns(t *testing.T) {
	c := newCluster(t, 2, func(cfg *server.Config) { cfg.QueueLimit = 1000 })
	release := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-release
			return w.answer(j, m)
		}
	})
	const flood = 200
	for range flood {
		c.gateways[0].submitAs("flood", "many").want(t, 202, "queued")
	}
	at := c.gateways[1].submitAs("other", "one")
	at.want(t, 202, "queued")
	close(release)
	before := 0
	for within(t, "job", w.jobs).Session != "one" {
		before++
	}
	// Three for each of its four slots and eight are in the bulk queue; a few more
	// may come before the feeder knows of the other's.
	if before > flood/2 {
		t.Errorf("%d jobs of another caller were begun before", before)
	}
	one := c.gateways[0].must(c.gateways[0].send(t.Context(), http.MethodGet, at.header.Get("Location")+"?wait=30", "", "X-API-Key", "other"))
	one.want(t, 200, `"state":"done"`)
	for range flood - before {
		within(t, "job", w.jobs)
	}
	c.queued(protocol.BulkQueue, 0)
	c.waiting(0)
}

// waiting waits until so many jobs are in the backlog.
func (c *cluster) waiting(n uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%d jobs are in the backlog", n), func() bool {
		info, err := c.bus.Backlog.Info(c.t.Context())
		return err == nil && info.State.Msgs == n
	})
}

// What is more than the bulk queue and a caller's line take is refused, and seen
// by who looks; all that was taken is done.
func TestLineIsFull(t *testing.T) {
	const limit = 5
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.QueueLimit = limit })
	g := c.gateways[0]
	w := c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
	for range limit {
		g.submitAs("a", "s").want(t, 202, "queued")
	}
	c.queued(protocol.BulkQueue, limit) // its limit, which is less than the window
	c.waiting(0)
	for range limit {
		g.submitAs("a", "s").want(t, 202, "queued")
	}
	full := g.submitAs("a", "s")
	full.want(t, 429, "5 of your asynchronous jobs wait, the limit for one caller")
	if s, err := strconv.Atoi(full.header.Get("Retry-After")); err != nil || s < 1 {
		t.Errorf("Retry-After %q", full.header.Get("Retry-After"))
	}
	if n := g.value("gradefleet_jobs_ended_total", "outcome", "caller_limit"); n != 1 {
		t.Errorf("%v jobs were refused by the metric, want 1", n)
	}
	eventually(t, "the backlog is shown", func() bool {
		body := g.get("/workers").body
		return strings.Contains(body, `{"queue":"backlog","waiting":5,"running":0`) && !strings.Contains(body, `"backlog","waiting":5,"running":0,"oldest_s":0}`)
	})
	eventually(t, "the backlog's depth is shown", func() bool { return g.value("gradefleet_queue_depth", "queue", "backlog") == limit })
	w.leave()
	w = c.worker("w2", nil)
	for range 2 * limit {
		within(t, "job", w.jobs)
	}
	c.queued(protocol.BulkQueue, 0)
	c.waiting(0)
}

// One caller fills his line, in number or in bytes, and another's job is taken and
// done; all together have a limit, too.
func TestFloodLeavesRoom(t *testing.T) {
	const limit = 5
	for _, c := range []struct {
		name, mine string
		// body is that of jobs, room how many of them a line takes, and all how many
		// the backlog does.
		body, room, all int
	}{
		{"jobs", "5 of your asynchronous jobs wait, the limit for one caller", 0, limit, 2*limit + 1},
		{"bytes", "the limit for one caller is 454545", 200 << 10, 2, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newCluster(t, 1, func(cfg *server.Config) {
				cfg.QueueLimit, cfg.BacklogLimit, cfg.BacklogBytes = limit, 2*limit+1, 1_000_000
				cfg.MaxBody = 300_000
			}).gateways[0]
			submit := func(caller string) answer {
				t.Helper()
				body := evaluate("s")
				body["pad"] = strings.Repeat("x", c.body)
				return g.with("/evaluate_code", body, "Prefer", "respond-async", "X-API-Key", caller)
			}
			w := g.c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
			for range limit {
				submit("flood").want(t, 202, "queued")
			}
			g.c.queued(protocol.BulkQueue, limit)
			g.c.waiting(0)
			for range c.room {
				submit("flood").want(t, 202, "queued")
			}
			for range 3 {
				submit("flood").want(t, 429, c.mine)
			}
			at := submit("other")
			at.want(t, 202, "queued")
			for i := range c.all - c.room - 1 {
				submit(fmt.Sprint("other", i/c.room)).want(t, 202, "queued")
			}
			full := submit("last")
			full.want(t, 429, "The backlog of asynchronous jobs is full")
			if s, err := strconv.Atoi(full.header.Get("Retry-After")); err != nil || s < 1 {
				t.Errorf("Retry-After %q", full.header.Get("Retry-After"))
			}
			for outcome, want := range map[string]float64{"caller_limit": 3, "rejected": 1} {
				if n := g.value("gradefleet_jobs_ended_total", "outcome", outcome); n != want {
					t.Errorf("%v jobs ended as %s by the metric, want %v", n, outcome, want)
				}
			}
			w.leave()
			w = g.c.worker("w2", nil)
			for range limit + c.all {
				within(t, "job", w.jobs)
			}
			g.must(g.send(t.Context(), http.MethodGet, at.header.Get("Location")+"?wait=30", "", "X-API-Key", "other")).want(t, 200, `"state":"done"`)
			g.c.waiting(0)
		})
	}
}

// A gateway that stops hands over to another; nothing that waits is forgotten.
func TestBacklogIsHandedOver(t *testing.T) {
	c := newCluster(t, 2, nil)
	one, two := c.gateways[0], c.gateways[1]
	feeder := func(g *gateway) bool { return g.value("gradefleet_backlog_feeder") == 1 }
	eventually(t, "one feeds", func() bool { return feeder(one) != feeder(two) })
	if feeder(two) {
		one, two = two, one
	}
	hold := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-hold
			return w.answer(j, m)
		}
	})
	for range 40 {
		two.submit("/evaluate_code", evaluate("s"))
	}
	if err := one.end(); err != nil {
		t.Fatal(err)
	}
	close(hold)
	for range 40 {
		within(t, "job", w.jobs)
	}
	if !feeder(two) {
		t.Error("the other doesn't feed")
	}
	c.queued(protocol.BulkQueue, 0)
	c.waiting(0)
}
