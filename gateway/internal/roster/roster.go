// Package roster knows which workers are live, from the heartbeats that they
// write into the WORKERS bucket. It says who is there and who was lost; which
// worker gets what is decided elsewhere.
package roster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// sweepInterval is how often workers whose heartbeats stopped are looked for.
	sweepInterval = 250 * time.Millisecond
	// openTimeout bounds one attempt to open the bucket and watch it.
	openTimeout = 10 * time.Second
	// reopenWait is the pause before the next attempt.
	reopenWait = 500 * time.Millisecond
	// quietLimit is how long a watch may say nothing before it is opened anew:
	// there are no workers, or their bucket was lost and made again.
	quietLimit = 10 * time.Second
)

// Lost says that what a worker was doing is lost.
type Lost struct {
	Worker string
	// Restarted says that it is back already, as a new process under its old
	// id; otherwise it stopped, or its heartbeats did.
	Restarted bool
}

// Config of a roster.
type Config struct {
	NC *nats.Conn
	// Open makes sure that the bucket exists and returns it. It is called at
	// the start and after each time the connection was lost: a server that
	// came back has forgotten what was only in its memory.
	Open func(context.Context) (jetstream.KeyValue, error)
	// OnLost is called from Run's goroutine, and must not block; may be nil.
	OnLost     func(Lost)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Roster is the set of live workers. Only Run changes it, but for the counts of
// Placed; the other methods may be called from any goroutine.
type Roster struct {
	cfg Config
	now func() time.Time
	// ran is now, but in tests that set the clock: it tells when Run's goroutine had
	// no turn.
	ran func() time.Time

	mu      sync.RWMutex
	workers map[string]*worker
	// departed holds workers that were seen to go, since the watch began, and the
	// last that was seen of each.
	departed map[string]entry
	// watchedFrom is when the watch in use began: nobody is called dead for
	// heartbeats that came while there was no watch.
	watchedFrom time.Time
	// reconnects counts the connections made anew before the watch was opened; heard
	// is when the watch said something last, and looked when silent workers were
	// looked for. Run's goroutine alone uses them.
	reconnects    uint64
	heard, looked time.Time
	synced        chan struct{} // closed when the first watch has said all it knew
	syncOnce      sync.Once
}

// worker is what is kept of one; Recent in it is as of recentAt.
type worker struct {
	placement.Worker
	// last is its last entry, and came when this gateway heard of it.
	last     entry
	came     time.Time
	recentAt time.Time
	// life ends, by end, when the worker is lost or starts anew.
	life context.Context
	end  context.CancelFunc
}

// recentHalf is the time in which a placed session comes to count half in
// [placement.Worker.Recent].
const recentHalf = time.Second

// recent is Recent as of now.
func (w *worker) recent(now time.Time) float64 {
	if w.Recent == 0 {
		return 0
	}
	return w.Recent * math.Exp2(-float64(now.Sub(w.recentAt))/float64(recentHalf))
}

// New returns an empty roster; Run fills it.
func New(cfg Config) (*Roster, error) {
	r := &Roster{cfg: cfg, now: time.Now, ran: time.Now, workers: map[string]*worker{}, departed: map[string]entry{}, synced: make(chan struct{})}
	if err := r.register(cfg.Registerer); err != nil {
		return nil, err
	}
	return r, nil
}

// Synced is closed once the roster has all workers that were there at the start.
func (r *Roster) Synced() <-chan struct{} { return r.synced }

// Snapshot returns the live workers, in no order.
func (r *Roster) Snapshot() []placement.Worker {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]placement.Worker, 0, len(r.workers))
	for _, w := range r.workers {
		if w.Live(now) {
			known := w.Worker
			known.Recent = w.recent(now)
			all = append(all, known)
		}
	}
	return all
}

// Heartbeats returns what each live worker last said, in the order of their ids.
func (r *Roster) Heartbeats() []protocol.Heartbeat {
	snapshot := r.Snapshot()
	all := make([]protocol.Heartbeat, len(snapshot))
	for i, w := range snapshot {
		all[i] = *w.Heartbeat
	}
	slices.SortFunc(all, func(a, b protocol.Heartbeat) int { return strings.Compare(a.Worker, b.Worker) })
	return all
}

// Live reports whether the worker is live; it may be draining.
func (r *Roster) Live(worker string) bool {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	w := r.workers[worker]
	return w != nil && w.Live(now)
}

// Durable reports whether the worker is live and stores its sessions.
func (r *Roster) Durable(worker string) bool {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	w := r.workers[worker]
	return w != nil && w.Live(now) && w.Durable
}

