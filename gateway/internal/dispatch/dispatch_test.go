package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const queueLimit = 3

// waitLimit is how long anything that must happen may take, on a machine that may
// stand still for seconds.
const waitLimit = time.Minute

// jobTime is the deadline of jobs, which no test is to come to.
const jobTime = 2 * waitLimit

// rig is a dispatcher on a NATS of its own.
type rig struct {
	*Dispatcher
	*bus.Bus
	cancels *nats.Subscription // gets every cancellation
}

func start(t *testing.T) *rig {
	t.Helper()
	return startWith(t, func(*Config) {})
}

func startWith(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	g := new(rig)
	if g.Bus, err = bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: queueLimit}); err != nil {
		t.Fatal(err)
	}
	if g.cancels, err = nc.SubscribeSync(protocol.CancelAll); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		NC: nc, Jobs: g.Bus.Jobs, Backlog: g.Bus.Backlog, Gateway: "g1", QueueLimit: queueLimit,
		BacklogLimit: bus.BacklogShares * queueLimit, BacklogBytes: bus.DefaultBacklogBytes,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	change(&cfg)
	if g.Dispatcher, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return g
}

type outcome struct {
	protocol.Result
	err error
}

// do starts a job; its outcome comes on the channel.
func (g *rig) do(ctx context.Context, t *testing.T, job Job) <-chan outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, jobTime)
	t.Cleanup(cancel)
	out := make(chan outcome, 1)
	go func() {
		r, err := g.Do(ctx, job)
		out <- outcome{r, err}
	}()
	return out
}

// stored waits until the stream holds n messages of a queue and returns the last.
func (g *rig) stored(t *testing.T, n uint64, queue string) *jetstream.RawStreamMsg {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		info, err := g.Bus.Jobs.Info(t.Context(), jetstream.WithSubjectFilter(queue))
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Subjects[queue] == n {
			if n == 0 {
				return nil
			}
			msg, err := g.Bus.Jobs.GetLastMsgForSubject(t.Context(), queue)
			if err != nil {
				t.Fatal(err)
			}
			return msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d jobs in %s, want %d", info.State.Subjects[queue], queue, n)
		}
	}
}

// reply answers a stored job, as a worker would.
func (g *rig) reply(t *testing.T, msg *jetstream.RawStreamMsg, status int, body string) {
	t.Helper()
	job, err := protocol.ParseJob(msg.Header, msg.Data)
	if err != nil {
		t.Fatal(err)
	}
	r := protocol.Result{Job: job.ID, Worker: "w1", Status: status}
	if err := g.NC.PublishMsg(&nats.Msg{Subject: job.Reply, Header: r.Header(), Data: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func wantFault(t *testing.T, err error, status int, contains string) *fault.Error {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Status != status || !strings.Contains(f.Detail, contains) {
		t.Fatalf("error %v, want a %d with %q", err, status, contains)
	}
	return f
}

func (g *rig) wantEnded(t *testing.T, kind protocol.Kind, outcome string, n float64) {
	t.Helper()
	if got := testutil.ToFloat64(g.metrics.done.WithLabelValues(string(kind), outcome)); got != n {
		t.Errorf("jobs_ended_total{%s,%s} is %v, want %v", kind, outcome, got, n)
	}
}

func TestJobAndResult(t *testing.T) {
	g := start(t)
	out := g.do(t.Context(), t, Job{Kind: protocol.Evaluate, RequestID: "r1", Session: "s1", Body: []byte(`{"id":"s1"}`)})
	msg := g.stored(t, 1, protocol.EvaluateQueue)
	job, err := protocol.ParseJob(msg.Header, msg.Data)
	if err != nil {
		t.Fatal(err)
	}
	if job.Kind != protocol.Evaluate || job.RequestID != "r1" || job.Session != "s1" || job.Epoch != 0 ||
		string(job.Body) != `{"id":"s1"}` || !job.Deadline.After(job.Enqueued.Add(jobTime/2)) {
		t.Errorf("job on the wire: %+v", job)
	}
	g.reply(t, msg, 200, `{"first":1}`)
	g.reply(t, msg, 500, `{"second":2}`) // by another worker, after a redelivery
	if o := <-out; o.err != nil || o.Status != 200 || string(o.Body) != `{"first":1}` || o.Worker != "w1" {
		t.Fatalf("outcome %+v, want the first result", o)
	}
	eventually(t, "the second result is counted", func() bool { return testutil.ToFloat64(g.metrics.duplicates) == 1 })
	g.wantEnded(t, protocol.Evaluate, answered, 1)
}

func TestOwnersQueue(t *testing.T) {
	g := start(t)
	out := g.do(t.Context(), t, Job{Kind: protocol.Run, Session: "s1", Worker: "w1", Epoch: 7})
	msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
	if job, err := protocol.ParseJob(msg.Header, msg.Data); err != nil || job.Epoch != 7 || job.Kind != protocol.Run {
		t.Errorf("job on the wire: %+v, %v", job, err)
	}
	g.reply(t, msg, http.StatusMisdirectedRequest, "")
	if o := <-out; o.err != nil || o.Status != http.StatusMisdirectedRequest {
		t.Fatalf("outcome %+v, want the worker's 421", o)
	}
}

func TestUnreadableResult(t *testing.T) {
	for _, c := range []struct{ name, status string }{{"no status", ""}, {"no number", "fine"}, {"no HTTP status", "7"}} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(&nats.Msg{Header: nats.Header{protocol.HeaderWorker: {"w1"}, protocol.HeaderStatus: {c.status}}})
			if err == nil || !strings.Contains(err.Error(), "w1") {
				t.Errorf("error %v, want one that names the worker", err)
			}
		})
	}
}

