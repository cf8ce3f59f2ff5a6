package roster

import (
	"context"
	"errors"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// readTimeout bounds the reading of the entries of workers that fell silent.
const readTimeout = time.Second

// stoodStill is how long after the last look the next may come before this process,
// or all of its machine, is known to have stood still.
const stoodStill = time.Second

// look takes the workers out whose heartbeats stopped, as sweep. A time in which
// this gateway stood still doesn't count: what it didn't hear then says nothing of
// the workers, which may have stood still with it.
func (r *Roster) look(ctx context.Context) (behind bool) {
	defer func() { r.looked = r.ran() }()
	gap := r.ran().Sub(r.looked)
	if gap <= stoodStill {
		return r.sweep(ctx)
	}
	r.cfg.Log.Warn("this gateway stood still; workers are given that time", "for", gap)
	r.heard = r.heard.Add(gap)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchedFrom = r.watchedFrom.Add(gap)
	now := r.now()
	for _, w := range r.workers {
		w.came = w.came.Add(gap)
		if w.Seen = w.Seen.Add(gap); w.Seen.After(now) {
			w.Seen = now // its heartbeat came just now
		}
	}
	return false
}

// sweep takes the workers out whose heartbeats stopped. It returns true if the
// watch says less than there is to be said: then it was not the workers.
func (r *Roster) sweep(ctx context.Context) (behind bool) {
	if !r.cfg.NC.IsConnected() || r.cfg.NC.Stats().Reconnects != r.reconnects {
		return false // it is we who are, or were, cut off: the watch is to be opened anew
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for key, last := range r.silent() {
		// We may have been stopped ourselves, our connection be frozen, or the
		// server that we watch by: who can be asked, and says the same, knows.
		m, err := bus.Last(ctx, r.cfg.NC, bus.KeyStream(protocol.WorkersBucket), bus.KeySubject(protocol.WorkersBucket, key))
		switch {
		case errors.Is(err, bus.ErrNoMessage): // it has expired
		case err != nil:
			r.cfg.Log.Debug("not known whether a worker that fell silent is lost", "worker", key, "error", err)
			return behind // it doesn't count as live, and is looked at again
		case !m.Deleted() && (m.Sequence != last.revision || !m.Time.Equal(last.written)):
			r.cfg.Log.Warn("heartbeats are not heard; watching anew", "worker", key)
			r.isThere(key)
			behind = true
			continue
		}
		if r.remove(key) {
			r.cfg.Log.Warn("worker lost: its heartbeats stopped", "worker", key, "after", protocol.WorkerTTL)
			r.lost(Lost{Worker: key})
		}
	}
	return behind
}

// silent returns the workers whose heartbeats stopped, with the last of each.
func (r *Roster) silent() map[string]entry {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if now.Sub(r.watchedFrom) < protocol.WorkerTTL {
		return nil
	}
	silent := map[string]entry{}
	for key, w := range r.workers {
		// Whatever NATS' clock says: its lease may be as young as its entry was
		// when it came.
		if !w.Live(now) && now.Sub(w.came) >= protocol.WorkerTTL {
			silent[key] = w.last
		}
	}
	return silent
}

// isThere notes that a worker is there, though the watch doesn't say so.
func (r *Roster) isThere(key string) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.workers[key]; w != nil {
		w.Seen, w.came = now, now
	}
}

// remove takes a worker out that is lost.
func (r *Roster) remove(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.workers[key]
	if w == nil {
		return false
	}
	delete(r.workers, key)
	r.depart(key, w.last)
	w.end()
	return true
}
