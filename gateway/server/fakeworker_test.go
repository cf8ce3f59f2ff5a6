package server_test

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// fakeWorker speaks the protocol of workers and keeps files in memory; jobs are
// answered by handle.
type fakeWorker struct {
	t  *testing.T
	c  *cluster
	id string
	// handle answers a job; nil for no answer and no ack. Set before start.
	handle func(job protocol.Job, msg jetstream.Msg) *protocol.Result
	// jobs and cancels get what came in.
	jobs    chan protocol.Job
	cancels chan string
	ops     chan protocol.SessionOp
	// unwanted gets the kept jobs that were not to be begun.
	unwanted chan string
	// noQueue keeps the worker from taking jobs.
	noQueue bool
	// keeps says that a job that handle leaves without an answer is under way still.
	keeps bool

	// underWay are the deliveries that the worker beats for: a busy machine must not
	// have JetStream deliver them again.
	underWayMu sync.Mutex
	underWay   map[jetstream.Msg]bool

	mu       sync.Mutex
	sessions map[string]*fakeSession
	// leave ends the worker, without a word; rest makes it take and answer nothing
	// any more, while its heart beats on.
	leave, rest func()
	draining    atomic.Bool
}

type fakeSession struct {
	epoch uint64
	files map[string]string
}

// worker starts a fake worker, and waits until all gateways see it; change may
// alter it before it starts.
func (c *cluster) worker(id string, change func(*fakeWorker)) *fakeWorker {
	c.t.Helper()
	w := c.workerUnseen(id, change)
	for _, g := range c.gateways {
		eventually(c.t, "gateway sees worker "+id, func() bool {
			return strings.Contains(g.get("/workers").body, `"worker":"`+id+`"`)
		})
	}
	return w
}

func (c *cluster) workerUnseen(id string, change func(*fakeWorker)) *fakeWorker {
	c.t.Helper()
	w := &fakeWorker{
		t: c.t, c: c, id: id, sessions: map[string]*fakeSession{},
		jobs: make(chan protocol.Job, 10_000), cancels: make(chan string, 10_000), ops: make(chan protocol.SessionOp, 1000),
		unwanted: make(chan string, 100), underWay: map[jetstream.Msg]bool{},
	}
	w.handle = w.answer
	if change != nil {
		change(w)
	}
	w.start()
	return w
}

func (w *fakeWorker) start() {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	nc := w.c.bus.NC
	svc, err := micro.AddService(nc, micro.Config{Name: "fake-worker", Version: "1.0.0"})
	must(err)
	group := svc.AddGroup(protocol.SessionPrefix(w.id))
	for _, op := range []string{protocol.OpRead, protocol.OpWrite, protocol.OpDelete, protocol.OpRename, protocol.OpFork} {
		must(group.AddEndpoint(op, micro.HandlerFunc(func(r micro.Request) {
			o, err := protocol.ParseSessionOp(r.Headers(), r.Data())
			if err != nil {
				w.t.Error(err)
				return
			}
			w.ops <- o
			res := w.file(op, o)
			res.Worker = w.id
			r.Respond(res.Body, micro.WithHeaders(micro.Headers(res.Header())))
		})))
	}
	cancels, err := nc.Subscribe(protocol.CancelAll, func(m *nats.Msg) { w.cancels <- protocol.LastToken(m.Subject) })
	must(err)
	var consumes []jetstream.ConsumeContext
	if !w.noQueue {
		shared, err := w.c.bus.EvaluateConsumer(w.t.Context())
		must(err)
		own, err := w.c.bus.WorkerConsumer(w.t.Context(), w.id)
		must(err)
		bulk, err := w.c.bus.Jobs.Consumer(w.t.Context(), protocol.BulkConsumer)
		must(err)
		for _, c := range []jetstream.Consumer{shared, own, bulk} {
			// One at a time: nobody beats for what waits in the client. It forgets to pull
			// again if a job comes before it has noted that it pulled; a missing heartbeat
			// reminds it.
			cc, err := c.Consume(w.job, jetstream.PullMaxMessages(1), jetstream.PullExpiry(time.Second), jetstream.PullHeartbeat(500*time.Millisecond))
			must(err)
			consumes = append(consumes, cc)
		}
	}
	beating, stop := context.WithCancel(context.Background())
	var beat sync.WaitGroup
	started := time.Now().UTC()
	w.beat(started)
	beat.Go(func() {
		tick := time.NewTicker(protocol.HeartbeatInterval / 2)
		defer tick.Stop()
		for {
			select {
			case <-beating.Done():
				return
			case <-tick.C:
				w.inProgress()
				w.beat(started)
			}
		}
	})
	w.rest = sync.OnceFunc(func() {
		for _, cc := range consumes {
			cc.Stop()
			<-cc.Closed()
		}
		svc.Stop()
		cancels.Unsubscribe()
		nc.Flush() // NATS knows that nobody answers any more
	})
	w.leave = sync.OnceFunc(func() {
		stop()
		beat.Wait()
		w.rest()
	})
	w.t.Cleanup(w.leave)
}

