package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// job is a job as the API shows it.
type job struct {
	ID     string          `json:"job_id"`
	State  string          `json:"state"`
	Worker string          `json:"worker"`
	Since  time.Time       `json:"since"`
	Status int             `json:"status"`
	Result json.RawMessage `json:"result"`
}

// with posts with headers, given as pairs.
func (g *gateway) with(path string, body any, headers ...string) answer {
	g.c.t.Helper()
	return g.must(g.send(g.c.t.Context(), http.MethodPost, path, encode(body), headers...))
}

func (g *gateway) send(ctx context.Context, method, path, body string, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, g.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return g.do(r)
}

func (g *gateway) delete(path string) answer {
	g.c.t.Helper()
	return g.must(g.send(g.c.t.Context(), http.MethodDelete, path, ""))
}

// submit submits a job and returns where it is.
func (g *gateway) submit(path string, body any) string {
	g.c.t.Helper()
	a := g.with(path, body, "Prefer", "respond-async")
	a.want(g.c.t, 202, `"state":"queued"`)
	at := a.header.Get("Location")
	if !strings.HasPrefix(at, "/jobs/") || !strings.Contains(a.body, strings.TrimPrefix(at, "/jobs/")) {
		g.c.t.Fatalf("Location %q of job %s", at, a.body)
	}
	return at
}

func (a answer) job(t *testing.T) (j job) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &j); err != nil || a.status != 200 {
		t.Fatalf("no job in %d %s: %v", a.status, a.body, err)
	}
	return j
}

func TestAsync(t *testing.T) {
	c := newCluster(t, 2, nil)
	release := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-release
			return w.answer(j, m)
		}
	})
	at := c.gateways[0].submit("/evaluate_code", evaluate("s"))
	if j := within(t, "job", w.jobs); !j.Kept || j.ID != strings.TrimPrefix(at, "/jobs/") {
		t.Errorf("the worker got %+v", j)
	}
	// Through another gateway.
	if j := c.gateways[1].get(at).job(t); j.State != "running" || j.Worker != "w1" || time.Since(j.Since) > time.Minute || j.Result != nil {
		t.Errorf("while it runs: %+v", j)
	}
	waited := make(chan answer, 1)
	go func() { waited <- c.gateways[1].get(at + "?wait=30") }()
	close(release)
	if j := within(t, "answer", waited).job(t); j.State != "done" || j.Status != 200 || !strings.HasPrefix(string(j.Result), `{"case_results":[]`) {
		t.Errorf("waited for: %+v", j)
	}
	c.gateways[0].get("/jobs").want(t, 200, strings.TrimPrefix(at, "/jobs/"))
	c.gateways[0].get("/jobs/0123").want(t, 404, "no such job")
	c.gateways[0].get("/jobs/%2e%2e*>").want(t, 404, "no such job")
	c.gateways[0].get(at+"?wait=x").want(t, 422, "query.wait")
	c.gateways[0].delete(at).want(t, 409, "done")
	c.queued(protocol.BulkQueue, 0)

	// What is wrong is said at once.
	c.gateways[0].with("/run", run("unknown"), "Prefer", "respond-async").want(t, 400, "Session does not exist")
	c.gateways[0].with("/evaluate_code", "{}", "Prefer", "respond-async").want(t, 422, "body.id")
	c.gateways[0].with("/evaluate_code", evaluate("s"), "Prefer", "respond-async", "X-Webhook-URL", "http://x").want(t, 400, "not enabled")
	c.gateways[0].with("/evaluate_code", evaluate("s"), "X-Webhook-URL", "http://x").want(t, 400, "add Prefer: respond-async")
}

// The gateway that took a job is gone when it ends.
func TestAsyncSurvivesItsGateway(t *testing.T) {
	c := newCluster(t, 2, nil)
	release := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-release
			return w.answer(j, m)
		}
	})
	at := c.gateways[0].submit("/evaluate_code", evaluate("s"))
	within(t, "job", w.jobs)
	c.gateways[0].nc.Close() // as if killed: it says nothing any more
	within(t, "the gateway is gone", c.gateways[0].ended)
	c.gateways[0].ended <- nil // for the clean-up
	close(release)
	if j := c.gateways[1].get(at + "?wait=30").job(t); j.State != "done" || j.Status != 200 {
		t.Errorf("after its gateway went: %+v", j)
	}
}