func TestQueueFull(t *testing.T) {
	g := start(t)
	var waiting []<-chan outcome
	for i := range queueLimit {
		waiting = append(waiting, g.do(t.Context(), t, Job{Kind: protocol.Evaluate}))
		g.stored(t, uint64(i+1), protocol.EvaluateQueue)
	}
	o := <-g.do(t.Context(), t, Job{Kind: protocol.Evaluate})
	if f := wantFault(t, o.err, 429, "3 jobs"); f.RetryAfter < 1 {
		t.Errorf("Retry-After %d, want at least 1", f.RetryAfter)
	}
	g.wantEnded(t, protocol.Evaluate, rejected, 1)
	// Another queue has its own limit.
	other := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1", Epoch: 1})
	g.reply(t, g.stored(t, 1, protocol.WorkerQueue("w1")), 200, "")
	if o := <-other; o.err != nil {
		t.Errorf("a job for another queue: %v", o.err)
	}
	eventually(t, "the depths are those of the queues", func() bool {
		return nil == testutil.CollectAndCompare(depth{g.Bus.Jobs, g.Bus.Backlog}, strings.NewReader(`
# HELP gradefleet_queue_depth Jobs that wait or run, by queue: the shared one (evaluate), all workers' own together (worker), bulk, and what waits to come to that (backlog).
# TYPE gradefleet_queue_depth gauge
gradefleet_queue_depth{queue="backlog"} 0
gradefleet_queue_depth{queue="bulk"} 0
gradefleet_queue_depth{queue="evaluate"} 3
gradefleet_queue_depth{queue="worker"} 1
`))
	})
	g.Close() // and with it those that wait
	for _, w := range waiting {
		wantFault(t, (<-w).err, 503, "stopping")
	}
}

// endless is a context that ends, for a reason, when a test says so.
type endless struct {
	context.Context
	done chan struct{}
	err  error
}

func (e *endless) Done() <-chan struct{} { return e.done }

func (e *endless) Err() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

