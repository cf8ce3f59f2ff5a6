package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Handler carries out one job on one free slot.
//
// An error means that the platform failed, not the job: evaluate jobs go back
// to the queue. The context is done when the job is cancelled or the worker
// must stop.
type Handler func(ctx context.Context, slot int, job protocol.Job) (protocol.Result, error)

// Keeper holds the records of kept jobs; see package kept.
type Keeper interface {
	// Begin marks a job as running here, or returns kept.ErrUnwanted.
	Begin(ctx context.Context, job protocol.Job, worker string, redelivered bool) (kept.Record, error)
	// GiveBack says that it was not done because the worker stops.
	GiveBack(ctx context.Context, r kept.Record) error
	// Finish gives it its answer.
	Finish(ctx context.Context, r kept.Record, result protocol.Result, ran bool) error
}

// Config of an Intake.
type Config struct {
	Worker string
	Slots  int
	Handle Handler
	Keeper Keeper
	// Idle is called, in the job's goroutine, before its slot becomes free.
	Idle    func(slot int)
	Metrics *Metrics
	Log     *slog.Logger
}

// Intake is what takes jobs from the queues. Run owns all its state but for
// what is marked.
type Intake struct {
	cfg Config
	bus *bus.Bus
	// pullers and messages are those of the queues, by class.
	pullers     [classes]*puller
	messages    [classes]chan *nats.Msg
	cancels     chan *nats.Msg
	cancelSub   *nats.Subscription
	resendSub   *nats.Subscription
	sent        sent
	done        chan *flight
	reconnected chan struct{}

	busy atomic.Int64 // read by anyone
	free []int
	// waiting jobs have been delivered and have no slot yet: those of own
	// sessions, which only this worker may run, and for surplusWait or bulkWait
	// those that any may run and that came although a slot was taken meanwhile.
	waiting []*flight
	flights map[string]*flight // by job id, running or waiting
	// lent slots help a job that runs on another.
	lent     map[int]context.CancelFunc
	asks     chan chan<- loan
	returned chan int
	stopped  chan struct{} // closed when Run has returned
	// cancelled remembers ids whose job may still come.
	cancelled map[string]time.Time
	draining  bool
}

// class is a queue that jobs come from; a lower one goes first.
type class int

// The classes of jobs.
const (
	own    class = iota // of this worker's sessions
	shared              // of the queue of all workers, somebody waiting for each
	bulk                // nobody sits and waits for: only when nothing else is there
	classes
)

const (
	// surplusWait is how long a job of the shared queue may wait here for a slot
	// that was promised and then taken by a job of this worker's own sessions,
	// before it is given to another worker.
	surplusWait = 30 * time.Millisecond
	// bulkWait is the same for one of the bulk queue.
	bulkWait = 250 * time.Millisecond
	// handBackTimeout bounds that.
	handBackTimeout = 2 * time.Second
	// giveBackTimeout bounds what is written of a kept job that is given back when
	// the worker stops.
	giveBackTimeout = time.Second
	// cancelMemory is how long a cancellation is remembered for a job that has
	// not come yet.
	cancelMemory = 2 * time.Minute
	// maxCancelled bounds that memory.
	maxCancelled = 100_000
	// finishWait is how long the record of a kept job is tried to be written,
	// finishLast the same for a command if the worker must stop, and finishPause the
	// time between attempts.
	finishWait  = 2 * time.Minute
	finishLast  = 30 * time.Second
	finishPause = 500 * time.Millisecond
	// beginPause is when a kept job comes again that could not be begun since its
	// record can't be reached.
	beginPause = time.Second
	// queueBuffer holds pulled messages; never more than a few per slot come.
	queueBuffer = 1024
)

// errCancelled is the cause of the context of a job that nobody waits for.
var errCancelled = errors.New("the caller is gone")

// errStopping is the cause when the worker's drain time is over.
var errStopping = errors.New("the worker is stopping")

// New subscribes to the queues of b; Run begins to pull.
func New(ctx context.Context, b *bus.Bus, cfg Config) (*Intake, error) {
	if _, err := b.WorkerConsumer(ctx, cfg.Worker); err != nil {
		return nil, err
	}
	in := &Intake{
		cfg: cfg, bus: b,
		cancels:     make(chan *nats.Msg, queueBuffer),
		done:        make(chan *flight, cfg.Slots),
		reconnected: make(chan struct{}, 1),
		flights:     map[string]*flight{},
		lent:        map[int]context.CancelFunc{},
		asks:        make(chan chan<- loan),
		returned:    make(chan int, cfg.Slots),
		stopped:     make(chan struct{}),
		cancelled:   map[string]time.Time{},
	}
	for slot := cfg.Slots - 1; slot >= 0; slot-- {
		in.free = append(in.free, slot)
	}
	var err error
	for c, consumer := range [classes]string{own: protocol.WorkerConsumer(cfg.Worker), shared: protocol.EvaluateConsumer, bulk: protocol.BulkConsumer} {
		in.messages[c] = make(chan *nats.Msg, queueBuffer)
		if in.pullers[c], err = newPuller(b.NC, consumer, in.messages[c], class(c) != bulk); err != nil {
			return nil, err
		}
	}
	if in.cancelSub, err = b.NC.ChanSubscribe(protocol.CancelAll, in.cancels); err != nil {
		return nil, fmt.Errorf("subscribe to cancellations: %w", err)
	}
	if in.resendSub, err = b.NC.Subscribe(protocol.ResendAll, in.onResend); err != nil {
		return nil, fmt.Errorf("subscribe to requests to send again: %w", err)
	}
	return in, nil
}

