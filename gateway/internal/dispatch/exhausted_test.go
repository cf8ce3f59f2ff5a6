package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A job that three workers took and none finished. A command that is still there
// was never begun.
func TestExhausted(t *testing.T) {
	for _, c := range []struct {
		name       string
		kind       protocol.Kind
		worker     string
		begun      bool
		stops      int
		deliveries int
		status     int
		text       string
	}{
		{"poison", protocol.Evaluate, "", true, 0, protocol.MaxDeliver, 500, fmt.Sprintf("delivered %d times", protocol.MaxDeliver)},
		{"handed back once by a worker that stops", protocol.Evaluate, "", true, 1, 2 * protocol.MaxDeliver, 500, "delivered"},
		{"lost deliveries", protocol.Evaluate, "", false, 0, (maxQueuedAnew + 1) * protocol.MaxDeliver, 500, "delivered"},
		{"run", protocol.Run, "w1", false, 0, protocol.MaxDeliver, 503, "was not run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			testExhausted(t, Job{Kind: c.kind, Session: "s1", Worker: c.worker}, c.begun, c.stops, c.deliveries, c.status, c.text)
		})
	}
}

// testExhausted plays a worker that hands a job back, which tells that it began
// it, or doesn't; the first times it does so because it stops.
func testExhausted(t *testing.T, job Job, begun bool, stops, want, status int, text string) {
	g := start(t)
	out := g.do(t.Context(), t, job)
	queue := protocol.EvaluateQueue
	consumer, err := g.EvaluateConsumer(t.Context())
	if job.Worker != "" {
		queue = protocol.WorkerQueue(job.Worker)
		consumer, err = g.WorkerConsumer(t.Context(), job.Worker)
	}
	if err != nil {
		t.Fatal(err)
	}
	var o outcome
	deliveries := 0
	// JetStream notices that a job was delivered too often when a worker asks for more.
	for done := false; !done; {
		if msg := g.pull(t, consumer); msg != nil {
			deliveries++
			meta, err := msg.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			if begun && meta.NumDelivered > 1 {
				g.tell(t, msg, 1)
			}
			if deliveries <= stops {
				g.tell(t, msg, -1)
			}
			if err := msg.Nak(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case o = <-out:
			done = true
		default:
		}
	}
	if o.err != nil || o.Status != status || !strings.Contains(string(o.Body), text) || deliveries != want {
		t.Fatalf("after %d deliveries: outcome %+v %s, want a %d with %q after %d", deliveries, o, o.Body, status, text, want)
	}
	g.stored(t, 0, queue)
}

// pull asks a consumer once, and returns what it has, or nil. Unlike the client's own
// it waits for the server's word, however long that takes: no delivery is lost.
func (g *rig) pull(t *testing.T, c jetstream.Consumer) *nats.Msg {
	t.Helper()
	info := c.CachedInfo()
	inbox := g.NC.NewInbox()
	replies, err := g.NC.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer replies.Unsubscribe()
	next := "$JS.API.CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name
	if err := g.NC.PublishRequest(next, inbox, []byte(`{"batch":1,"expires":20000000}`)); err != nil { // in 20 ms
		t.Fatal(err)
	}
	for {
		msg, err := replies.NextMsg(waitLimit)
		switch {
		case err != nil:
			t.Fatal(err)
		case msg.Reply != "":
			return msg
		case msg.Header.Get("Status") != "100": // which asks whether anybody listens
			return nil
		}
	}
}

// tell plays a worker that begins a job again, or gives it back.
func (g *rig) tell(t *testing.T, msg *nats.Msg, tries int) {
	t.Helper()
	news := &nats.Msg{Subject: msg.Header.Get(protocol.HeaderReply), Header: protocol.News{Tries: tries}.Header(msg.Header.Get(protocol.HeaderJob))}
	if err := g.NC.PublishMsg(news); err != nil {
		t.Fatal(err)
	}
}

// A kept job that was delivered too often and never begun is queued anew; one
// that was begun is answered.
func TestExhaustedKeptJob(t *testing.T) {
	var begun atomic.Bool
	finished := make(chan protocol.Result, 1)
	g := startWith(t, func(c *Config) {
		c.Requeue = func(context.Context, string) (bool, error) { return !begun.Load(), nil }
		c.Finish = func(_ context.Context, _ string, r protocol.Result) error {
			finished <- r
			return nil
		}
	})
	err := g.Store(t.Context(), Job{Kind: protocol.Evaluate, Session: "s1", Body: []byte("{}")}, protocol.Kept{Job: "j1", Deadline: time.Now().Add(time.Minute)}, "m1")
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := g.EvaluateConsumer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deliveries := 0
	for deadline := time.Now().Add(waitLimit); len(finished) == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("not given up after %d deliveries", deliveries)
		}
		if msg := g.pull(t, consumer); msg != nil {
			if deliveries++; deliveries > protocol.MaxDeliver {
				begun.Store(true)
			}
			if err := msg.Nak(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := <-finished; deliveries != 2*protocol.MaxDeliver || r.Status != 500 {
		t.Errorf("%d after %d deliveries, want 500 after %d", r.Status, deliveries, 2*protocol.MaxDeliver)
	}
	g.stored(t, 0, protocol.EvaluateQueue)
}

// behind is a stream as a replica shows it that has nothing yet.
type behind struct{ jetstream.Stream }

func (behind) GetMsg(context.Context, uint64, ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	return nil, jetstream.ErrMsgNotFound
}

// The replica that was asked doesn't have the job of an advisory yet: it is dealt
// with all the same. One that the leader doesn't have is left.
func TestExhaustedJobThatAReplicaLacks(t *testing.T) {
	begun := true
	finished := make(chan string, 1)
	g := startWith(t, func(c *Config) {
		c.Jobs = behind{c.Jobs}
		c.Requeue = func(context.Context, string) (bool, error) { return !begun, nil }
		c.Finish = func(_ context.Context, job string, _ protocol.Result) error {
			finished <- job
			return nil
		}
	})
	store := func(id string) advisory {
		t.Helper()
		err := g.Store(t.Context(), Job{Kind: protocol.Evaluate, Session: "s1", Body: []byte("{}")}, protocol.Kept{Job: id, Deadline: time.Now().Add(time.Minute)}, id)
		if err != nil {
			t.Fatal(err)
		}
		m, err := bus.Last(t.Context(), g.NC, protocol.JobsStream, protocol.EvaluateQueue)
		if err != nil {
			t.Fatal(err)
		}
		return advisory{Sequence: m.Sequence, Deliveries: protocol.MaxDeliver}
	}
	one := store("j1")
	if err := g.giveUp(t.Context(), one); err != nil || len(finished) != 1 || <-finished != "j1" {
		t.Fatalf("not given up: %v", err)
	}
	if err := g.giveUp(t.Context(), one); !errors.Is(err, bus.ErrNoMessage) {
		t.Errorf("error %v for a job that is gone", err)
	}
	begun = false
	two := store("j2")
	if err := g.giveUp(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	m, err := bus.Last(t.Context(), g.NC, protocol.JobsStream, protocol.EvaluateQueue)
	if err != nil || m.Header.Get(protocol.HeaderJob) != "j2" || string(m.Data) != "{}" || m.Sequence == two.Sequence {
		t.Errorf("not queued anew: %+v %v", m, err)
	}
}
