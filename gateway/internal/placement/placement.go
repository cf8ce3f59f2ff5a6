// Package placement chooses the worker that gets a new session. It is pure: it
// is given the workers and the time, and does no I/O.
package placement

import (
	"hash/fnv"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Worker is what is known of one worker.
type Worker struct {
	// Heartbeat is the latest one; it is not changed after it came in.
	*protocol.Heartbeat
	// Seen is when the heartbeat came in, in this process's clock.
	Seen time.Time
	// Placed is how many sessions this gateway gave the worker since that
	// heartbeat, which can't know of them.
	Placed int
	// Recent is how many it gave the worker lately, older ones counting less.
	// They will want slots, and the heartbeat can't tell yet: without them
	// everything placed within a second would go to one worker.
	Recent float64
}

// MinFreeBytes is the room on its disk below which a worker gets no new
// session as long as another one has more.
const MinFreeBytes = 256 << 20

// Live reports whether the worker's last heartbeat is recent enough.
func (w Worker) Live(now time.Time) bool { return now.Sub(w.Seen) < protocol.WorkerTTL }

// Takes reports whether the worker takes new work: it is live and not draining.
func (w Worker) Takes(now time.Time) bool { return w.Live(now) && !w.Draining }

// Choose returns the worker with the most room for a new session, and false if
// none takes new work. Room is, in this order: a disk that isn't full, free
// slots, few sessions, free bytes. Equals are told apart by a hash of session
// and worker, so that the same question has the same answer at every gateway
// and new sessions spread. The order of the workers doesn't matter.
func Choose(workers []Worker, session string, now time.Time) (worker string, ok bool) {
	best := -1
	var bestHash uint64
	for i := range workers {
		w := &workers[i]
		if !w.Takes(now) {
			continue
		}
		if best < 0 {
			best, bestHash = i, rendezvous(session, w.Worker)
			continue
		}
		switch order := compare(w, &workers[best]); {
		case order > 0:
			best, bestHash = i, rendezvous(session, w.Worker)
		case order == 0:
			h := rendezvous(session, w.Worker)
			if h > bestHash || h == bestHash && w.Worker < workers[best].Worker {
				best, bestHash = i, h
			}
		}
	}
	if best < 0 {
		return "", false
	}
	return workers[best].Worker, true
}

// compare is positive if a has more room than b, negative if less.
func compare(a, b *Worker) int {
	if x, y := a.FreeBytes >= MinFreeBytes, b.FreeBytes >= MinFreeBytes; x != y {
		if x {
			return 1
		}
		return -1
	}
	if d := a.room() - b.room(); d != 0 {
		return d
	}
	if d := (b.Sessions + b.Placed) - (a.Sessions + a.Placed); d != 0 {
		return d
	}
	switch {
	case a.FreeBytes > b.FreeBytes:
		return 1
	case a.FreeBytes < b.FreeBytes:
		return -1
	}
	return 0
}

// room is the number of free slots, less those that the sessions placed lately
// will want.
func (w *Worker) room() int { return w.Slots - w.Busy - int(w.Recent) }

// rendezvous hashes a session and a worker. FNV-1a alone barely mixes its last
// bytes into the high bits, and worker names differ in their last byte; the
// finisher (of MurmurHash3) spreads them.
func rendezvous(session, worker string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(session))
	h.Write([]byte{0})
	h.Write([]byte(worker))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
