package dispatch

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// feeder plays the one that knows the lines, and says the same of all. It returns
// what it was asked.
func (g *rig) feeder(t *testing.T, l protocol.Line) <-chan protocol.LineRequest {
	t.Helper()
	reply, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan protocol.LineRequest, 100)
	sub, err := g.NC.Subscribe(protocol.BacklogLine, func(m *nats.Msg) {
		var r protocol.LineRequest
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		asked <- r
		m.Respond(reply)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	return asked
}

// submit stores an asynchronous job of a caller.
func (g *rig) submit(t *testing.T, caller string, bytes int) (id string, err error) {
	t.Helper()
	id = protocol.NewID()
	job := Job{Kind: protocol.Evaluate, Session: "s", Bulk: true, Caller: caller, Body: make([]byte, bytes)}
	return id, g.Store(t.Context(), job, protocol.Kept{Job: id, Deadline: time.Now().Add(time.Minute)}, id)
}

// One caller's line is full, then the backlog is: each is said, with when it pays
// to come again.
func TestLineIsFull(t *testing.T) {
	g := startWith(t, func(c *Config) { c.BacklogLimit = 2 * queueLimit })
	if _, err := bus.Ensure(t.Context(), g.NC, bus.Settings{QueueLimit: queueLimit, BacklogLimit: 2 * queueLimit}); err != nil {
		t.Fatal(err)
	}
	flood := func(caller string) error {
		t.Helper()
		for range queueLimit {
			if _, err := g.submit(t, caller, 1); err != nil {
				t.Fatal(err)
			}
		}
		_, err := g.submit(t, caller, 1)
		return err
	}
	const mine = "3 of your asynchronous jobs wait, the limit for one caller"
	if f := wantFault(t, flood("a"), 429, mine); f.RetryAfter != 10 { // nobody knows how fast it goes
		t.Errorf("Retry-After %d", f.RetryAfter)
	}
	// 40 of his own 400, and four callers take turns, 20 jobs a second.
	asked := g.feeder(t, protocol.Line{Jobs: 400, MaxJobs: 400, All: 1000, Callers: 4, PerSecond: 20})
	_, err := g.submit(t, "a", 1)
	if f := wantFault(t, err, 429, "400 of your"); f.RetryAfter != 8 {
		t.Errorf("Retry-After %d, want 8", f.RetryAfter)
	}
	if r := <-asked; r != (protocol.LineRequest{Subject: protocol.BacklogSubject("a")}) {
		t.Errorf("asked %+v", r)
	}
	flood("b")
	_, err = g.submit(t, "c", 1)
	if f := wantFault(t, err, 429, "it holds 6 jobs of all callers, its limit"); f.RetryAfter != 5 { // 100 of all
		t.Errorf("Retry-After %d, want 5", f.RetryAfter)
	}
	g.wantEnded(t, protocol.Evaluate, callerLimit, 3)
	g.wantEnded(t, protocol.Evaluate, rejected, 1)
}

// What is larger than a job's part of the backlog is stored if the line has room
// for it, or if nobody can say.
func TestLargeJobs(t *testing.T) {
	const part = 1 << 10
	g := startWith(t, func(c *Config) { c.BacklogLimit, c.BacklogBytes = 10, 10*part })
	if _, err := g.submit(t, "a", part+1); err != nil {
		t.Fatal(err)
	}
	asked := g.feeder(t, protocol.Line{Refused: true, Jobs: 100, Bytes: 4000, MaxJobs: 1000, MaxBytes: 5000, All: 100, Callers: 1, PerSecond: 2})
	if _, err := g.submit(t, "a", part); err != nil || len(asked) > 0 {
		t.Errorf("a small job: %v, asked %d times", err, len(asked))
	}
	id, err := g.submit(t, "a", part+1)
	f := wantFault(t, err, 429, fmt.Sprintf("that wait have 4000 bytes, this one has %d, and the limit for one caller is 5000", part+1))
	if f.RetryAfter != 5 { // 10 of 100, two a second
		t.Errorf("Retry-After %d, want 5", f.RetryAfter)
	}
	if r := <-asked; r != (protocol.LineRequest{Subject: protocol.BacklogSubject("a"), Job: id, Bytes: part + 1}) {
		t.Errorf("asked %+v", r)
	}
	g.wantEnded(t, protocol.Evaluate, callerLimit, 1)
}

// The backlog's bytes are used up.
func TestBacklogBytesAreFull(t *testing.T) {
	g := startWith(t, func(c *Config) { c.BacklogBytes = 1000 })
	if _, err := bus.Ensure(t.Context(), g.NC, bus.Settings{QueueLimit: queueLimit, BacklogBytes: 1000}); err != nil {
		t.Fatal(err)
	}
	_, err := g.submit(t, "a", 1000)
	wantFault(t, err, 429, "have 1000 bytes, its limit")
	g.wantEnded(t, protocol.Evaluate, rejected, 1)
}
