package dispatch

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestLostResults(t *testing.T) {
	lost := func(g *rig) { g.WorkerLost("w1", false) }
	restarted := func(g *rig) { g.WorkerLost("w1", true) }
	reconnected := func(g *rig) { g.Reconnected() }
	for _, c := range []struct {
		name   string
		kind   protocol.Kind
		worker string
		begun  bool // out of the stream: a run begun, an evaluate done
		event  func(*rig)
		status int // 0: it is still awaited
		detail string
	}{
		{"run, begun, worker lost", protocol.Run, "w1", true, lost, 502, "may have run"},
		{"run, queued, worker lost", protocol.Run, "w1", false, lost, 503, "taken back"},
		{"run, begun, worker restarted", protocol.Run, "w1", true, restarted, 502, "may have run"},
		{"run, queued, worker restarted", protocol.Run, "w1", false, restarted, 0, ""},
		{"run, begun, another worker lost", protocol.Run, "w2", true, lost, 0, ""},
		{"evaluate, done, worker lost", protocol.Evaluate, "w1", true, lost, 503, "result was lost"},
		{"evaluate, queued, worker lost", protocol.Evaluate, "w1", false, lost, 503, "taken back"},
		{"evaluate, queued, worker restarted", protocol.Evaluate, "w1", false, restarted, 0, ""},
		{"evaluate of the shared queue, a worker lost", protocol.Evaluate, "", false, lost, 0, ""},
		{"evaluate, done, reconnected", protocol.Evaluate, "", true, reconnected, 503, "result was lost"},
		{"evaluate, queued, reconnected", protocol.Evaluate, "", false, reconnected, 0, ""},
		{"run, begun, reconnected", protocol.Run, "w1", true, reconnected, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t)
			g.lostGrace, g.restartGrace = 5*time.Millisecond, 10*time.Millisecond
			out := g.do(t.Context(), t, Job{Kind: c.kind, Worker: c.worker})
			queue := protocol.EvaluateQueue
			if c.worker != "" {
				queue = protocol.WorkerQueue(c.worker)
			}
			msg := g.stored(t, 1, queue)
			g.acked(t)
			if c.begun {
				if err := g.Bus.Jobs.DeleteMsg(t.Context(), msg.Sequence); err != nil {
					t.Fatal(err)
				}
			}
			c.event(g)
			if c.status != 0 {
				wantFault(t, (<-out).err, c.status, c.detail)
				g.stored(t, 0, queue)
				return
			}
			select {
			case o := <-out:
				t.Fatalf("answered %+v, want it to be awaited still", o)
			case <-time.After(100 * time.Millisecond):
			}
			g.reply(t, msg, 200, "")
			if o := <-out; o.err != nil || o.Status != 200 {
				t.Fatalf("outcome %+v, want the result", o)
			}
		})
	}
}

// A worker that was not lost may begin a command just when it is taken back: then
// nobody may say that it was not run.
func TestBegunWhileTakenBack(t *testing.T) {
	g := start(t)
	out := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1"})
	msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
	g.acked(t)
	if err := g.Bus.Jobs.DeleteMsg(t.Context(), msg.Sequence); err != nil { // as the worker does
		t.Fatal(err)
	}
	p := g.take(msg.Header.Get(protocol.HeaderJob))
	p.answer <- answer{err: errors.New("taken back"), abandon: true, otherwise: &fault.Error{Status: 502, Detail: "may have run"}}
	wantFault(t, (<-out).err, 502, "may have run")
}

// Who was cut off asks for what it may have missed.
func TestReconnectedAsksForResults(t *testing.T) {
	g := start(t)
	asked, err := g.NC.SubscribeSync(protocol.ResendAll)
	if err != nil {
		t.Fatal(err)
	}
	out := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1"})
	msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
	g.Reconnected()
	m, err := asked.NextMsg(waitLimit)
	if err != nil || protocol.LastToken(m.Subject) != "g1" || string(m.Data) != msg.Header.Get(protocol.HeaderJob) {
		t.Errorf("asked %v, %v; want the gateway's own subject and job", m, err)
	}
	g.reply(t, msg, 200, "")
	<-out
}

// A result that arrives within the grace counts.
func TestResultAfterTheLoss(t *testing.T) {
	g := start(t)
	g.lostGrace = jobTime
	out := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1"})
	msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
	g.WorkerLost("w1", false)
	g.reply(t, msg, 200, "")
	if o := <-out; o.err != nil || o.Status != 200 {
		t.Fatalf("outcome %+v, want the result", o)
	}
	closed := make(chan error, 1)
	go func() { closed <- g.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(waitLimit):
		t.Error("Close waits for the grace")
	}
}

// acked waits until the one pending job knows its place in the stream.
func (g *rig) acked(t *testing.T) {
	t.Helper()
	eventually(t, "the job is acked", func() (acked bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, p := range g.pending {
			acked = p.sequence.Load() != 0
		}
		return acked
	})
}

