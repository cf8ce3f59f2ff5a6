package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// TestMain fails if goroutines are left. Those of the NATS server and client that
// were just stopped have their time to end.
func TestMain(m *testing.M) {
	code := m.Run()
	for deadline := time.Now().Add(time.Minute); code == 0; {
		err := goleak.Find()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Simulated workers join as real ones do, say how long they slept for a job, and
// are gone at the end.
func TestWorkers(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	server, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", User: "u", Password: "p"}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	cfg := bus.Config{URL: "nats://" + server.Addr(), User: "u", Password: "p"}
	nc, err := bus.Connect(cfg, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 100})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan *nats.Msg, 100)
	if _, err := nc.ChanSubscribe(protocol.ReplyPrefix("test")+">", results); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	joined, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Workers: 3, Slots: 2, NATS: cfg, Joining: 2, Log: log}, func() { close(joined) })
	}()
	select {
	case <-joined:
	case err := <-ended:
		t.Fatalf("ended before all had joined: %v", err)
	}
	var keys []string
	watch, err := b.Workers.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for len(keys) < 3 {
		select {
		case e := <-watch.Updates():
			if e != nil && !slices.Contains(keys, e.Key()) {
				keys = append(keys, e.Key())
			}
		case <-time.After(time.Minute):
			t.Fatalf("heartbeats of %v", keys)
		}
	}
	watch.Stop()
	for i := range 12 {
		id := fmt.Sprint("job", i)
		job := protocol.Job{ID: id, Kind: protocol.Evaluate, Reply: protocol.ReplySubject("test", id), Enqueued: time.Now(), Deadline: time.Now().Add(time.Minute)}
		if _, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: protocol.EvaluateQueue, Header: nats.Header(job.Header()), Data: []byte(`{"code":"20ms # x"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		select {
		case m := <-results:
			var a Answer
			if err := json.Unmarshal(m.Data, &a); err != nil || !strings.HasPrefix(a.Worker, "sim-") || a.Length < 20_000 || a.Wait < 0 {
				t.Errorf("answer %s: %v", m.Data, err)
			}
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
	}
	header := (&protocol.SessionOp{Session: "s", Epoch: 1}).Header()
	r, err := nc.RequestMsg(&nats.Msg{Subject: protocol.SessionSubject(keys[0], protocol.OpWrite), Header: nats.Header(header)}, time.Minute)
	if err != nil || !strings.Contains(string(r.Data), "true") {
		t.Errorf("write: %v, %v", r, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := b.Workers.Get(t.Context(), keys[0]); err == nil {
		t.Error("a heartbeat is still there")
	}
}

func TestWorkersThatCannotJoin(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	err := Run(t.Context(), Config{Workers: 2, Slots: 1, NATS: bus.Config{URL: "nats://127.0.0.1:1"}, Joining: 1, Log: log}, func() { t.Error("joined") })
	if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "simulated worker") {
		t.Errorf("error %v", err)
	}
}
