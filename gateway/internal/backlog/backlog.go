// Package backlog feeds the bulk queue with the asynchronous jobs that wait in
// the backlog. A queue that is first come, first served would make everybody
// wait for who came with ten thousand; so callers take turns here, and only so
// many jobs are in the bulk queue at a time.
//
// One gateway feeds, who has a lock that it renews. Two at once for a moment do
// no harm, and neither does one that dies at any point: a job is moved by
// publishing it under the message id it has, and deleting it from the backlog
// after that. Of two equal messages the stream drops the second; should it have
// forgotten the first by then, workers drop a second message of a job that runs
// or has ended, since a job's record lets it begin once (see package kept). And
// what was not deleted is moved again.
package backlog

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

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// lookInterval is how often the bulk queue itself is looked at while it is
	// believed to be full: what is said of jobs that ended may be lost.
	lookInterval = time.Second
	// idleLooks is at every how many of these intervals the backlog's limits are
	// looked at, and itself while nothing is known to be in it.
	idleLooks = 10
	// opTimeout bounds one question to JetStream: one that came while there was no
	// leader is never answered, and is to be asked again. publishTimeout bounds one
	// publication.
	opTimeout      = 2 * time.Second
	publishTimeout = 5 * time.Second
	// reopenWait is the pause after a view that broke.
	reopenWait = 500 * time.Millisecond
	// maxMoves is how many jobs are moved at a time, and maxMoveBytes what their
	// bodies may take up; one alone may be larger.
	maxMoves     = 16
	maxMoveBytes = 32 << 20
)

// Config of a feeder.
type Config struct {
	Bus *bus.Bus
	// Gateway is this gateway's id, for logs and the lock.
	Gateway string
	// Records say which jobs are still wanted.
	Records interface {
		Get(ctx context.Context, job string) (kept.Record, error)
	}
	// Window is how many jobs of the backlog may be in the bulk queue, with a
	// worker or not. It is called by one goroutine at a time.
	Window func() int
	// Meter counts the jobs that had their turn.
	Meter interface {
		Tick(now time.Time)
		PerSecond(now time.Time) float64
	}
	Log        *slog.Logger
	Registerer prometheus.Registerer

	lookInterval, renewInterval, lease time.Duration // tests shorten them
}

// Feeder moves jobs from the backlog to the bulk queue while it is its gateway's
// turn to do so.
type Feeder struct {
	cfg  Config
	js   jetstream.JetStream
	lock *lock
	now  func() time.Time

	moved  *prometheus.CounterVec
	feeds  atomic.Bool
	behind sync.WaitGroup // readers of views that are over

	mu   sync.Mutex
	view *view // the present one, for tests; nil if it isn't this gateway's turn
}

// What came of a job's turn.
const (
	moved   = "moved"
	expired = "expired" // past its deadline
	ended   = "ended"   // cancelled, say
	gone    = "gone"    // moved by another gateway
	failed  = "failed"  // and tried again
)

// New returns a feeder; Run feeds.
func New(cfg Config) (*Feeder, error) {
	cfg.lookInterval = cmp.Or(cfg.lookInterval, lookInterval)
	js, err := jetstream.New(cfg.Bus.NC, jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	f := &Feeder{
		cfg: cfg, js: js, now: time.Now,
		lock: newLock(cfg.Bus, cfg.Gateway, cmp.Or(cfg.renewInterval, renewInterval), cmp.Or(cfg.lease, lease)),
		moved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradefleet_backlog_turns_total",
			Help: "Asynchronous jobs whose turn it was in this gateway, by what came of it.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{moved, expired, ended, gone, failed} {
		f.moved.WithLabelValues(outcome) // shown as 0 from the start
	}
	feeds := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gradefleet_backlog_feeder",
		Help: "1 if this gateway is the one that moves asynchronous jobs to the bulk queue.",
	}, func() float64 {
		if f.feeds.Load() {
			return 1
		}
		return 0
	})
	for _, c := range []prometheus.Collector{f.moved, feeds} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the backlog: %w", err)
		}
	}
	return f, nil
}