func TestAsk(t *testing.T) {
	g := start(t)
	sub, err := g.NC.Subscribe(protocol.SessionSubject("w1", protocol.OpRead), func(m *nats.Msg) {
		op, err := protocol.ParseSessionOp(m.Header, m.Data)
		switch {
		case err != nil:
			t.Error(err)
		case string(op.Body) == "hang":
			return
		case string(op.Body) == "broken":
			m.Respond(nil)
			return
		}
		r := protocol.Result{Worker: "w1", Status: 404}
		m.RespondMsg(&nats.Msg{Header: r.Header(), Data: append([]byte(op.Session+" "), op.Body...)})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	ask := func(timeout time.Duration, worker, body string) (protocol.Result, error) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return g.Ask(ctx, worker, protocol.OpRead, protocol.SessionOp{Session: "s1", Epoch: 1, Body: []byte(body)})
	}

	if r, err := ask(waitLimit, "w1", "body"); err != nil || r.Status != 404 || string(r.Body) != "s1 body" {
		t.Errorf("answer %+v %s, %v", r, r.Body, err)
	}
	_, err = ask(waitLimit, "w2", "")
	wantFault(t, err, 503, "w2")
	if !errors.Is(err, ErrNobody) {
		t.Errorf("error %v, want ErrNobody in its chain", err)
	}
	_, err = ask(50*time.Millisecond, "w1", "hang")
	wantFault(t, err, 504, "may have been done")
	if _, err = ask(waitLimit, "w1", "broken"); err == nil {
		t.Error("an answer without a status went through")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = g.Ask(ctx, "w1", protocol.OpRead, protocol.SessionOp{Session: "s1", Epoch: 1, Body: []byte("hang")})
	wantFault(t, err, 499, "")
}

// What was lost on its way is asked again where that does no harm: a read, and
// what has an id, which a worker that knows its instance does once.
func TestLostReplies(t *testing.T) {
	for _, c := range []struct {
		op, instance string
		status       int // of the fault; 0 for none
	}{{protocol.OpRead, "", 0}, {protocol.OpRead, "7", 0}, {protocol.OpWrite, "7", 0}, {protocol.OpWrite, "", 504}} {
		g := start(t)
		g.askPatience = 20 * time.Millisecond
		ids := make(chan string, 100)
		sub, err := g.NC.Subscribe(protocol.SessionSubject("w1", c.op), func(m *nats.Msg) {
			if ids <- m.Header.Get(protocol.HeaderJob) + m.Header.Get(protocol.HeaderInstance); len(ids) > 1 {
				m.RespondMsg(&nats.Msg{Header: (&protocol.Result{Worker: "w1", Status: 200}).Header()})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		limit := waitLimit
		if c.status != 0 {
			limit = 100 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		r, err := g.Ask(ctx, "w1", c.op, protocol.SessionOp{Session: "s1", Epoch: 1, Instance: c.instance})
		if c.status != 0 {
			wantFault(t, err, c.status, "may have been done")
		} else if first, second := <-ids, <-ids; err != nil || r.Status != 200 || first != second {
			t.Errorf("%+v: %+v, %v, asked as %q and %q", c, r, err, first, second)
		}
	}
}

// A change that another one overtook is sent again, as sent now: the same change,
// in another attempt, which no worker has answered yet.
func TestOvertakenChange(t *testing.T) {
	g := start(t)
	var sent []time.Time
	attempts := map[string]bool{}
	sub, err := g.NC.Subscribe(protocol.SessionSubject("w1", protocol.OpWrite), func(m *nats.Msg) {
		op, err := protocol.ParseSessionOp(m.Header, m.Data)
		if err != nil {
			t.Error(err)
		}
		if op.ID != "change" || op.Attempt == "" || attempts[op.Attempt] {
			t.Errorf("asked for %q in attempt %q", op.ID, op.Attempt)
		}
		attempts[op.Attempt] = true
		r := protocol.Result{Worker: "w1", Status: protocol.StatusOvertaken}
		if sent = append(sent, op.Sent); len(sent) == 3 {
			r.Status = 200
		}
		m.RespondMsg(&nats.Msg{Header: r.Header()})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	r, err := g.Ask(ctx, "w1", protocol.OpWrite, protocol.SessionOp{Session: "s1", Epoch: 1, ID: "change", Instance: "7"})
	if err != nil || r.Status != 200 || len(sent) != 3 || !sent[0].Before(sent[1]) || !sent[1].Before(sent[2]) {
		t.Errorf("%+v, %v after sends at %v; want the third to be taken, each later than the one before", r, err, sent)
	}
}

func TestQueuedIsAssumedWhenUnknown(t *testing.T) {
	g := start(t)
	p := new(pending)
	if !g.queued(p) {
		t.Error("a job without an ack counts as gone")
	}
	p.sequence.Store(99)
	if g.queued(p) {
		t.Error("a job that is not in the stream counts as queued")
	}
	if err := g.JS.DeleteStream(t.Context(), protocol.JobsStream); err != nil {
		t.Fatal(err)
	}
	if _, err := g.JS.Stream(t.Context(), protocol.JobsStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatal(err)
	}
	if !g.queued(p) {
		t.Error("a stream that does not answer counts as an empty one")
	}
}

// Who gives up on a worker that isn't there, because it is known to be lost,
// learns that nothing was done.
func TestNobodyWasAskedInVain(t *testing.T) {
	g := start(t)
	g.nobodyWait = jobTime
	// On a busy machine the first question may be under way when it is given up: then
	// nobody can tell.
	for patience := nobodyWait / 4; ; patience *= 2 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(patience, cancel)
		_, err := g.Ask(ctx, "w1", protocol.OpDelete, protocol.SessionOp{Session: "s", Epoch: 1, Instance: "i", Body: []byte("{}")})
		if errors.Is(err, ErrNobody) {
			return
		}
		if patience > waitLimit {
			t.Fatalf("error %v, want ErrNobody", err)
		}
	}
}
