package workcopy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
)

const (
	// releaseTimeout is how long former owners of a session may take to let go of
	// it. One that is gone counts as such after protocol.WorkerTTL at the latest.
	releaseTimeout = 10 * time.Second
	// askTimeout is how long one may take to answer.
	askTimeout = 500 * time.Millisecond
	// lookPause is the time between two looks at one that doesn't answer, and
	// confirmPause at one that is gone, if somebody else looks at this moment too.
	lookPause    = 250 * time.Millisecond
	confirmPause = 10 * time.Millisecond
)

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// beats is what a worker knows of its own heartbeats.
type beats struct {
	mu sync.Mutex
	// revision is that of the last that was acknowledged, since the time from which
	// each followed the one before: the bucket has lost nothing since.
	revision uint64
	since    int64
}

// Heartbeat writes this worker's heartbeat. It is for one goroutine.
func (m *Manager) Heartbeat(ctx context.Context, body []byte) error {
	written := m.Beat()
	m.beats.mu.Lock()
	last := m.beats.revision
	m.beats.mu.Unlock()
	revision, follows, err := m.Store.Beat(ctx, body, last)
	if err != nil {
		return err
	}
	m.beats.mu.Lock()
	m.beats.revision = revision
	if !follows {
		m.beats.since = m.clock()
	}
	m.beats.mu.Unlock()
	written()
	return nil
}

// Leave takes this worker's heartbeat away.
func (m *Manager) Leave(ctx context.Context) error {
	m.beats.mu.Lock()
	last := m.beats.revision
	m.beats.mu.Unlock()
	return m.Store.Leave(ctx, last)
}

// intact returns for how long it is certain that the bucket of heartbeats, which
// is in the memory of NATS, has lost nothing.
func (m *Manager) intact(ctx context.Context) (time.Duration, error) {
	m.beats.mu.Lock()
	last, since := m.beats.revision, m.beats.since
	m.beats.mu.Unlock()
	if last == 0 {
		return 0, nil
	}
	own, err := m.Store.Sight(ctx, m.Worker)
	if err != nil || own.Revision != last {
		return 0, err
	}
	return time.Duration(m.clock() - since), nil
}

