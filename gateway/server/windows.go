package server

import (
	"context"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/api"
	"github.com/gradefleet/gradefleet/gateway/internal/queues"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// windowPerSlot is how many jobs for each slot of the fleet may be published
	// and unanswered, and windowBase how many besides: enough that no worker ever
	// waits for a gateway, few enough that who comes next is soon served.
	windowPerSlot = 3
	windowBase    = 8
	// windowsFor is how long the count of slots is used before it is made anew.
	windowsFor = 500 * time.Millisecond
)

// windows says how many jobs of a queue may be published and unanswered. Its
// users, the gate and the feeder of the bulk queue, have one each, and are locked
// while they ask.
type windows struct {
	workers func() []protocol.Heartbeat
	counted time.Time
	total   int
	slots   map[string]int // by worker
}

func newWindows(workers func() []protocol.Heartbeat) *windows { return &windows{workers: workers} }

func (w *windows) of(queue string) int {
	if now := time.Now(); now.Sub(w.counted) > windowsFor {
		w.counted, w.total, w.slots = now, 0, map[string]int{}
		for _, h := range w.workers() {
			w.total += h.Slots
			w.slots[h.Worker] = h.Slots
		}
	}
	slots := w.total
	if strings.HasPrefix(queue, protocol.WorkerQueue("")) {
		slots = w.slots[protocol.LastToken(queue)]
	}
	return windowPerSlot*slots + windowBase
}

// queueList is the queues as the API shows them.
func queueList(r *queues.Reader) func(context.Context) []api.Queue {
	return func(ctx context.Context) []api.Queue {
		var list []api.Queue
		for _, q := range r.Queues(ctx) {
			entry := api.Queue{Queue: q.Label(), Waiting: q.Waiting, Running: q.Running}
			if !q.Oldest.IsZero() {
				entry.OldestSeconds = max(time.Since(q.Oldest).Round(time.Millisecond).Seconds(), 0)
			}
			list = append(list, entry)
		}
		return list
	}
}
