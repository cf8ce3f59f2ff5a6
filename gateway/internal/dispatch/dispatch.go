// Package dispatch gets work to a worker and the answer back: it publishes an
// evaluate or run job and awaits its result, or asks the owner of a session to
// do a file operation. Which worker that is, others decide.
package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/rate"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// maxUnacked is how many published jobs may await JetStream's ack at once.
	maxUnacked = 64 << 10
	// ackTimeout is how long JetStream may take to ack one.
	ackTimeout = 10 * time.Second
	// leaderRetries and leaderWait: while the stream has no leader (a few
	// hundred milliseconds after a server was lost) nobody takes a job.
	leaderRetries = 2
	leaderWait    = 250 * time.Millisecond
	// doubtRetries: a command may be stored or not when the connection is lost,
	// and until there is another one (a second or two) nothing can be asked.
	doubtRetries = 20
	// abandonTimeout bounds the taking back of a job nobody waits for.
	abandonTimeout = 2 * time.Second
	// lostGrace is how long a result that was sent just before its worker was
	// lost may take to arrive.
	// Its heartbeats have been missing for much longer then, or it has said
	// goodbye after it.
	lostGrace = 300 * time.Millisecond
	// restartGrace is how long a command that a restarted worker may have just
	// started can take before it counts as lost with the worker's old process:
	// a little more than workers allow by default.
	restartGrace = 130 * time.Second
)

// Job is what a worker is to do.
type Job struct {
	Kind      protocol.Kind
	RequestID string
	Session   string
	// Worker owns the session, in Epoch; "" and 0 if the session has no owner.
	Worker string
	Epoch  uint64
	// Bulk says that nobody sits and waits for the job: it goes to the bulk queue,
	// or to the backlog first (Store), unless the session has an owner.
	Bulk bool
	// Caller names who asked, for limits.
	Caller string
	// Movable says that another worker can do the job if this one is lost
	// before it has: then Do's error is a Stranded.
	Movable bool
	// Lost reports whether the worker is lost by now; nil: it isn't.
	Lost func() bool
	// Body is the caller's JSON. It is not used after Do has returned.
	Body []byte
}

// Queue is the subject that the job is published to.
func (j *Job) Queue() string {
	switch {
	case j.Worker != "":
		return protocol.WorkerQueue(j.Worker)
	case j.Bulk:
		return protocol.BulkQueue
	}
	return protocol.EvaluateQueue
}

// Config of a dispatcher.
type Config struct {
	NC            *nats.Conn
	Jobs, Backlog jetstream.Stream
	// Gateway is this gateway's id, a token of a subject.
	Gateway string
	// QueueLimit is how many jobs a queue, or a caller's line in the backlog, takes,
	// for an estimate of how long a full one stays so; BacklogLimit and BacklogBytes
	// are what the backlog takes, 0 for no limit.
	QueueLimit                 int64
	BacklogLimit, BacklogBytes int64
	// Finish gives a kept job the answer that it was given up.
	Finish func(ctx context.Context, job string, result protocol.Result) error
	// Requeue makes a kept job that was delivered too often queued again, or
	// reports that it is to be given up.
	Requeue    func(ctx context.Context, job string) (bool, error)
	Log        *slog.Logger
	Registerer prometheus.Registerer

	ackTimeout, strayInterval, overdueInterval time.Duration // tests shorten them
}

// Dispatcher publishes jobs and awaits results. Its methods may be called from
// any goroutine.
type Dispatcher struct {
	cfg     Config
	js      jetstream.JetStream
	metrics *metrics
	// rates of results, by queue: the shared one, the workers' own.
	shared, owned, bulk rate.Meter
	// Tests shorten these.
	lostGrace, restartGrace, askPatience, nobodyWait, strayInterval, overdueInterval time.Duration

	results, advisories *nats.Subscription
	closing             chan struct{} // closed by Close

	mu      sync.Mutex
	pending map[string]*pending // by job id
	closed  bool
	busy    sync.WaitGroup // grows only with mu held and closed false

	watching sync.WaitGroup
}

// pending is a job whose result is awaited. Whoever takes it out of the map
// sends the one answer.
type pending struct {
	id     string
	kind   protocol.Kind
	worker string
	queue  string // subject
	// movable is the job's.
	movable bool
	answer  chan answer // buffered: the sender never waits
	since   time.Time   // it is pending
	// missing says that the job was not in the stream when it was looked for.
	// watchOverdue's alone.
	missing bool
	// sequence in the stream; 0 until JetStream's ack.
	sequence atomic.Uint64
	// begun counts the later deliveries that a worker began, queuedAnew how often
	// the job was queued anew; both under the dispatcher's lock. anew asks for it.
	begun, queuedAnew int
	anew              chan struct{}
}

// at says where the job is in the stream, unless it has gone further.
func (p *pending) at(sequence uint64) {
	for {
		before := p.sequence.Load()
		if sequence <= before || p.sequence.CompareAndSwap(before, sequence) {
			return
		}
	}
}

type answer struct {
	result protocol.Result
	err    error
	// abandon says that the job is to be taken back from the queue; otherwise is
	// what to say if that can't be done for certain, nil for the same.
	abandon   bool
	otherwise error
}