func TestNobodyWaitsAnyMore(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		outcome string
	}{{"deadline", 504, timeout}, {"hang-up", fault.StatusClientClosed, cancelled}} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t)
			ctx := &endless{t.Context(), make(chan struct{}), context.Canceled}
			if c.status == 504 {
				ctx.err = context.DeadlineExceeded
			}
			out := g.do(ctx, t, Job{Kind: protocol.Evaluate})
			id := g.stored(t, 1, protocol.EvaluateQueue).Header.Get(protocol.HeaderJob)
			close(ctx.done)
			wantFault(t, (<-out).err, c.status, "")
			g.stored(t, 0, protocol.EvaluateQueue) // it left the queue
			m, err := g.cancels.NextMsg(waitLimit)
			if err != nil || m.Subject != protocol.CancelSubject(id) {
				t.Errorf("cancellation %v, %v; want of job %s", m, err, id)
			}
			g.wantEnded(t, protocol.Evaluate, c.outcome, 1)
			if n := g.Pending(); n != 0 {
				t.Errorf("%d jobs pending, want 0", n)
			}
		})
	}
}

func TestNoStream(t *testing.T) {
	g := start(t)
	if err := g.JS.DeleteStream(t.Context(), protocol.JobsStream); err != nil {
		t.Fatal(err)
	}
	o := <-g.do(t.Context(), t, Job{Kind: protocol.Run})
	if f := wantFault(t, o.err, 503, "not run"); f.RetryAfter != 1 {
		t.Errorf("Retry-After %d, want 1", f.RetryAfter)
	}
	g.wantEnded(t, protocol.Run, unavailable, 1)
}

// When nobody knows whether a command was queued it is queued again, and is there
// once; an evaluate's caller is told to ask again.
func TestPublicationInDoubt(t *testing.T) {
	g := startWith(t, func(c *Config) { c.ackTimeout = 50 * time.Millisecond })
	info, err := g.Bus.Jobs.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mute := func(noAck bool) {
		t.Helper()
		info.Config.NoAck = noAck
		if _, err := g.JS.UpdateStream(t.Context(), info.Config); err != nil {
			t.Fatal(err)
		}
	}
	mute(true)
	wantFault(t, (<-g.do(t.Context(), t, Job{Kind: protocol.Evaluate})).err, 503, "safe to ask again")
	out := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1"})
	msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
	time.Sleep(100 * time.Millisecond) // it is published again meanwhile
	mute(false)
	g.acked(t)
	g.stored(t, 1, protocol.WorkerQueue("w1"))
	g.reply(t, msg, 200, "")
	if o := <-out; o.err != nil || o.Status != 200 {
		t.Errorf("outcome %+v, want the result", o)
	}
}

func TestConnectionGone(t *testing.T) {
	g := start(t)
	g.NC.Close()
	wantFault(t, (<-g.do(t.Context(), t, Job{Kind: protocol.Evaluate})).err, 503, "ask again")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := g.Ask(ctx, "w1", protocol.OpRead, protocol.SessionOp{Session: "s"})
	wantFault(t, err, 503, "ask again")
}

func TestCloseAnswersAndTakesBack(t *testing.T) {
	g := start(t)
	evaluate := g.do(t.Context(), t, Job{Kind: protocol.Evaluate})
	g.stored(t, 1, protocol.EvaluateQueue)
	run := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1", Epoch: 1})
	g.stored(t, 1, protocol.WorkerQueue("w1"))
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	wantFault(t, (<-evaluate).err, 503, "safe to ask again")
	wantFault(t, (<-run).err, 502, "may have run")
	g.stored(t, 0, protocol.EvaluateQueue)
	g.stored(t, 0, protocol.WorkerQueue("w1"))
	wantFault(t, (<-g.do(t.Context(), t, Job{Kind: protocol.Evaluate})).err, 503, "stopping")
}

func TestTooLargeForNATS(t *testing.T) {
	g := start(t)
	o := <-g.do(t.Context(), t, Job{Kind: protocol.Evaluate, Body: make([]byte, protocol.MaxMessageBytes+1)})
	wantFault(t, o.err, 413, fmt.Sprint(protocol.MaxMessageBytes))
}