// succeed returns when no former owner of a session can serve it any more, and
// takes them out of the record. However late the record got its new owner, and
// whoever wrote it, may not have known that the one before was there.
func (c *workcopy) succeed(ctx context.Context, record *durable.Record) error {
	if len(record.Former) == 0 {
		return nil
	}
	m := c.m
	begun := m.clock()
	release := protocol.Release{Session: c.id, Epoch: record.Epoch, Created: record.Created}
	wait, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	errs := make([]error, len(record.Former))
	var wg sync.WaitGroup
	for i, f := range record.Former {
		if f.Worker != m.Worker { // what this one has is given up before
			wg.Go(func() { errs[i] = m.outlast(wait, f, release) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		m.Log.Warn("session may be served by a former owner still", "session", c.id, "epoch", record.Epoch, "error", err)
		return err
	}
	if took := time.Duration(m.clock() - begun); took > askTimeout {
		m.Log.Warn("session was held by former owners", "session", c.id, "epoch", record.Epoch, "took", took)
	}
	revision, err := m.Store.Settle(ctx, *record)
	if errors.Is(err, durable.ErrFenced) {
		return err // it is looked at again
	}
	if err != nil {
		m.Log.Warn("former owners are left in a session's record", "session", c.id, "error", err)
		return nil
	}
	record.Former, record.Revision = nil, revision
	return nil
}

// outlast returns when a former owner can't serve a session any more: it says so, or
// its lease is over. The error is ErrHeld if that can't be said in time.
func (m *Manager) outlast(ctx context.Context, f protocol.Former, r protocol.Release) error {
	var first durable.Sighting // of the entry that it has
	var since int64            // when that was seen first; 0: not yet
	for {
		wait := lookPause
		found, err := m.Store.Sight(ctx, f.Worker)
		if err == nil {
			if since == 0 || !found.Same(first) {
				first, since = found, m.clock()
			}
			var lapsed bool
			if lapsed, err = m.lapsed(ctx, f, found, since); lapsed {
				if lapsed, err = m.Store.Unchanged(ctx, f.Worker, found); lapsed {
					return nil
				}
				wait = confirmPause
			} else if err == nil {
				if err = m.Store.AskRelease(ctx, f.Worker, r, m.askTimeout); err == nil {
					m.Log.Info("session let go by the worker that owned it before", "session", r.Session, "epoch", r.Epoch, "former", f.Worker)
					return nil
				}
			}
		}
		if m.pause(ctx, wait) != nil {
			return fmt.Errorf("%w: worker %s, session %s, epoch %d: %w", ErrHeld, f.Worker, r.Session, r.Epoch, errors.Join(err, ctx.Err()))
		}
	}
}

// lapsed reports whether a worker's lease is over if what was found of it is
// so still. A lease counts from the begin of the worker's last heartbeat.
func (m *Manager) lapsed(ctx context.Context, f protocol.Former, found durable.Sighting, since int64) (bool, error) {
	switch {
	case found.Left:
		return true, nil // it serves nothing from then on
	case found.Revision == 0:
		// Heartbeats are kept for longer than they count. But NATS may have been
		// started again, and the worker not have written one since.
		intact, err := m.intact(ctx)
		return intact >= protocol.WorkerTTL, err
	case found.Same(durable.Sighting{Revision: f.Seen, Written: f.At}):
		return true, nil // who called it lost had waited
	}
	return m.clock()-since >= int64(protocol.WorkerTTL), nil
}

// LetGo gives up a session that another worker owns from an epoch on: when it
// returns, nothing of an earlier one is answered from this worker's copy that
// wasn't asked before.
func (m *Manager) LetGo(r protocol.Release) {
	m.ended.add(r.Session, life{r.Created.UnixNano(), r.Epoch})
	m.mu.Lock()
	c := m.copies[r.Session]
	if c == nil {
		m.mu.Unlock()
		return
	}
	c.users++
	m.mu.Unlock()
	if c.letGo(r) {
		m.busy.Go(c.abandon)
		return
	}
	m.put(c)
}

// letGo makes the copy unfit, and reports whether that is to be removed now. One
// that is being loaded finds out before it is used.
func (c *workcopy) letGo(r protocol.Release) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.sess == nil:
		return false
	case c.journal == nil: // the directory is all there is: it is left alone
		c.over = max(c.over, r.Epoch)
		return false
	case c.created == r.Created.UnixNano() && c.epoch >= r.Epoch:
		return false
	}
	c.over, c.stale = r.Epoch, durable.ErrFenced
	return c.holds == 0
}

// life is an epoch of a session.
type life struct {
	created int64 // with the session's id, names it
	epoch   uint64
}

// anyCreated stands for any session of an id.
const anyCreated = 0

// ended remembers from which epoch on sessions are others', of those this worker
// was asked to let go of: a load that read the record before must not be used.
// Two generations: when the young one is full, the old one is forgotten.
type ended struct {
	mu         sync.Mutex
	young, old map[string]life
}

// maxEnded bounds each generation.
const maxEnded = 10_000

func (e *ended) get(session string) (life, bool) {
	if l, ok := e.young[session]; ok {
		return l, true
	}
	l, ok := e.old[session]
	return l, ok
}

func (e *ended) add(session string, l life) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if before, ok := e.get(session); ok && (before.created > l.created || before.created == l.created && before.epoch > l.epoch) {
		return // the one that comes now was held up
	}
	if e.young == nil || len(e.young) >= maxEnded {
		e.young, e.old = map[string]life{}, e.young
	}
	e.young[session] = l
}

// covers reports whether an epoch of a session is over.
func (e *ended) covers(session string, created int64, epoch uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	l, ok := e.get(session)
	return ok && (created == anyCreated || l.created == created) && epoch < l.epoch
}

func (e *ended) forget(session string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.young, session)
	delete(e.old, session)
}
