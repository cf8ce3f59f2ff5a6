package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Interactive jobs go ahead of bulk ones that were there before.
func TestInteractiveGoesFirst(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.Slots = 1
	n, _ := r.start(t, cfg)
	r.own(t, "s1", n.ID(), false)
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	code := "import time\ndef f(x):\n    time.sleep(x)\n    return x"
	// One holds the slot until the others are queued.
	hold := r.publish(t, protocol.BulkQueue, protocol.Evaluate, "s", 0, untilLetGo(1))
	until(t, "the slot is busy", func() bool { return n.intake.Busy() == 1 })
	bulk := map[string]bool{}
	for range 60 {
		bulk[r.publish(t, protocol.BulkQueue, protocol.Evaluate, "s", 0, evaluateBody(code, "x=0.005", "0.005"))] = true
	}
	first := map[string]bool{}
	for range 10 {
		first[r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody(code, "x=0.005", "0.005"))] = true
		first[r.publish(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, map[string]any{"id": "s1", "cmd": "true"})] = true
	}
	letGo(t, n)
	if res := r.result(t); res.Job != hold {
		t.Fatalf("result %d %s, want that of the first", res.Status, res.Body)
	}
	between := 0
	for len(first) > 0 {
		res := r.result(t)
		if res.Status != 200 {
			t.Errorf("result %d %s", res.Status, res.Body)
		}
		if first[res.Job] {
			delete(first, res.Job)
		} else {
			between++
		}
	}
	// One may have been pulled while the slot was free.
	if between > 2 {
		t.Errorf("%d bulk jobs were done before 20 interactive ones", between)
	}
	for range len(bulk) - between {
		if res := r.result(t); res.Status != 200 || !bulk[res.Job] {
			t.Errorf("result %d %s", res.Status, res.Body)
		}
	}
	r.drained(t)
}