func TestCancelJobs(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	hold := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			if j.Session == "slow" {
				<-hold
			}
			return w.answer(j, m)
		}
	})
	running := g.submit("/evaluate_code", evaluate("slow"))
	within(t, "job", w.jobs)
	g.delete(running).want(t, 200, `"state":"cancelled"`)
	if id := within(t, "cancellation", w.cancels); id != strings.TrimPrefix(running, "/jobs/") {
		t.Errorf("%s was cancelled, want %s", id, running)
	}
	close(hold) // its answer comes too late
	c.queued(protocol.BulkQueue, 0)
	if j := g.get(running).job(t); j.State != "cancelled" || j.Result != nil {
		t.Errorf("a cancelled job became %+v", j)
	}
	g.delete(running).want(t, 200, `"state":"cancelled"`)

	w.rest()
	queued := g.submit("/evaluate_code", evaluate("s"))
	g.delete(queued).want(t, 200, `"state":"cancelled"`)
	c.worker("w2", nil)
	c.queued(protocol.BulkQueue, 0) // dropped, not begun
	if j := g.get(queued).job(t); j.State != "cancelled" || j.Worker != "" {
		t.Errorf("a job that was cancelled in the queue became %+v", j)
	}
}

func TestRetentionAndDeadline(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) {
		cfg.AsyncDeadline, cfg.JobDeadline, cfg.ResultRetention = 100*time.Millisecond, 100*time.Millisecond, 4*time.Second
	})
	g := c.gateways[0]
	w := c.worker("w1", nil)
	// On a busy machine a job may be forgotten before it is looked at.
	ended := func() (at string, j job) {
		t.Helper()
		eventually(t, "a job is seen that has ended", func() bool {
			at = g.submit("/evaluate_code", evaluate("s"))
			a := g.get(at + "?wait=30")
			if a.status == 404 {
				return false
			}
			j = a.job(t)
			return true
		})
		if j.State != "done" {
			t.Errorf("waited for: %+v", j)
		}
		return at, j
	}
	done, _ := ended()
	w.rest()
	if _, j := ended(); j.Status != 504 || !strings.Contains(string(j.Result), "not begun") {
		t.Errorf("past its deadline: %+v", j)
	}
	eventually(t, "it is forgotten", func() bool { return g.get(done).status == 404 })
}

func TestPoisonJobsEnd(t *testing.T) {
	c := newCluster(t, 2, nil)
	c.worker("w1", func(w *fakeWorker) {
		w.handle = func(_ protocol.Job, m jetstream.Msg) *protocol.Result {
			m.Nak()
			return nil
		}
	})
	at := c.gateways[0].submit("/evaluate_code", evaluate("s"))
	if j := c.gateways[1].get(at + "?wait=30").job(t); j.Status != 500 || !strings.Contains(string(j.Result), fmt.Sprintf("delivered %d times", protocol.MaxDeliver)) {
		t.Errorf("a poison job: %+v", j)
	}
	c.queued(protocol.BulkQueue, 0)
}

// What a lost worker had is ended, with the truth.
func TestKeptJobsOfALostWorker(t *testing.T) {
	c := newCluster(t, 2, nil)
	g := c.gateways[0]
	w := c.worker("w1", mute)
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	running := g.submit("/run", run("s"))
	within(t, "job", w.jobs)
	w.rest()
	queued := g.submit("/run", run("s"))
	w.goodbye()
	if j := g.get(running + "?wait=30").job(t); j.Status != 502 || !strings.Contains(string(j.Result), "may have run") {
		t.Errorf("a command that ran: %+v", j)
	}
	if j := g.get(queued + "?wait=30").job(t); j.Status != 503 || !strings.Contains(string(j.Result), "before it began") {
		t.Errorf("a command that waited: %+v", j)
	}
}

