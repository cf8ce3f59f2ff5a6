package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// mute is a worker that takes jobs and says nothing.
func mute(w *fakeWorker) {
	w.handle, w.keeps = func(protocol.Job, jetstream.Msg) *protocol.Result { return nil }, true
}

func TestHangUpCancels(t *testing.T) {
	for _, x := range []struct {
		name  string
		begun bool
	}{{"while a worker runs it", true}, {"while it waits", false}} {
		t.Run(x.name, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			g := c.gateways[0]
			w := c.worker("w1", func(w *fakeWorker) { mute(w); w.noQueue = !x.begun })
			answers, hangUp := g.async("/evaluate_code", evaluate("s"))
			c.queued(protocol.EvaluateQueue, 1)
			job := ""
			if x.begun {
				job = within(t, "job", w.jobs).ID
			}
			hangUp()
			if cancelled := within(t, "cancellation", w.cancels); x.begun && cancelled != job {
				t.Errorf("job %s was cancelled, want %s", cancelled, job)
			}
			c.queued(protocol.EvaluateQueue, 0)
			if a, ok := <-answers; ok {
				t.Errorf("answered %+v after the caller hung up", a)
			}
			eventually(t, "it is counted", func() bool {
				return g.value("gradefleet_jobs_ended_total", "kind", "evaluate", "outcome", "cancelled") == 1 &&
					g.value("gradefleet_http_requests_total", "route", "/evaluate_code", "status", "499") == 1 &&
					g.value("gradefleet_http_in_flight") == 0
			})
		})
	}
}

func TestDeadline(t *testing.T) {
	// On a busy machine a deadline may pass before the job is queued, or the session
	// looked up: then it is made longer.
	for limit := 150 * time.Millisecond; !testDeadline(t, limit); limit *= 2 {
		if limit > waitLimit {
			t.Fatal("nothing gets to the worker before its deadline")
		}
	}
}

// testDeadline reports whether the worker got what it wasn't to answer in time.
func testDeadline(t *testing.T, limit time.Duration) bool {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.JobDeadline, cfg.FileDeadline = limit, limit })
	g, w := c.gateways[0], c.worker("w1", mute)
	c.setOwner("s2", "w1", 1)
	late := g.post("/evaluate_code", evaluate("s"))
	if g.value("gradefleet_jobs_published_total") == 0 {
		return false
	}
	late.want(t, 504, "waiting in the queue included")
	cancelled := within(t, "cancellation", w.cancels)
	c.queued(protocol.EvaluateQueue, 0)
	if len(w.jobs) == 0 {
		return false
	}
	job := <-w.jobs
	// The gateway's own time before that counts.
	if got := job.Deadline.Sub(job.Enqueued); got <= 0 || got > limit {
		t.Errorf("the job's deadline is %v after it was queued, want %v less what came before", got, limit)
	}
	if cancelled != job.ID {
		t.Errorf("job %s was cancelled, want %s", cancelled, job.ID)
	}
	// A result that comes after that is dropped, and counted.
	w.reply(job, *success("{}"))
	eventually(t, "the late result is counted", func() bool { return g.value("gradefleet_duplicate_results_total") == 1 })

	w.mu.Lock() // the worker's file operations wait for this
	read := g.get("/read_file?id=s2&rel_path=a")
	w.mu.Unlock()
	if len(w.ops) == 0 && !strings.Contains(read.body, "may have been done") {
		return false
	}
	read.want(t, 504, "may have been done")
	return true
}

func TestQueueFull(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.QueueLimit = 2 })
	g := c.gateways[0]
	c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
	var hangUps []func()
	for i := range 2 {
		_, hangUp := g.async("/evaluate_code", evaluate("s"))
		hangUps = append(hangUps, hangUp)
		c.queued(protocol.EvaluateQueue, uint64(i+1))
	}
	a := g.post("/evaluate_code", evaluate("s"))
	a.want(t, 429, "2 jobs")
	if s, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || s < 1 {
		t.Errorf("Retry-After %q, want whole seconds", a.header.Get("Retry-After"))
	}
	eventually(t, "the queue's depth is shown", func() bool { return g.value("gradefleet_queue_depth", "queue", "evaluate") == 2 })
	if n := g.value("gradefleet_jobs_ended_total", "outcome", "rejected"); n != 1 {
		t.Errorf("%v jobs counted as rejected, want 1", n)
	}
	for _, hangUp := range hangUps {
		hangUp()
	}
	c.queued(protocol.EvaluateQueue, 0) // there is room again
}