// Instance tells the lives of a worker apart; empty for one that isn't known.
func (r *Roster) Instance(worker string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w := r.workers[worker]; w != nil {
		return w.Instance()
	}
	return ""
}

// Lifetime ends when the worker is lost or starts anew; that of a worker that
// isn't known has ended.
func (r *Roster) Lifetime(worker string) context.Context {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w := r.workers[worker]; w != nil {
		return w.life
	}
	return ended
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Any reports whether some live worker takes new work.
func (r *Roster) Any() bool {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, w := range r.workers {
		if w.Takes(now) {
			return true
		}
	}
	return false
}

// Placed notes that a session is being given to the worker.
func (r *Roster) Placed(worker string) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.workers[worker]; w != nil {
		w.Placed++
		w.Recent, w.recentAt = w.recent(now)+1, now
	}
}

// beat takes in a heartbeat.
func (r *Roster) beat(key string, value []byte, last entry, initial bool) {
	h := new(protocol.Heartbeat)
	if err := json.Unmarshal(value, h); err != nil {
		r.cfg.Log.Warn("heartbeat can't be read", "worker", key, "error", err)
		return
	}
	h.Worker = key
	now := r.now()
	seen := now
	// The first of a watch may be old: its writer may have died since.
	if initial && last.written.Before(now) {
		seen = last.written
	}
	r.mu.Lock()
	before := r.workers[key]
	after := &worker{Worker: placement.Worker{Heartbeat: h, Seen: seen}, last: last, came: now}
	if before != nil {
		after.Recent, after.recentAt = before.Recent, before.recentAt
	}
	if before != nil && before.Started.Equal(h.Started) {
		after.life, after.end = before.life, before.end
	} else {
		after.life, after.end = context.WithCancel(context.Background())
	}
	r.workers[key] = after
	delete(r.departed, key)
	r.mu.Unlock()
	if before == nil {
		r.cfg.Log.Info("worker joined", "worker", key, "slots", h.Slots, "isolation", h.IsolationLevel)
	} else if !before.Started.Equal(h.Started) {
		before.end()
		r.cfg.Log.Warn("worker restarted", "worker", key)
		r.lost(Lost{Worker: key, Restarted: true})
	}
}

// leave takes a worker out that said goodbye.
func (r *Roster) leave(key string, last entry) {
	r.mu.Lock()
	w, known := r.workers[key]
	delete(r.workers, key)
	r.depart(key, last)
	r.mu.Unlock()
	if known {
		w.end()
		r.cfg.Log.Info("worker left", "worker", key)
		r.lost(Lost{Worker: key})
	}
}

func (r *Roster) lost(l Lost) {
	if r.cfg.OnLost != nil {
		r.cfg.OnLost(l)
	}
}

// Run watches the bucket until ctx ends, then returns nil. A watch that can't
// be opened, or breaks, is opened again for as long as it takes.
func (r *Roster) Run(ctx context.Context) error {
	reconnected := r.cfg.NC.StatusChanged(nats.CONNECTED)
	defer r.cfg.NC.RemoveStatusListener(reconnected)
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		err := r.watch(ctx, reconnected, tick.C)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.cfg.Log.Warn("watch of the workers broke; trying again", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(reopenWait):
			}
		}
	}
}

// watch opens one watch and follows it; nil means that there is reason to open
// a new one: the connection was lost and is back, or the watch fell silent.
func (r *Roster) watch(ctx context.Context, reconnected <-chan nats.Status, tick <-chan time.Time) error {
	open, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	kv, err := r.cfg.Open(open)
	if err != nil {
		return fmt.Errorf("open bucket of workers: %w", err)
	}
	r.reconnects = r.cfg.NC.Stats().Reconnects
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch bucket of workers: %w", err)
	}
	defer w.Stop()
	r.mu.Lock()
	r.watchedFrom = r.now()
	clear(r.departed) // they may have come back while nobody watched
	r.mu.Unlock()
	initial := true
	r.heard, r.looked = r.watchedFrom, r.ran()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reconnected:
			return nil
		case <-tick:
			if behind := r.look(ctx); behind || r.now().Sub(r.heard) > quietLimit {
				return nil
			}
		case e, ok := <-w.Updates():
			r.heard = r.now()
			switch {
			case !ok:
				return fmt.Errorf("watch of bucket %s ended", protocol.WorkersBucket)
			case e == nil: // all that was there has been said
				initial = false
				r.syncOnce.Do(func() { close(r.synced) })
			case e.Operation() == jetstream.KeyValuePut:
				r.beat(e.Key(), e.Value(), entry{e.Revision(), e.Created()}, initial)
			default:
				r.leave(e.Key(), entry{e.Revision(), e.Created()})
			}
		}
	}
}