// Where the session has moved on, so do its jobs.
func TestKeptJobsMoveWithTheirSession(t *testing.T) {
	c := newCluster(t, 2, nil)
	g := c.gateways[0]
	w := c.worker("w1", mute)
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	begun := g.submit("/evaluate_code", evaluate("s"))
	within(t, "job", w.jobs)
	w.rest()
	queued := g.submit("/run", run("s"))
	w2 := c.worker("w2", nil)
	w2.give("s", &fakeSession{epoch: 2, files: map[string]string{}})
	c.setOwner("s", "w2", 2)
	w.goodbye()
	for _, at := range []string{begun, queued} {
		if j := c.gateways[1].get(at + "?wait=30").job(t); j.State != "done" || j.Status != 200 || j.Worker != "w2" {
			t.Errorf("%+v %s", j, j.Result)
		}
	}
	c.queued(protocol.WorkerQueue("w1"), 0)
	c.queued(protocol.WorkerQueue("w2"), 0)
}

func TestIdempotency(t *testing.T) {
	c := newCluster(t, 2, nil)
	both := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-both
			return success(map[string]any{"id": j.Session, "stdout": j.ID, "stderr": ""})
		}
	})
	c.gateways[0].post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	answers := make(chan answer, 8)
	for i := range 8 {
		go func() { answers <- c.gateways[i%2].with("/run", run("s"), "Idempotency-Key", "k1") }()
	}
	first := within(t, "job", w.jobs)
	close(both)
	var body string
	for range 8 {
		a := within(t, "answer", answers)
		a.want(t, 200, first.ID)
		if body == "" {
			body = a.body
		} else if body != a.body {
			t.Errorf("answered %s and %s", body, a.body)
		}
	}
	again := c.gateways[1].with("/run", run("s"), "Idempotency-Key", "k1")
	again.want(t, 200, first.ID)
	if again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("headers %v, want Idempotent-Replayed", again.header)
	}
	other := c.gateways[0].with("/run", map[string]any{"id": "s", "cmd": "other"}, "Idempotency-Key", "k1")
	other.want(t, 422, "another body")
	if other.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("headers %v of an answer that was none of the first request's", other.header)
	}
	c.gateways[0].with("/run", run("s"), "Idempotency-Key", "k1", "X-API-Key", "somebody else").want(t, 200, "stdout")
	c.gateways[0].with("/run", run("s"), "Idempotency-Key", "k2").want(t, 200, "stdout")
	c.gateways[0].with("/run", run("s"), "Idempotency-Key", strings.Repeat("k", 256)).want(t, 400, "the limit is 255")
	c.gateways[0].with("/run", run("s"), "Idempotency-Key", "").want(t, 400, "it is empty")
	c.gateways[0].with("/run", run("s"), "Idempotency-Key", "k1", "Idempotency-Key", "k2").want(t, 400, "sent 2 times")
	if n := len(w.jobs); n != 2 {
		t.Errorf("%d more executions, want 2: of another caller, and of another key", n)
	}
	// The answer doesn't need the worker any more.
	w.goodbye()
	eventually(t, "the worker is gone", func() bool { return c.gateways[1].get("/workers").body[:13] == `{"workers":[]` })
	c.gateways[1].with("/run", run("s"), "Idempotency-Key", "k1").want(t, 200, first.ID)
	c.gateways[1].with("/run", run("s"), "Idempotency-Key", "k9").want(t, 503, "w1")
}