func TestDuplicateResults(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("w1", func(w *fakeWorker) {
		w.handle = func(job protocol.Job, _ jetstream.Msg) *protocol.Result {
			first := success(map[string]any{"passed": true, "case_results": []any{}, "error": nil})
			w.reply(job, *first)
			return refusal(500, "the second")
		}
	})
	for range 5 {
		g.post("/evaluate_code", evaluate("s")).want(t, 200, `"passed":true`)
	}
	eventually(t, "duplicates are counted", func() bool { return g.value("gradefleet_duplicate_results_total") == 5 })
}

// Whoever gets a poison job dies of it; its caller hears of that, through
// whichever gateway takes the advisory.
func TestPoison(t *testing.T) {
	c := newCluster(t, 2, nil)
	deliveries := make(chan struct{}, 100)
	c.worker("w1", func(w *fakeWorker) {
		w.handle = func(job protocol.Job, msg jetstream.Msg) *protocol.Result {
			if strings.Contains(string(job.Body), "poison") {
				deliveries <- struct{}{}
				msg.Nak()
				return nil
			}
			return w.answer(job, msg)
		}
	})
	for i, g := range c.gateways {
		g.post("/evaluate_code", evaluate(fmt.Sprint("poison-", i))).want(t, 500, fmt.Sprintf("delivered %d times", protocol.MaxDeliver))
	}
	if len(deliveries) != 2*protocol.MaxDeliver {
		t.Errorf("%d deliveries, want %d", len(deliveries), 2*protocol.MaxDeliver)
	}
	c.queued(protocol.EvaluateQueue, 0)
	c.gateways[0].post("/evaluate_code", evaluate("fine")).want(t, 200, `"passed":true`)
	if n := c.gateways[0].value("gradefleet_jobs_exhausted_total") + c.gateways[1].value("gradefleet_jobs_exhausted_total"); n != 2 {
		t.Errorf("%v jobs counted as given up, want 2", n)
	}
}

func TestNoWorkers(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	unavailable := func(a answer, contains string) {
		t.Helper()
		a.want(t, 503, contains)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q, want 1", a.header.Get("Retry-After"))
		}
	}
	unavailable(g.post("/evaluate_code", evaluate("s")), "No worker")
	unavailable(g.post("/write_file", write("s", "a", "x")), "No worker")
	g.post("/run", run("s")).want(t, 400, "Session does not exist")

	// A session whose owner is not there.
	c.setOwner("owned", "w9", 1)
	unavailable(g.post("/evaluate_code", evaluate("owned")), "w9")
	unavailable(g.post("/run", run("owned")), "w9")
	unavailable(g.post("/write_file", write("owned", "a", "x")), "w9")
	unavailable(g.get("/read_file?id=owned&rel_path=a"), "w9")
	unavailable(g.post("/fork_session", map[string]any{"id": "owned"}), "w9")

	// One that drains takes nothing new, and serves what it owns.
	w := c.worker("w9", nil)
	g.post("/write_file", write("owned", "a", "x")).want(t, 200, "success")
	w.draining.Store(true)
	w.rest()
	eventually(t, "the gateway knows that it drains", func() bool {
		return strings.Contains(g.get("/workers").body, `"draining":true`)
	})
	unavailable(g.post("/evaluate_code", evaluate("s")), "No worker")
	unavailable(g.post("/write_file", write("s", "a", "x")), "No worker")
	unavailable(g.post("/write_file", write("owned", "a", "x")), "w9") // its heart beats, but nobody listens
	c.queued(protocol.EvaluateQueue, 0)
}