// keep records and publishes a kept job.
func (r *rig) keep(t *testing.T, queue string, kind protocol.Kind, session string, epoch uint64, body string) protocol.Kept {
	t.Helper()
	now := time.Now()
	k := protocol.Kept{Job: protocol.NewID(), Kind: kind, State: protocol.KeptQueued, Session: session, Created: now, Deadline: now.Add(time.Minute)}
	if _, err := kept.New(r.bus).Create(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	r.again(t, queue, k, epoch, body)
	return k
}

// again publishes a message of a kept job.
func (r *rig) again(t *testing.T, queue string, k protocol.Kept, epoch uint64, body string) {
	t.Helper()
	job := protocol.Job{ID: k.Job, Kind: k.Kind, Session: k.Session, Epoch: epoch, Kept: true, Reply: protocol.SettledSubject(k.Job),
		Enqueued: k.Created, Deadline: k.Deadline}
	if _, err := r.bus.JS.PublishMsg(context.Background(), &nats.Msg{Subject: queue, Header: job.Header(), Data: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// ended waits for a kept job's end.
func (r *rig) ended(t *testing.T, job string) kept.Record {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		k, err := kept.New(r.bus).Get(context.Background(), job)
		if err != nil {
			t.Fatal(err)
		}
		if k.State.Final() {
			return k
		}
		if time.Now().After(deadline) {
			t.Fatalf("job still %s", k.State)
		}
	}
}

const double = `{"id":"s","code":"def f(x): return 2*x","entry_point":"f","io_cases":[{"input":"x=1","output":"2"}]}`

func TestKeptJobs(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	r.own(t, "s1", n.ID(), false)
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	count := func(cmd string) string { return fmt.Sprintf(`{"id":"s1","cmd":%q}`, cmd) }

	k := r.keep(t, protocol.BulkQueue, protocol.Evaluate, "s", 0, double)
	if e := r.ended(t, k.Job); e.State != protocol.KeptDone || e.Status != 200 || e.Worker != n.ID() || !e.Ran || !strings.HasPrefix(string(e.Body), `{"passed":true`) {
		t.Errorf("evaluate: %+v %s", e.Kept, e.Body)
	}
	// A second message of the same job does nothing, also of one that runs.
	run := r.keep(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, count("sleep 0.3; echo x >>ran; cat ran"))
	r.again(t, protocol.WorkerQueue(n.ID()), run, 1, count("echo x >>ran"))
	if e := r.ended(t, run.Job); e.Status != 200 || !strings.Contains(string(e.Body), `"stdout":"x\n"`) {
		t.Errorf("run: %+v %s", e.Kept, e.Body)
	}
	r.again(t, protocol.WorkerQueue(n.ID()), run, 1, count("echo x >>ran"))
	r.drained(t)
	after := r.keep(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, count("cat ran"))
	if e := r.ended(t, after.Job); !strings.Contains(string(e.Body), `"stdout":"x\n"`) {
		t.Errorf("a command ran more than once: %s", e.Body)
	}
	// One cancelled in the queue is not begun.
	cancelled := protocol.Kept{Job: protocol.NewID(), Kind: protocol.Run, State: protocol.KeptCancelled, Session: "s1", Created: time.Now(), Deadline: time.Now().Add(time.Minute)}
	if _, err := kept.New(r.bus).Create(context.Background(), cancelled); err != nil {
		t.Fatal(err)
	}
	r.again(t, protocol.WorkerQueue(n.ID()), cancelled, 1, count("echo x >>ran"))
	r.drained(t)
	// And one that moved on was not begun either.
	if _, err := n.store.Create("s2", 5); err != nil {
		t.Fatal(err)
	}
	moved := r.keep(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s2", 4, `{"id":"s2","cmd":"true"}`)
	if e := r.ended(t, moved.Job); e.Status != 503 || e.Ran {
		t.Errorf("a job of an older epoch: %+v %s", e.Kept, e.Body)
	}
	r.drained(t)
}

// A command whose worker died is not begun again when the worker is back.
func TestKeptCommandOfADeadProcess(t *testing.T) {
	r := newRig(t)
	dir := publicDir(t)
	n, stop := r.start(t, testConfig(t, dir))
	r.own(t, "s1", n.ID(), false)
	if _, err := n.store.Create("s1", 1); err != nil {
		t.Fatal(err)
	}
	stop()
	k := r.keep(t, protocol.WorkerQueue(n.ID()), protocol.Run, "s1", 1, `{"id":"s1","cmd":"echo again"}`)
	job := protocol.Job{ID: k.Job, Kind: protocol.Run}
	if _, err := kept.New(r.bus).Begin(context.Background(), job, n.ID(), false); err != nil {
		t.Fatal(err)
	}
	r.start(t, testConfig(t, dir))
	if e := r.ended(t, k.Job); e.Status != 502 || !strings.Contains(string(e.Body), "may have run") {
		t.Errorf("ended with %+v %s", e.Kept, e.Body)
	}
	r.drained(t)
}

// An evaluate whose worker drained is done by another.
func TestKeptEvaluateIsHandedOn(t *testing.T) {
	r := newRig(t)
	cfg := testConfig(t, publicDir(t))
	cfg.DrainTimeout = 50 * time.Millisecond
	_, stop := r.start(t, cfg)
	body, err := json.Marshal(untilLetGo(1))
	if err != nil {
		t.Fatal(err)
	}
	k := r.keep(t, protocol.BulkQueue, protocol.Evaluate, "s", 0, string(body))
	until(t, "the job runs", func() bool {
		e, err := kept.New(r.bus).Get(context.Background(), k.Job)
		if err != nil {
			t.Fatal(err)
		}
		return e.State == protocol.KeptRunning
	})
	stop()
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	until(t, "the other worker has the job", func() bool { return n.intake.Busy() == 1 })
	letGo(t, n)
	if e := r.ended(t, k.Job); e.Status != 200 || e.Worker != n.ID() || e.Tries != 1 {
		t.Errorf("ended with %+v %s, want 200 at the first try", e.Kept, e.Body)
	}
	r.drained(t)
}
