package backlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// waitLimit is how long anything that must happen may take, on a machine that may
	// stand still for seconds.
	waitLimit = time.Minute
	// never is longer than any test.
	never = time.Hour
	// seldom is when what went wrong on a machine that stood still is mended; a test
	// that needed it more than once or twice would take too long.
	seldom = 15 * time.Second
	// window is that of the feeders.
	window = 5
)

// rig is a NATS server, and what tests do with it beside the feeders.
type rig struct {
	*bus.Bus
	t       *testing.T
	server  *embeddednats.Server
	records *kept.Store
	// published gets the id of each job that is published to the bulk queue.
	published chan string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	g := &rig{t: t, server: s, published: make(chan string, 10_000)}
	g.Bus = g.connect()
	g.records = kept.New(g.Bus)
	if _, err := g.NC.Subscribe(protocol.BulkQueue, func(m *nats.Msg) { g.published <- m.Header.Get(protocol.HeaderJob) }); err != nil {
		t.Fatal(err)
	}
	if err := g.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) connect() *bus.Bus {
	g.t.Helper()
	nc, err := nats.Connect("", g.server.Option(), nats.ReconnectWait(10*time.Millisecond), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(nc.Close)
	b, err := bus.Ensure(g.t.Context(), nc, bus.Settings{QueueLimit: 1000})
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// meter counts turns, and takes no time into account.
type meter struct{ atomic.Int64 }

func (m *meter) Tick(time.Time)              { m.Add(1) }
func (m *meter) PerSecond(time.Time) float64 { return float64(m.Load()) }

// running is a feeder that runs, on a connection of its own.
type running struct {
	*Feeder
	nc   *nats.Conn
	stop func() // and wait
}

// feeder starts one. It hardly ever looks at the bulk queue unless a test says so,
// and keeps the lock for ever.
func (g *rig) feeder(name string, change func(*Config)) *running {
	g.t.Helper()
	b := g.connect()
	cfg := Config{
		Bus: b, Gateway: name, Records: g.records, Window: func() int { return window }, Meter: new(meter),
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		lookInterval: seldom, renewInterval: never, lease: never,
	}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { f.Run(ctx) })
	r := &running{Feeder: f, nc: b.NC, stop: func() { cancel(); runs.Wait() }}
	g.t.Cleanup(r.stop)
	return r
}

// present is the feeder's present view; nil if there is none.
func (f *running) present() *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// knows waits until the feeder has seen a message of the backlog.
func (f *running) knows(t *testing.T, sequence uint64) {
	t.Helper()
	eventually(t, fmt.Sprint("the feeder knows message ", sequence), func() bool {
		v := f.present()
		if v == nil {
			return false
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.last >= sequence
	})
}

// job makes a job's record and its message.
func (g *rig) job(caller string, wait time.Duration) (id string, m *nats.Msg) {
	g.t.Helper()
	id = protocol.NewID()
	now := time.Now()
	k := protocol.Kept{Job: id, Kind: protocol.Evaluate, State: protocol.KeptQueued, Session: "s", Caller: caller, Created: now, Deadline: now.Add(wait)}
	eventually(g.t, "the record is made", func() bool {
		_, err := g.records.Create(g.t.Context(), k)
		return err == nil || errors.Is(err, kept.ErrChanged) // it was, and nobody said so in time
	})
	wire := protocol.Job{
		ID: id, Kind: protocol.Evaluate, RequestID: "r", Session: "s", Kept: true, Reply: protocol.SettledSubject(id),
		Enqueued: now, Deadline: k.Deadline,
	}
	return id, &nats.Msg{Subject: protocol.BacklogSubject(caller), Header: wire.Header(), Data: []byte(`{"caller":"` + caller + `"}`)}
}

// store stores a job in the backlog, and returns its id and place there.
func (g *rig) store(caller string, wait time.Duration) (id string, sequence uint64) {
	g.t.Helper()
	id, m := g.job(caller, wait)
	return id, g.put(m, id+".0")
}

// put stores a message, of whatever subject.
func (g *rig) put(m *nats.Msg, messageID string) uint64 {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), waitLimit)
	defer cancel()
	ack, err := g.JS.PublishMsg(ctx, m, jetstream.WithMsgID(messageID))
	if err != nil {
		g.t.Fatal(err)
	}
	return ack.Sequence
}

// many stores several jobs of a caller.
func (g *rig) many(caller string, n int) (ids []string) {
	g.t.Helper()
	for range n {
		id, _ := g.store(caller, time.Minute)
		ids = append(ids, id)
	}
	return ids
}

// work takes the jobs of the bulk queue in their order until the test ends. do
// has each, and acknowledges it. The client may forget to pull again if a job comes
// before it has noted that it pulled; a missing heartbeat reminds it.
func (g *rig) work(do func(job protocol.Job, m jetstream.Msg)) {
	g.t.Helper()
	c, err := g.Jobs.Consumer(g.t.Context(), protocol.BulkConsumer)
	if err != nil {
		g.t.Fatal(err)
	}
	cc, err := c.Consume(func(m jetstream.Msg) {
		job, err := protocol.ParseJob(m.Headers(), m.Data())
		if err != nil {
			g.t.Error(err)
			return
		}
		do(job, m)
	}, jetstream.PullMaxMessages(1), jetstream.PullExpiry(time.Second), jetstream.PullHeartbeat(500*time.Millisecond))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { cc.Stop(); <-cc.Closed() })
}

// settle does a job as workers do.
func (g *rig) settle(job protocol.Job, m jetstream.Msg) (begun bool) {
	meta, err := m.Metadata()
	if err != nil {
		g.t.Error(err)
		return false
	}
	r, err := g.records.Begin(context.Background(), job, "w", meta.NumDelivered > 1)
	if err != nil {
		m.Term()
		return false
	}
	if err := g.records.Finish(context.Background(), r, protocol.Result{Status: 200, Body: []byte("{}")}, true); err != nil {
		g.t.Error(err)
	}
	m.Ack()
	return true
}

// empty waits until nothing is in the backlog any more.
func (g *rig) empty() {
	g.t.Helper()
	eventually(g.t, "the backlog is empty", func() bool {
		info, err := g.Backlog.Info(g.t.Context())
		return err == nil && info.State.Msgs == 0
	})
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(waitLimit):
		t.Fatalf("never happened: %s", what)
		panic("unreachable")
	}
}
