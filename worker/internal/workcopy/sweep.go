package workcopy

import (
	"context"
	"errors"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
)

// SweepConfig says when sessions and blobs are over.
type SweepConfig struct {
	// Interval is the time between two passes.
	Interval time.Duration
	// TTL is how long a session stays that nobody uses; 0 means for ever.
	TTL time.Duration
}

// parkTime is how long a session is unused until what is known of it is
// forgotten; the directory stays. Its next use compares the two.
const parkTime = 10 * time.Minute

// sweepTimeout bounds one pass.
const sweepTimeout = 10 * time.Minute

// errExpiring keeps a copy from being used while its session is removed.
var errExpiring = errors.New("the session is being removed")

// RunSweeps removes what is over, again and again, until ctx ends.
func (m *Manager) RunSweeps(ctx context.Context, cfg SweepConfig) {
	every := cfg.Interval
	if cfg.TTL > 0 {
		every = min(every, max(cfg.TTL/4, time.Second))
	}
	s := &sweeper{Manager: m, cfg: cfg, collector: m.Store.NewCollector(), every: every}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.pass(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("look for sessions that are over", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweeper is the state of the one goroutine that sweeps.
type sweeper struct {
	*Manager
	cfg       SweepConfig
	every     time.Duration
	collector *durable.Collector
	collected time.Time // when the last pass of the collector began
}

func (s *sweeper) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	collects, err := s.Store.Collects(ctx, 3*s.every)
	if err != nil {
		return err
	}
	var live map[string]bool
	if collects {
		if live, err = s.Store.LiveWorkers(ctx); err != nil {
			return err
		}
	}
	records, err := s.Store.Records(ctx)
	if err != nil {
		return err
	}
	s.strays(ctx, records)
	for _, r := range records {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.cfg.TTL == 0:
		case r.Worker == s.Worker:
			err = s.expire(ctx, r, s.cfg.TTL)
		case collects && r.Durable && !live[r.Worker]:
			err = s.expireLost(ctx, r, s.cfg.TTL)
		}
		if err != nil {
			s.Log.Warn("idle session not removed", "session", r.Session, "error", err)
			err = nil
		}
	}
	s.park(ctx)
	if !collects || !s.Durable || time.Since(s.collected) < s.cfg.Interval {
		return nil
	}
	s.collected = time.Now()
	journals, removed, err := s.collector.Collect(ctx)
	if err != nil {
		return err
	}
	if removed > 0 {
		s.Log.Info("stored contents removed that no session has", "blobs", removed)
	}
	for id, j := range journals {
		if _, ok := records[id]; !ok && time.Since(j.Written) > s.Store.Grace {
			if err := s.removeOrphan(ctx, id); err != nil {
				s.Log.Warn("journal without a session not removed", "session", id, "error", err)
			}
		}
	}
	return nil
}

// expire removes a session of this worker that is idle. A request that comes
// meanwhile waits, and then finds another owner or none.
func (m *Manager) expire(ctx context.Context, r durable.Record, ttl time.Duration) error {
	c := m.get(r.Session)
	defer m.put(c)
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.leave()
	over := time.Now().Add(-ttl)
	sess, here := m.Sessions.Get(r.Session)
	if here {
		if sess.LastUsed().After(over) {
			return nil
		}
	} else if !r.Durable {
		return nil // its directory may be on a disk that is being repaired
	}
	c.mu.Lock()
	used := c.holds > 0 || here && sess.LastUsed().After(over)
	journal := c.journal
	if !used && c.sess != nil {
		c.stale = errExpiring
	}
	c.mu.Unlock()
	if used {
		return nil
	}
	removed, err := m.remove(ctx, r, journal, here, over)
	if err != nil || !removed {
		c.mu.Lock()
		if errors.Is(c.stale, errExpiring) {
			c.stale = nil
		}
		c.mu.Unlock()
		return err
	}
	c.unload()
	return c.removeDir()
}

// remove removes the record and the journal of a session. It returns false if
// it isn't idle, or its record has changed: then nothing was removed. used says
// that the session's use is known to be long ago.
func (m *Manager) remove(ctx context.Context, r durable.Record, journal *durable.Journal, used bool, over time.Time) (bool, error) {
	none := !r.Durable
	if journal == nil && !none {
		var err error
		journal, err = m.Store.Load(ctx, r.Session)
		if none = errors.Is(err, durable.ErrNone); err != nil && !none {
			return false, err
		}
	}
	if journal != nil {
		last, _, written := journal.Last()
		if !none && last.Created != r.Created.UnixNano() {
			none = true // of another session of that id; who needs its place clears it
		}
		if !used && !none && written.After(over) {
			return false, nil
		}
	}
	if !used && r.Written.After(over) {
		return false, nil
	}
	if err := m.Store.RemoveRecord(ctx, r); err != nil {
		if errors.Is(err, durable.ErrFenced) {
			return false, nil // a request was quicker
		}
		return false, err
	}
	m.Store.Metrics.Expired()
	m.Log.Info("idle session removed", "session", r.Session, "worker", r.Worker)
	if none || journal == nil {
		return true, nil
	}
	if err := journal.Remove(ctx); err != nil && !errors.Is(err, durable.ErrFenced) {
		m.Log.Warn("journal of a removed session is left for the collector", "session", r.Session, "error", err)
	}
	return true, nil
}

// expireLost removes an idle session whose owner is gone.
func (m *Manager) expireLost(ctx context.Context, r durable.Record, ttl time.Duration) error {
	over := time.Now().Add(-ttl)
	if r.Written.After(over) {
		return nil
	}
	_, err := m.remove(ctx, r, nil, false, over)
	return err
}

// removeOrphan removes a journal whose session has no record.
func (m *Manager) removeOrphan(ctx context.Context, id string) error {
	journal, err := m.Store.Load(ctx, id)
	if errors.Is(err, durable.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	// After the journal was read: who takes the session up now writes to it
	// first, and the removal fails.
	if _, err := m.Store.Record(ctx, id); !errors.Is(err, durable.ErrNone) {
		return err
	}
	return journal.Remove(ctx)
}

// strays removes the directories of sessions that others own now, and of those
// that are no more.
func (s *sweeper) strays(ctx context.Context, records map[string]durable.Record) {
	for _, sess := range s.Sessions.List() {
		r, ok := records[sess.ID()]
		if ok && r.Worker == s.Worker || !ok && (s.cfg.TTL == 0 || time.Since(sess.LastUsed()) < s.cfg.TTL) {
			continue
		}
		if err := s.stray(ctx, sess.ID()); err != nil {
			s.Log.Warn("copy of a session that others own not removed", "session", sess.ID(), "error", err)
		}
	}
}

func (s *sweeper) stray(ctx context.Context, id string) error {
	c := s.get(id)
	defer s.put(c)
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.leave()
	r, err := s.Store.Record(ctx, id)
	if err == nil && r.Worker == s.Worker || err != nil && !errors.Is(err, durable.ErrNone) {
		return err
	}
	c.mu.Lock()
	loaded, busy := c.sess != nil, c.holds > 0
	c.mu.Unlock()
	if busy {
		c.fail(durable.ErrFenced) // it goes when it is released
		return nil
	}
	if loaded {
		return c.drop(ctx)
	}
	return c.removeDir()
}

// park forgets what is known of sessions that nobody used for long.
func (s *sweeper) park(ctx context.Context) {
	s.mu.Lock()
	var ids []string
	for id, c := range s.copies {
		if c.idle() {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	for _, id := range ids {
		c := s.get(id)
		if c.enter(ctx) == nil {
			c.park()
			c.leave()
		}
		s.put(c)
	}
}

// idle reports whether the copy was not used for long.
func (c *workcopy) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idleLocked()
}

func (c *workcopy) idleLocked() bool {
	return c.sess != nil && c.holds == 0 && c.stale == nil && time.Since(c.sess.LastUsed()) > parkTime
}

// park forgets the copy, not its directory; the gate is held.
func (c *workcopy) park() {
	c.mu.Lock()
	idle := c.idleLocked()
	if idle {
		c.sess, c.journal, c.epoch, c.over = nil, nil, 0, 0
	}
	c.mu.Unlock()
	if idle {
		c.order.Lock()
		c.looked = nil
		c.order.Unlock()
	}
}