// New returns a dispatcher that listens for results. Close ends it.
func New(cfg Config) (*Dispatcher, error) {
	js, err := jetstream.New(cfg.NC, jetstream.WithPublishAsyncMaxPending(maxUnacked), jetstream.WithPublishAsyncTimeout(cmp.Or(cfg.ackTimeout, ackTimeout)))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	d := &Dispatcher{
		cfg: cfg, js: js, pending: map[string]*pending{}, closing: make(chan struct{}),
		lostGrace: lostGrace, restartGrace: restartGrace, askPatience: askPatience, nobodyWait: nobodyWait, strayInterval: cmp.Or(cfg.strayInterval, strayInterval),
		overdueInterval: cmp.Or(cfg.overdueInterval, overdueInterval),
	}
	if d.metrics, err = register(cfg.Registerer, cfg.Jobs, cfg.Backlog); err != nil {
		return nil, err
	}
	if d.results, err = cfg.NC.Subscribe(protocol.ReplyPrefix(cfg.Gateway)+">", d.onResult); err != nil {
		return nil, fmt.Errorf("subscribe to results: %w", err)
	}
	// A result may be megabytes; the client's own bound of 64 MB would drop some.
	if err := d.results.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("lift limits on results: %w", err)
	}
	if d.advisories, err = cfg.NC.QueueSubscribe(protocol.MaxDeliveriesAdvisories, advisoryGroup, d.onExhausted); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to advisories: %w", err), d.results.Unsubscribe())
	}
	// Both are in place at the server before the first job is published.
	if err := cfg.NC.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe: %w", err), d.results.Unsubscribe(), d.advisories.Unsubscribe())
	}
	d.watching.Add(2)
	go d.watchStrays()
	go d.watchOverdue()
	return d, nil
}

// Do publishes a job and returns its result. It waits until ctx ends, which
// must have a deadline: the job's. When ctx ends first, the job is taken back
// from the queue and cancelled at its worker. Errors are of package fault.
func (d *Dispatcher) Do(ctx context.Context, job Job) (protocol.Result, error) {
	p := &pending{id: protocol.NewID(), kind: job.Kind, worker: job.Worker, queue: job.Queue(), movable: job.Movable, since: time.Now(), answer: make(chan answer, 1), anew: make(chan struct{}, maxQueuedAnew)}
	if !d.enter(p) {
		return protocol.Result{}, fault.Unavailable("The gateway is stopping; ask again", nil)
	}
	defer d.busy.Done()
	if job.Lost != nil && job.Lost() {
		d.WorkerLost(job.Worker, false) // it was told before this job was there
	}
	start := time.Now()
	result, err := d.publish(ctx, p, &job, start)
	d.metrics.ended(job.Kind, err, time.Since(start))
	return result, err
}

// enter adds p (which may be nil) to what Close waits for.
func (d *Dispatcher) enter(p *pending) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.busy.Add(1)
	if p != nil {
		d.pending[p.id] = p
	}
	return true
}

// take takes a job out of the map, for the one answer; nil if it has one.
func (d *Dispatcher) take(id string) *pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pending[id]
	delete(d.pending, id)
	return p
}

// onResult runs in the subscription's one goroutine.
func (d *Dispatcher) onResult(m *nats.Msg) {
	id := protocol.LastToken(m.Subject)
	if n, ok := protocol.ParseNews(m.Header); ok {
		d.news(id, n)
		return
	}
	if m.Header.Get(protocol.HeaderGivenUp) != "" && d.queueAgain(id) {
		return
	}
	p := d.take(id)
	if p == nil {
		d.metrics.duplicates.Inc()
		return
	}
	d.meter(p.queue).Tick(time.Now())
	r, err := parse(m)
	p.answer <- answer{result: r, err: err}
}

// meter is the one of a queue.
func (d *Dispatcher) meter(queue string) *rate.Meter {
	switch queue {
	case protocol.EvaluateQueue:
		return &d.shared
	case protocol.BulkQueue:
		return &d.bulk
	}
	return &d.owned
}

// parse reads a result, which must have a status that HTTP knows.
func parse(m *nats.Msg) (protocol.Result, error) {
	r, err := protocol.ParseResult(m.Header, m.Data)
	if err == nil && (r.Status < 200 || r.Status > 599) {
		err = fmt.Errorf("%s is %d, want 200 to 599", protocol.HeaderStatus, r.Status)
	}
	if err != nil {
		return protocol.Result{}, fmt.Errorf("read result of worker %q: %w", r.Worker, err)
	}
	return r, nil
}

// Close ends the dispatcher: jobs still awaited are answered 503 (commands
// 502) and taken back, and it returns when all of that is done. Let what is in flight finish
// first; Pending tells how much there is.
func (d *Dispatcher) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	for _, p := range d.pending {
		p.answer <- answer{err: stopping(p.kind), abandon: true}
	}
	clear(d.pending)
	d.mu.Unlock()
	close(d.closing)
	d.watching.Wait()
	d.busy.Wait()
	err := errors.Join(d.advisories.Unsubscribe(), d.results.Unsubscribe())
	if d.cfg.NC.IsClosed() {
		return nil // they went with the connection
	}
	return err
}

// Pending is how many jobs await their results.
func (d *Dispatcher) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}