// inProgress tells JetStream that the jobs under way are.
func (w *fakeWorker) inProgress() {
	w.underWayMu.Lock()
	defer w.underWayMu.Unlock()
	for msg := range w.underWay {
		msg.InProgress()
	}
}

// begin has the worker beat for a job until it is ended.
func (w *fakeWorker) begin(msg jetstream.Msg) (end func()) {
	w.underWayMu.Lock()
	defer w.underWayMu.Unlock()
	w.underWay[msg] = true
	return func() {
		w.underWayMu.Lock()
		defer w.underWayMu.Unlock()
		delete(w.underWay, msg)
	}
}

// give gives the worker a session, or another of that id.
func (w *fakeWorker) give(id string, s *fakeSession) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[id] = s
}

// beat writes a heartbeat; NATS may be away.
func (w *fakeWorker) beat(started time.Time) {
	w.mu.Lock()
	sessions := len(w.sessions)
	w.mu.Unlock()
	h := protocol.Heartbeat{
		Version: protocol.Version, Worker: w.id, Build: "test", Started: started, Slots: 4, Sessions: sessions, FreeBytes: 1 << 40,
		Isolation: "none", IsolationLevel: "basic", Python: "none", Draining: w.draining.Load(),
	}
	value, err := json.Marshal(h)
	if err != nil {
		w.t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.c.bus.Workers.Put(ctx, w.id, value)
}

// goodbye is what a worker says that stops cleanly.
func (w *fakeWorker) goodbye() {
	w.leave()
	if err := w.c.bus.Workers.Delete(w.t.Context(), w.id); err != nil {
		w.t.Error(err)
	}
}

// job takes one job: runs are acked at the start, evaluates when answered.
func (w *fakeWorker) job(msg jetstream.Msg) {
	job, err := protocol.ParseJob(msg.Headers(), msg.Data())
	if err != nil {
		w.t.Error(err)
		return
	}
	var record kept.Record
	if job.Kept {
		meta, err := msg.Metadata()
		if err != nil {
			w.t.Error(err)
			return
		}
		if record, err = kept.New(w.c.bus).Begin(context.Background(), job, w.id, meta.NumDelivered > 1); err != nil {
			w.unwanted <- job.ID
			msg.Term()
			return
		}
	}
	end := func() {}
	if job.Kind == protocol.Run {
		msg.Ack()
	} else {
		end = w.begin(msg)
	}
	w.jobs <- job
	if meta, err := msg.Metadata(); err == nil && meta.NumDelivered > 1 && !job.Kept && job.Kind == protocol.Evaluate {
		w.c.bus.NC.PublishMsg(&nats.Msg{Subject: job.Reply, Header: protocol.News{Tries: 1}.Header(job.ID)})
	}
	res := w.handle(job, msg)
	if res != nil || !w.keeps {
		end()
	}
	if res != nil {
		if job.Kept {
			if err := kept.New(w.c.bus).Finish(context.Background(), record, *res, true); err != nil {
				w.t.Error(err)
			}
		} else {
			w.reply(job, *res)
		}
		if job.Kind == protocol.Evaluate {
			msg.Ack()
		}
	}
}

func (w *fakeWorker) reply(job protocol.Job, res protocol.Result) {
	res.Job, res.Worker = job.ID, w.id
	if err := w.c.bus.NC.PublishMsg(&nats.Msg{Subject: job.Reply, Header: res.Header(), Data: res.Body}); err != nil {
		w.t.Error(err)
	}
}

// answer is how jobs are answered unless a test says otherwise.
func (w *fakeWorker) answer(job protocol.Job, _ jetstream.Msg) *protocol.Result {
	if job.Epoch != 0 {
		w.mu.Lock()
		s := w.sessions[job.Session]
		w.mu.Unlock()
		switch {
		case s == nil:
			return refusal(http.StatusBadRequest, "Session does not exist")
		case job.Epoch < s.epoch:
			return refusal(protocol.StatusMisdirected, "moved on")
		}
	}
	if job.Kind == protocol.Run {
		return success(map[string]any{"id": job.Session, "stdout": w.id, "stderr": "", "exit_code": 0})
	}
	return success(map[string]any{"passed": true, "case_results": []any{}, "error": nil})
}

func success(body any) *protocol.Result {
	return &protocol.Result{Status: 200, Body: []byte(encode(body))}
}

func refusal(status int, detail string) *protocol.Result {
	return &protocol.Result{Status: status, Body: protocol.ErrorBody(detail)}
}

// file does a session operation.
func (w *fakeWorker) file(op string, o protocol.SessionOp) *protocol.Result {
	var f struct {
		RelPath string `json:"rel_path"`
		Content string `json:"content"`
		OldPath string `json:"old_path"`
		NewPath string `json:"new_path"`
	}
	json.Unmarshal(o.Body, &f)
	for _, p := range []string{f.RelPath, f.OldPath, f.NewPath} {
		if c := path.Clean(p); path.IsAbs(p) || c == ".." || strings.HasPrefix(c, "../") {
			return refusal(400, "Invalid path")
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sessions[o.Session]
	if s != nil && o.Epoch < s.epoch {
		return refusal(protocol.StatusMisdirected, "moved on")
	}
	if s == nil {
		missing := map[string]string{protocol.OpRename: "Old file does not exist", protocol.OpFork: "Session to fork not found"}
		if op != protocol.OpWrite {
			return refusal(404, cmp.Or(missing[op], "File does not exist"))
		}
		s = &fakeSession{epoch: o.Epoch, files: map[string]string{}}
		w.sessions[o.Session] = s
	}
	switch op {
	case protocol.OpWrite:
		s.files[f.RelPath] = f.Content
		return success(map[string]any{"success": true, "id": o.Session, "rel_path": f.RelPath})
	case protocol.OpFork:
		copied := &fakeSession{epoch: o.NewEpoch, files: map[string]string{}}
		for name, content := range s.files {
			copied.files[name] = content
		}
		w.sessions[o.NewID] = copied
		return success(map[string]any{"new_id": o.NewID})
	case protocol.OpRename:
		content, ok := s.files[f.OldPath]
		if !ok {
			return refusal(404, "Old file does not exist")
		}
		delete(s.files, f.OldPath)
		s.files[f.NewPath] = content
		return success(map[string]any{"success": true, "id": o.Session, "old_path": f.OldPath, "new_path": f.NewPath})
	}
	content, ok := s.files[f.RelPath]
	if !ok {
		return refusal(404, "File does not exist")
	}
	if op == protocol.OpDelete {
		delete(s.files, f.RelPath)
		return success(map[string]any{"success": true, "id": o.Session, "rel_path": f.RelPath})
	}
	return success(map[string]any{"content": content, "id": o.Session, "rel_path": f.RelPath})
}
