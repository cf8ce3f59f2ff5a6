package backlog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A caller has a share of the backlog's jobs, which JetStream sees to, and the same
// share of its bytes, which JetStream can't: it counts bytes only of a whole
// stream. The feeder knows what every line has, and gateways ask it before they
// store a job that is large.

// keepFor is how long room is kept for a job that doesn't come: longer than a
// gateway tries to store one.
const keepFor = 15 * time.Second

// limits are those of one caller's line; zeros are none.
type limits struct{ jobs, bytes int64 }

// waits is what a caller has in the backlog, on its way out included.
type waits struct{ jobs, bytes int64 }

// room is kept for a job that is about to be stored.
type room struct {
	bytes int64
	until time.Time
}

// limit learns the limits, which the gateway that started last has set, and
// forgets room that was kept for nothing.
func (v *view) limit() error {
	ctx, cancel := context.WithTimeout(v.ctx, opTimeout)
	defer cancel()
	info, err := v.feeder.cfg.Bus.Backlog.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", protocol.BacklogStream, err)
	}
	c := info.Config
	var l limits
	if c.DiscardNewPerSubject && c.MaxMsgsPerSubject > 0 {
		l.jobs = c.MaxMsgsPerSubject
		if c.MaxBytes > 0 && c.MaxMsgs > 0 {
			l.bytes = int64(float64(c.MaxBytes) * min(float64(l.jobs)/float64(c.MaxMsgs), 1))
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limits = l
	now := v.feeder.now()
	for subject, rooms := range v.rooms {
		maps.DeleteFunc(rooms, func(_ string, k room) bool { return now.After(k.until) })
		if len(rooms) == 0 {
			delete(v.rooms, subject)
		}
	}
	return nil
}

// onAsk answers a gateway that asks about a line.
func (v *view) onAsk(m *nats.Msg) {
	log := v.feeder.cfg.Log
	var ask protocol.LineRequest
	if err := json.Unmarshal(m.Data, &ask); err != nil {
		log.Warn("question about a line of the backlog can't be read", "error", err)
		return
	}
	reply, err := json.Marshal(v.line(ask))
	if err == nil {
		err = m.Respond(reply)
	}
	if err != nil && v.ctx.Err() == nil {
		log.Warn("question about a line of the backlog not answered", "error", err)
	}
}

// line says how a caller's line is, and keeps room in it for the job, if there is
// one. What is alone has room, and so has what is there.
func (v *view) line(ask protocol.LineRequest) protocol.Line {
	now := v.feeder.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	has := v.waits[ask.Subject]
	r := protocol.Line{
		Jobs: has.jobs, Bytes: has.bytes, MaxJobs: v.limits.jobs, MaxBytes: v.limits.bytes,
		All: v.all, Callers: int64(len(v.waits)),
		PerSecond: v.feeder.cfg.Meter.PerSecond(now),
	}
	there := false
	if l := v.turns.lines[ask.Subject]; l != nil && ask.Job != "" {
		there = slices.ContainsFunc(l.entries, func(e *entry) bool { return e.job == ask.Job })
	}
	rooms := v.rooms[ask.Subject]
	for job, k := range rooms {
		if job == ask.Job || now.After(k.until) {
			delete(rooms, job)
			continue
		}
		r.Jobs, r.Bytes = r.Jobs+1, r.Bytes+k.bytes
	}
	if ask.Job == "" || there || r.MaxBytes <= 0 {
		return r
	}
	if r.Jobs > 0 && r.Bytes+ask.Bytes > r.MaxBytes {
		r.Refused = true
		return r
	}
	if rooms == nil {
		rooms = map[string]room{}
		v.rooms[ask.Subject] = rooms
	}
	rooms[ask.Job] = room{bytes: ask.Bytes, until: now.Add(keepFor)}
	return r
}

// came takes in a job that has come, for which room may have been kept. v.mu is held.
func (v *view) came(e *entry) {
	v.count(e, 1)
	rooms := v.rooms[e.subject]
	if delete(rooms, e.job); rooms != nil && len(rooms) == 0 {
		delete(v.rooms, e.subject)
	}
}

// count counts a job that has come, n being 1, or is gone, -1. v.mu is held.
func (v *view) count(e *entry, n int64) {
	v.all += n
	has := v.waits[e.subject]
	has.jobs, has.bytes = has.jobs+n, has.bytes+n*int64(e.bytes)
	if v.waits[e.subject] = has; has.jobs == 0 {
		delete(v.waits, e.subject)
	}
}