// A gateway that recorded a key's job and died before it queued it leaves the
// key usable, and so does a job that was not begun.
func TestIdempotencyKeyIsNotStuck(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	w := c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	waiting, hangUp := g.asyncWith("/run", run("s"), "Idempotency-Key", "k")
	c.queued(protocol.WorkerQueue("w1"), 1)
	hangUp()
	<-waiting
	if err := c.bus.Jobs.Purge(t.Context()); err != nil { // it was never queued
		t.Fatal(err)
	}
	// Another message id: the first one is in JetStream's memory of duplicates,
	// as it would not be had it never come.
	if err := c.bus.JS.DeleteStream(t.Context(), protocol.JobsStream); err != nil {
		t.Fatal(err)
	}
	if err := g.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is back with its consumers", func() bool {
		for _, consumer := range []string{protocol.EvaluateConsumer, protocol.BulkConsumer} {
			if _, err := c.bus.JS.Consumer(t.Context(), protocol.JobsStream, consumer); err != nil {
				return false
			}
		}
		return g.Ready() == nil
	})
	w.leave()
	c.worker("w1", func(w2 *fakeWorker) { w2.sessions = w.sessions })
	eventually(t, "the key's job runs", func() bool {
		a, err := g.sendWithin(3*time.Second, "/run", run("s"), "Idempotency-Key", "k")
		return err == nil && a.status == 200
	})
}

func (g *gateway) sendWithin(limit time.Duration, path string, body any, headers ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(g.c.t.Context(), limit)
	defer cancel()
	return g.send(ctx, http.MethodPost, path, encode(body), headers...)
}

// asyncWith is async with headers.
func (g *gateway) asyncWith(path string, body any, headers ...string) (<-chan answer, context.CancelFunc) {
	ctx, cancel := context.WithCancel(g.c.t.Context())
	out := make(chan answer, 1)
	go func() {
		defer close(out)
		if a, err := g.send(ctx, http.MethodPost, path, encode(body), headers...); err == nil {
			out <- a
		}
	}()
	return out, cancel
}

func TestAPIKeys(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.APIKeys = append(cfg.APIKeys, "k-one", "k-two") })
	g := c.gateways[0]
	g.get("/").want(t, 200, "ping")
	g.get("/workers").want(t, 401, "API key")
	g.post("/evaluate_code", evaluate("s")).want(t, 401, "API key")
	g.with("/evaluate_code", evaluate("s"), "X-API-Key", "wrong").want(t, 401, "API key")
	g.with("/evaluate_code", evaluate("s"), "X-API-Key", "k-one").want(t, 503, "No worker")
	g.with("/evaluate_code", evaluate("s"), "Authorization", "Bearer k-two").want(t, 503, "No worker")
	c.workerUnseen("w1", nil) // the gateway tells nobody without a key
	var a answer
	eventually(t, "a worker is there", func() bool {
		a = g.with("/evaluate_code", evaluate("s"), "X-API-Key", "k-one", "Prefer", "respond-async")
		return a.status == 202
	})
	at := a.header.Get("Location")
	mine := func(key string) answer {
		return g.must(g.send(t.Context(), http.MethodGet, at, "", "X-API-Key", key))
	}
	mine("k-one").want(t, 200, "job_id")
	mine("k-two").want(t, 404, "no such job")
	g.must(g.send(t.Context(), http.MethodDelete, at, "", "X-API-Key", "k-two")).want(t, 404, "no such job")
	if list := g.must(g.send(t.Context(), http.MethodGet, "/jobs", "", "X-API-Key", "k-two")); list.body != `{"jobs":[]}` {
		t.Errorf("another caller's list: %s", list.body)
	}
}

func TestJobListIsTheLatest(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
	var all []string
	for i := range 5 {
		all = append(all, strings.TrimPrefix(g.submit("/evaluate_code", evaluate(fmt.Sprint("s", i))), "/jobs/"))
	}
	var list struct{ Jobs []job }
	if err := json.Unmarshal([]byte(g.get("/jobs?limit=3").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Jobs) != 3 || list.Jobs[0].ID != all[4] || list.Jobs[2].ID != all[2] {
		t.Errorf("jobs %+v, want the last three of %v", list.Jobs, all)
	}
	g.get("/jobs?limit=0").want(t, 200, `{"jobs":[]}`)
	eventually(t, "the queue is shown", func() bool {
		return strings.Contains(g.get("/workers").body, `{"queue":"bulk","waiting":5,"running":0`)
	})
}
