package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// rig is a NATS server, a connection that plays the gateway, and its inbox.
type rig struct {
	bus     *bus.Bus
	results chan *nats.Msg
}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	ns, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Stop)
	nc, err := bus.Connect(bus.Config{}, "test", log, ns.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(context.Background(), nc, bus.Settings{QueueLimit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{bus: b, results: make(chan *nats.Msg, 1000)}
	if _, err := nc.ChanSubscribe(protocol.ReplyPrefix("test")+">", r.results); err != nil {
		t.Fatal(err)
	}
	return r
}

// publicDir makes a directory that sessions' users can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gradefleet-node-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o711)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testConfig(t *testing.T, dir string) Config {
	t.Helper()
	var c Config
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	// Users of this run's own: the fleets that other tests start beside it end what
	// is of theirs.
	const users = 64
	base := 760_000 + os.Getpid()%1024*users
	if _, err := p.Parse([]string{"--data", dir, "--slots", "2", "--uid-base", fmt.Sprint(base), "--uid-count", fmt.Sprint(users)}); err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a worker until the returned function is called, which waits for it.
func (r *rig) start(t *testing.T, cfg Config) (n *Node, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n, err := New(ctx, cfg, Deps{Bus: r.bus, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Build: "test"})
	if err != nil {
		if strings.Contains(err.Error(), "find Python") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("worker ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

// own makes a worker the owner of a session.
func (r *rig) own(t *testing.T, session, worker string, durable bool) {
	t.Helper()
	value, err := json.Marshal(protocol.SessionRecord{Worker: worker, Epoch: 1, Created: time.Now(), Durable: durable})
	if err == nil {
		_, err = r.bus.Sessions.Put(t.Context(), protocol.SessionKey(session), value)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) publish(t *testing.T, queue string, kind protocol.Kind, session string, epoch uint64, body any) string {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	id := protocol.NewID()
	job := protocol.Job{ID: id, Kind: kind, Session: session, Epoch: epoch, RequestID: "r", Reply: protocol.ReplySubject("test", id),
		Enqueued: time.Now(), Deadline: time.Now().Add(time.Minute), Body: data}
	if _, err := r.bus.JS.PublishMsg(context.Background(), &nats.Msg{Subject: queue, Header: job.Header(), Data: data}); err != nil {
		t.Fatal(err)
	}
	return id
}

func (r *rig) result(t *testing.T) protocol.Result {
	t.Helper()
	for {
		if m := r.message(t); m.Header.Get(protocol.HeaderBegun) == "" {
			res, err := protocol.ParseResult(m.Header, m.Data)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
	}
}

// news waits for what is told of a job before its result.
func (r *rig) news(t *testing.T) protocol.News {
	t.Helper()
	m := r.message(t)
	n, ok := protocol.ParseNews(m.Header)
	if !ok {
		t.Fatalf("%v %s, want news", m.Header, m.Data)
	}
	return n
}

func (r *rig) message(t *testing.T) *nats.Msg {
	t.Helper()
	select {
	case m := <-r.results:
		return m
	case <-time.After(patience):
		t.Fatalf("no result in %v", patience)
	}
	panic("unreachable")
}

func evaluateBody(code string, in, out string) map[string]any {
	return map[string]any{"id": "s", "code": code, "entry_point": "f", "io_cases": []map[string]string{{"input": in, "output": out}}}
}

// untilLetGo is the body of an evaluate whose cases don't answer before letGo.
func untilLetGo(cases int) map[string]any {
	body := evaluateBody("import os, time\ndef f(x):\n    while not os.path.exists('go'): time.sleep(0.01)\n    return x", "x=1", "1")
	body["io_cases"] = slices.Repeat(body["io_cases"].([]map[string]string), cases)
	body["limits"] = map[string]any{"wall_s": patience.Seconds()}
	return body
}

// letGo lets the cases of such evaluates answer that run on a worker now.
func letGo(t *testing.T, n *Node) {
	t.Helper()
	for _, s := range n.slots {
		if err := os.WriteFile(filepath.Join(s.scratch.WorkDir(), "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// patience is how long a test waits for what comes for certain.
const patience = 30 * time.Second

// until waits for something that nobody tells.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// drained waits until the stream holds no job.
func (r *rig) drained(t *testing.T) {
	t.Helper()
	until(t, "no job is left in the stream", func() bool {
		info, err := r.bus.Jobs.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs == 0
	})
}

// waitPending waits until a job has been delivered, which need not have begun.
func waitPending(t *testing.T, r *rig, consumer string) {
	t.Helper()
	c, err := r.bus.Jobs.Consumer(context.Background(), consumer)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a job is delivered", func() bool {
		info, err := c.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return info.NumAckPending > 0
	})
}
