package roster

import (
	"context"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// entry tells a worker's entries in the bucket apart.
type entry struct {
	revision uint64
	written  time.Time // by NATS' clock
}

// maxDeparted bounds what is remembered of workers that went.
const maxDeparted = 10_000

// depart notes that a worker went; r.mu is held.
func (r *Roster) depart(key string, last entry) {
	if len(r.departed) >= maxDeparted {
		clear(r.departed)
	}
	r.departed[key] = last
}

// AwaitLost returns when a worker is lost for certain or starts anew. Just after
// the start, or after this gateway was cut off, it doesn't know who is live, and
// waits to see.
func (r *Roster) AwaitLost(ctx context.Context, worker string) error {
	for {
		r.mu.RLock()
		w, certain := r.workers[worker], r.watchedFrom.Add(protocol.WorkerTTL)
		_, departed := r.departed[worker]
		r.mu.RUnlock()
		if w != nil {
			select {
			case <-w.life.Done():
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		wait := certain.Sub(r.now())
		if departed || wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Lost returns what a session's record is to say of a worker that doesn't go on
// with the session. It has an entry only if the worker was seen to go: then the
// worker's lease, if that is its last entry still, is over.
func (r *Roster) Lost(worker string) protocol.Former {
	r.mu.RLock()
	defer r.mu.RUnlock()
	last := r.departed[worker]
	return protocol.Former{Worker: worker, Seen: last.revision, At: last.written}
}