// Reconnected tells the intake that the connection was made anew: what was
// pulled over the old one is gone, and what was sent of late may be.
func (in *Intake) Reconnected() {
	in.resend(protocol.ReplyPrefixAll, nil)
	time.AfterFunc(resendAfter, func() { in.resend(protocol.ReplyPrefixAll, nil) })
	select {
	case in.reconnected <- struct{}{}:
	default:
	}
}

// Busy is how many slots run a job now.
func (in *Intake) Busy() int { return int(in.busy.Load()) }

// Run takes jobs until fetchCtx is done, then hands back what has not begun and
// waits for what runs. When workCtx is done that is ended too and goes back to
// the queue, and Run returns.
func (in *Intake) Run(fetchCtx, workCtx context.Context) error {
	defer close(in.stopped)
	beat := time.NewTicker(protocol.BeatInterval)
	defer beat.Stop()
	surplus := time.NewTimer(time.Hour)
	defer surplus.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	stop, killed := fetchCtx.Done(), workCtx.Done()
	work, end := context.WithCancelCause(context.WithoutCancel(workCtx)) // jobs are told why they end
	defer end(nil)
	in.pull()
	for {
		select {
		case m := <-in.messages[own]:
			in.take(work, m, own)
		case m := <-in.messages[shared]:
			in.take(work, m, shared)
		case m := <-in.messages[bulk]:
			in.take(work, m, bulk)
		case f := <-in.done:
			in.finished(work, f)
		case answer := <-in.asks:
			answer <- in.lend()
		case slot := <-in.returned:
			in.takeBack(work, slot)
		case m := <-in.cancels:
			in.cancelJob(protocol.LastToken(m.Subject))
		case <-settle.C: // what it was set for is below
		case <-surplus.C:
			in.handBack(time.Now())
		case now := <-beat.C:
			in.beat(now)
		case <-in.reconnected:
			for _, p := range in.pullers {
				p.asked = 0
			}
		case <-stop:
			stop = nil
			in.drain()
		case <-killed:
			killed = nil
			end(errStopping)
		}
		if in.draining && len(in.flights) == 0 {
			in.unsubscribe()
			return nil
		}
		if in.pull() {
			settle.Reset(settleTime)
		}
		if due := in.nextHandBack(); !due.IsZero() {
			surplus.Reset(time.Until(due))
		}
	}
}

// take takes in what a queue brought.
func (in *Intake) take(ctx context.Context, m *nats.Msg, c class) {
	if in.pullers[c].take(m, time.Now()) {
		in.accept(ctx, m, c)
	}
}

// pull asks for as many jobs as there are free slots, of either queue: a job of
// own sessions may be waited for beside one of the shared queue. The bulk queue
// is asked only while the others are known to be empty; true means that this is
// not known yet, and that time will tell if nothing else does.
func (in *Intake) pull() (unsettled bool) {
	n := len(in.free) + len(in.lent) - len(in.waiting)
	if in.draining || n <= 0 {
		return false
	}
	now := time.Now()
	for _, c := range [...]class{shared, own} {
		if err := in.pullers[c].want(n, now); err != nil {
			in.cfg.Log.Warn("pull jobs", "error", err)
		}
	}
	if in.pullers[bulk].asked >= n {
		return false
	}
	for _, c := range [...]class{shared, own} {
		quiet, err := in.pullers[c].quiet(now)
		if err != nil {
			in.cfg.Log.Warn("probe queue", "error", err)
		}
		unsettled = unsettled || !quiet
	}
	if unsettled {
		return true
	}
	if err := in.pullers[bulk].want(n, now); err != nil {
		in.cfg.Log.Warn("pull jobs", "error", err)
	}
	return false
}

// beat tells JetStream that jobs are alive, and looks after what expires.
func (in *Intake) beat(now time.Time) {
	for _, f := range in.flights {
		if now.Sub(f.since) > protocol.BeatInterval/2 && !(f.job.Kind == protocol.Run && f.cancel != nil) {
			if err := f.msg.InProgress(); err != nil && !errors.Is(err, nats.ErrMsgAlreadyAckd) {
				in.cfg.Log.Warn("beat for job", "job", f.job.ID, "error", err)
			}
		}
	}
	for _, p := range in.pullers {
		p.check(now)
	}
	for id, until := range in.cancelled {
		if now.After(until) {
			delete(in.cancelled, id)
		}
	}
}

// drain stops pulling and hands back at once what has not begun.
func (in *Intake) drain() {
	in.draining = true
	for _, f := range in.waiting {
		f.msg.Nak()
		delete(in.flights, f.job.ID)
	}
	in.waiting = nil
}

// unsubscribe hands back what was pulled and came too late.
func (in *Intake) unsubscribe() {
	for i, p := range in.pullers {
		p.sub.Unsubscribe()
		if p.probes != nil {
			p.probes.Unsubscribe()
		}
		for {
			select {
			case m := <-in.messages[i]:
				if m.Header.Get("Status") == "" {
					m.Nak()
				}
				continue
			default:
			}
			break
		}
	}
	in.cancelSub.Unsubscribe()
	in.resendSub.Unsubscribe()
}