// Run feeds while it is this gateway's turn, until ctx is done. Then another
// gateway goes on at once.
func (f *Feeder) Run(ctx context.Context) {
	defer f.behind.Wait()
	for ctx.Err() == nil {
		if err := f.lock.acquire(ctx, f.cfg.Log); err != nil {
			return
		}
		f.cfg.Log.Info("this gateway feeds the bulk queue", "gateway", f.cfg.Gateway)
		f.feeds.Store(true)
		held, lost := context.WithCancel(ctx)
		var renewing sync.WaitGroup
		renewing.Go(func() {
			defer lost()
			f.lock.hold(held, f.cfg.Log)
		})
		f.feed(held)
		lost()
		renewing.Wait()
		f.feeds.Store(false)
		if err := f.lock.release(); err != nil {
			f.cfg.Log.Warn("lock of the backlog not given up; another gateway takes it when it is not renewed", "error", err)
		}
	}
}

// feed opens one view after the other until ctx is done.
func (f *Feeder) feed(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.watch(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		f.cfg.Log.Warn("view of the backlog broke; trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(reopenWait):
		}
	}
}

const (
	// pullMessages, pullExpiry and pullHeartbeat: how many headers are asked for at
	// a time, and how soon it is noticed that nobody answers.
	pullMessages  = 1000
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 2 * time.Second
	// viewIdle is after how long the server forgets a view that nobody reads.
	viewIdle = 30 * time.Second
)

// watch makes a view of the backlog and moves jobs by it. nil means that there is
// reason to make a new one: the connection was lost and is back, or the view
// isn't right.
func (f *Feeder) watch(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	nc := f.cfg.Bus.NC
	reconnected := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(reconnected)
	v := &view{feeder: f, ctx: ctx, sent: map[string]*sent{}, waits: map[string]waits{}, rooms: map[string]map[string]room{}, chosen: make(chan *move, maxMoves)}
	hints, err := nc.Subscribe(protocol.SettledSubject("*"), func(m *nats.Msg) { v.settled(protocol.LastToken(m.Subject)) })
	if err != nil {
		return fmt.Errorf("subscribe to ends of jobs: %w", err)
	}
	defer hints.Unsubscribe()
	// It is in place before the first job is moved.
	open, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if err := nc.FlushWithContext(open); err != nil {
		return fmt.Errorf("subscribe to ends of jobs: %w", err)
	}
	if err := v.start(open); err != nil {
		return err
	}
	if err := v.limit(); err != nil {
		return err
	}
	asks, err := nc.Subscribe(protocol.BacklogLine, v.onAsk)
	if err != nil {
		return fmt.Errorf("subscribe to questions about the backlog: %w", err)
	}
	defer asks.Unsubscribe()
	consumer, err := f.js.OrderedConsumer(open, protocol.BacklogStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true, InactiveThreshold: viewIdle, MaxResetAttempts: 1,
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", protocol.BacklogStream, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullMessages), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("read stream %s: %w", protocol.BacklogStream, err)
	}
	// Waited for at the very end only: it may be busy with a connection that is lost.
	f.behind.Go(func() {
		defer messages.Stop()
		stop(v.read(messages))
	})
	f.show(v)
	defer f.show(nil)
	v.moving.Go(func() { v.publish() })
	defer v.close(func() { stop(nil) })
	return v.mind(reconnected)
}

// mind looks after a view until it is over.
func (v *view) mind(reconnected <-chan nats.Status) error {
	f := v.feeder
	tick := time.NewTicker(f.cfg.lookInterval)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-v.ctx.Done():
			if err := context.Cause(v.ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case <-reconnected:
			return nil
		case <-tick.C:
		}
		var err error
		if n%idleLooks == 0 {
			err = v.limit()
		}
		switch {
		case v.held():
			err = errors.Join(err, v.look())
		case n%idleLooks == 0:
			wrong, missErr := v.misses()
			if err = errors.Join(err, missErr); wrong {
				f.cfg.Log.Warn("jobs are in the backlog that the view of it misses; making a new one")
				return nil
			}
		}
		if err != nil && v.ctx.Err() == nil {
			f.cfg.Log.Warn("queues not looked at", "error", err)
		}
	}
}

func (f *Feeder) show(v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = v
}