// A worker that leaves while it runs a command.
func TestOwnerLostUnderWay(t *testing.T) {
	c := newCluster(t, 1, nil)
	g, w := c.gateways[0], c.worker("w1", mute)
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	begun, _ := g.async("/run", run("s"))
	within(t, "job", w.jobs)
	c.queued(protocol.WorkerQueue("w1"), 0) // acked at the start
	w.goodbye()
	within(t, "answer", begun).want(t, 502, "may have run")
}

func TestBodyLimit(t *testing.T) {
	const limit = 32 << 10
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.MaxBody = limit })
	g := c.gateways[0]
	c.worker("w1", nil)
	body := func(n int) string {
		b := encode(write("s", "a", ""))
		return strings.Replace(b, `"content":""`, `"content":"`+strings.Repeat("x", n-len(b))+`"`, 1)
	}
	g.post("/write_file", body(limit)).want(t, 200, "success")
	g.post("/write_file", body(limit+1)).want(t, 413, "32769 bytes, the limit is 32768")

	chunked := func(n int) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/write_file", io.MultiReader(strings.NewReader(body(n))))
		if err != nil {
			t.Fatal(err)
		}
		return g.must(g.do(r))
	}
	chunked(limit).want(t, 200, "success")
	chunked(limit+1).want(t, 413, "the limit is 32768")

	// A declared size is refused before anything of the body is sent.
	refused := func(send []byte, declared int) {
		t.Helper()
		conn, err := net.Dial("tcp", g.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(waitLimit))
		fmt.Fprintf(conn, "POST /write_file HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", declared)
		if _, err := conn.Write(send); err != nil {
			t.Errorf("sending a body that is refused: %v", err)
		}
		head := make([]byte, 12)
		if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 413" {
			t.Errorf("answer %q (%v), want a 413", head, err)
		}
	}
	refused(nil, limit+1)
	refused(nil, 1<<40)
	// And who sends everything before reading gets to read it.
	refused(make([]byte, 20<<20), 20<<20)
}

// The time limit on receiving a request must not end one that waits.
func TestReadTimeout(t *testing.T) {
	const limit = 100 * time.Millisecond
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.ReadTimeout = limit })
	g := c.gateways[0]
	w := c.workerUnseen("w1", mute)
	eventually(t, "the gateway sees the worker", func() bool { return g.value("gradefleet_workers_live") == 1 })
	// Where the machine is busy, whole requests may be late: these are sent again.
	var answers <-chan answer
	var job protocol.Job
	for taken := false; !taken; {
		answers, _ = g.async("/evaluate_code", evaluate("s"))
		select {
		case job = <-w.jobs:
			taken = true
		case a, answered := <-answers:
			if answered {
				a.want(t, 408, "in time")
			}
		case <-time.After(waitLimit):
			t.Fatal("never happened: job")
		}
	}
	select {
	case a := <-answers:
		t.Fatalf("answered %d %s by the time limit of its body", a.status, a.body)
	case id := <-w.cancels:
		t.Fatalf("job %s was cancelled by the time limit of its body", id)
	case <-time.After(3 * limit):
	}
	w.reply(job, *success(map[string]any{"passed": true, "case_results": []any{}, "error": nil}))
	within(t, "answer", answers).want(t, 200, `"passed":true`)

	for begun := time.Now(); ; {
		body, late := io.Pipe()
		defer late.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/evaluate_code", body)
		if err != nil {
			t.Fatal(err)
		}
		a, err := g.do(r)
		if err != nil && time.Since(begun) < waitLimit {
			continue // its headers were late
		}
		g.must(a, err).want(t, 408, "in time")
		return
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("w1", nil)
	g.post("/evaluate_code", evaluate("s")).want(t, 200, "")
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "")
	families, err := g.registry.Gather() // a pedantic registry checks what it gathers
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "gradefleet_") {
			t.Errorf("metric %s is not named gradefleet_…", f.GetName())
		}
	}
	if n := g.value("gradefleet_jobs_published_total", "kind", "evaluate"); n != 1 {
		t.Errorf("%v evaluate jobs published, want 1", n)
	}
	if n := g.value("gradefleet_jobs_ended_total", "outcome", "answered"); n != 1 {
		t.Errorf("%v jobs answered, want 1", n)
	}
}
