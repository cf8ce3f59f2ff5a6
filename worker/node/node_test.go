package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestSharedQueue(t *testing.T) {
	r := newRig(t)
	r.start(t, testConfig(t, publicDir(t)))
	want := map[string]bool{}
	for i := range 60 {
		id := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", fmt.Sprint("x=", i), fmt.Sprint(i)))
		want[id] = true
	}
	for range 60 {
		res := r.result(t)
		if res.Status != 200 || !strings.HasPrefix(string(res.Body), `{"passed":true`) || !want[res.Job] {
			t.Errorf("result %d %s", res.Status, res.Body)
		}
		delete(want, res.Job)
	}
	r.drained(t)
}

func TestOwnQueueAndSharedTogether(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	r.own(t, "s1", n.ID(), false)
	for i := range 20 {
		r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": fmt.Sprint("echo ", i)})
		r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", "x=1", "1"))
	}
	for range 40 {
		if res := r.result(t); res.Status != 200 {
			t.Errorf("result %d %s", res.Status, res.Body)
		}
	}
	r.drained(t)
}

// A job of the shared queue that the worker has no slot for goes back, and its
// gateway knows where it is, even if it was not told the first time.
func TestSurplusGoesBack(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.Slots = 1
	n, _ := r.start(t, cfg)
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	r.own(t, "s1", n.ID(), false)
	command := r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": "sleep 60"})
	until(t, "the slot is busy", func() bool { return n.intake.Busy() == 1 })
	job := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", "x=1", "1"))
	told := r.news(t)
	m, err := r.bus.Jobs.GetMsg(t.Context(), told.Sequence)
	if err != nil || m.Header.Get(protocol.HeaderJob) != job || told.Tries != 0 {
		t.Errorf("news %+v; there is %v %v", told, m, err)
	}
	if err := r.bus.NC.Publish(protocol.ResendSubject("test"), []byte(job)); err != nil {
		t.Fatal(err)
	}
	if again := r.news(t); again != told {
		t.Errorf("told again %+v, want %+v", again, told)
	}
	if err := r.bus.NC.Publish(protocol.CancelSubject(command), nil); err != nil {
		t.Fatal(err)
	}
	if res := r.result(t); res.Status != 200 || res.Job != job {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
	r.drained(t)
}

func TestDrainHandsBack(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.DrainTimeout = 100 * time.Millisecond
	first, stop := r.start(t, cfg)
	r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, untilLetGo(1))
	until(t, "the job has begun", func() bool { return first.intake.Busy() == 1 })
	stop() // for the job's end it would wait in vain
	if n := r.news(t); n.Tries != -1 {
		t.Errorf("%+v, want that it was no try", n)
	}
	// Another worker has it at once, not after the ack wait.
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	until(t, "the other worker has the job", func() bool { return n.intake.Busy() == 1 })
	letGo(t, n)
	if res := r.result(t); res.Status != 200 || !strings.HasPrefix(string(res.Body), `{"passed":true`) {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
	r.drained(t)
}

// Its caller is told what it is told of a worker that died: that it may have run.
func TestDrainCutsACommand(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.DrainTimeout = 100 * time.Millisecond
	n, stop := r.start(t, cfg)
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	r.own(t, "s1", n.ID(), false)
	r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": "sleep 20"})
	r.drained(t) // it is off the queue before it begins
	stop()
	if res := r.result(t); res.Status != 502 || !strings.Contains(string(res.Body), "was stopped while it ran the command, which may have run in part") {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
}

func TestCancelledJob(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	id := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, untilLetGo(1))
	until(t, "the job has begun", func() bool { return n.intake.Busy() == 1 })
	if err := r.bus.NC.Publish(protocol.CancelSubject(id), nil); err != nil {
		t.Fatal(err)
	}
	r.drained(t)
	until(t, "the slot of the cancelled job is free", func() bool { return n.intake.Busy() == 0 })
	r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", "x=1", "1"))
	if res := r.result(t); res.Job == id {
		t.Errorf("the cancelled job was answered: %s", res.Body)
	}
}

// A command that its gateway has taken back doesn't run, though it was delivered
// before: the caller was told so.
func TestCommandTakenBack(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.Slots = 1
	n, _ := r.start(t, cfg)
	s, err := n.store.Create("s1", 1)
	if err != nil {
		t.Fatal(err)
	}
	r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, untilLetGo(1))
	until(t, "the job has begun", func() bool { return n.intake.Busy() == 1 })
	id := r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": "echo ran > f"})
	waitPending(t, r, protocol.WorkerConsumer(n.ID()))
	m, err := r.bus.Jobs.GetLastMsgForSubject(t.Context(), protocol.WorkerQueue(n.ID()))
	if err == nil {
		err = r.bus.Jobs.DeleteMsg(t.Context(), m.Sequence)
	}
	if err != nil {
		t.Fatal(err)
	}
	letGo(t, n)
	for range 2 {
		if res := r.result(t); res.Job == id && (res.Status != 503 || !strings.Contains(string(res.Body), "not run")) {
			t.Errorf("result %d %s, want a 503 that says that it was not run", res.Status, res.Body)
		}
	}
	if data, err := s.ReadFile("f"); err == nil {
		t.Errorf("the command ran: %q", data)
	}
	r.drained(t)
}

// A result may be lost with a connection, and a command isn't run again: it is
// sent again when the worker has a new connection, or a gateway asks.
func TestResultsAreSentAgain(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	id := r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": "echo hello"})
	first := r.result(t)
	for name, lose := range map[string]func() error{
		"asked":     func() error { return r.bus.NC.Publish(protocol.ResendSubject("test"), nil) },
		"by its id": func() error { return r.bus.NC.Publish(protocol.ResendSubject("test"), []byte("other\n"+id)) },
		"reconnect": r.bus.NC.ForceReconnect,
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		if again := r.result(t); again.Job != id || string(again.Body) != string(first.Body) {
			t.Errorf("%s: got %s of job %s, want %s", name, again.Body, again.Job, first.Body)
		}
	}
	for gateway, ids := range map[string]string{"other": "", "test": "other"} {
		if err := r.bus.NC.Publish(protocol.ResendSubject(gateway), []byte(ids)); err != nil {
			t.Fatal(err)
		}
	}
	r.bus.NC.Flush()
	if len(r.results) > 0 {
		t.Error("sent again to who did not ask")
	}
}

func TestRestartFindsItsSessions(t *testing.T) {
	r := newRig(t)
	dir := publicDir(t)
	n, stop := r.start(t, testConfig(t, dir))
	s, err := n.store.Create("kept", 1)
	if err == nil {
		err = s.WriteFile("a.txt", []byte("hello"))
	}
	if err != nil {
		t.Fatal(err)
	}
	id := n.ID()
	r.own(t, "kept", id, false)
	stop()
	n, _ = r.start(t, testConfig(t, dir))
	if n.ID() != id {
		t.Errorf("the worker's id changed from %s to %s", id, n.ID())
	}
	r.publish(t, protocol.WorkerQueue(id), protocol.Run, "kept", 1, map[string]any{"id": "kept", "cmd": "cat a.txt"})
	if res := r.result(t); !strings.Contains(string(res.Body), `"stdout":"hello"`) {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
}

// A job that takes longer than the ack wait is kept by its beats. A machine that
// stands still for as long has them come too late: that shows, and is no proof of
// anything.
func TestLongJobIsDeliveredOnce(t *testing.T) {
	r := newRig(t)
	r.start(t, testConfig(t, publicDir(t)))
	c, err := r.bus.EvaluateConsumer(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	acks := make(chan *nats.Msg, 1000)
	if _, err := r.bus.NC.ChanSubscribe("$JS.ACK.>", acks); err != nil {
		t.Fatal(err)
	}
	code := "import time\ndef f(x):\n    time.sleep(x)\n    return x"
	half := (protocol.AckWait + protocol.AckWait/4).Seconds() / 2
	body := evaluateBody(code, fmt.Sprint("x=", half), fmt.Sprint(half))
	body["io_cases"] = append(body["io_cases"].([]map[string]string), map[string]string{"input": fmt.Sprint("x=", half), "output": fmt.Sprint(half)})
	const tries = 5
	delivered := uint64(0)
	for n := 1; ; n++ {
		r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, body)
		beats, longest, last := 0, time.Duration(0), time.Now()
		var ended *nats.Msg
		for ended == nil {
			select {
			case m := <-acks:
				if string(m.Data) == "+WPI" {
					beats++
				}
				longest, last = max(longest, time.Since(last)), time.Now()
			case ended = <-r.results:
				longest = max(longest, time.Since(last))
			}
		}
		if res, err := protocol.ParseResult(ended.Header, ended.Data); err != nil || !strings.HasPrefix(string(res.Body), `{"passed":true`) {
			t.Errorf("result %d %s, %v", res.Status, res.Body, err)
		}
		info, err := c.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		times := info.Delivered.Consumer - delivered
		if delivered = info.Delivered.Consumer; times == 1 && beats > 0 {
			break
		}
		if stood := longest > protocol.BeatInterval*3/2; !stood || n == tries {
			t.Errorf("delivered %d times, with %d beats and %v between two at most", times, beats, longest)
			break
		}
	}
	r.drained(t)
}

func TestOneWorkerADirectory(t *testing.T) {
	r := newRig(t)
	dir := publicDir(t)
	r.start(t, testConfig(t, dir))
	_, err := New(context.Background(), testConfig(t, dir), Deps{Bus: r.bus, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "another worker uses it") {
		t.Errorf("error %v", err)
	}
}

func TestJobsThatCannotBe(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	r.own(t, "none", n.ID(), true)
	r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "none", 1, map[string]any{"id": "none", "cmd": "echo"})
	if res := r.result(t); res.Status != 400 || !strings.Contains(string(res.Body), "Session does not exist") {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
	id := protocol.NewID()
	job := protocol.Job{ID: id, Kind: protocol.Evaluate, Reply: protocol.ReplySubject("test", id), Enqueued: time.Now(), Deadline: time.Now().Add(time.Minute)}
	h := job.Header()
	h[protocol.HeaderVersion] = []string{"99"}
	if _, err := r.bus.JS.PublishMsg(context.Background(), &nats.Msg{Subject: protocol.EvaluateQueue, Header: h}); err != nil {
		t.Fatal(err)
	}
	if res := r.result(t); res.Status != 500 || !strings.Contains(string(res.Body), "version") {
		t.Errorf("result %d %s", res.Status, res.Body)
	}
	r.drained(t)
}

func TestReadyIsConnected(t *testing.T) {
	r := newRig(t)
	n := &Node{deps: Deps{Bus: r.bus}, ready: true}
	if err := n.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	r.bus.NC.Close()
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "NATS") {
		t.Errorf("without a connection: %v, want one that says so", err)
	}
}
