package workcopy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// workcopy is one session's directory and the journal it is the copy of.
type workcopy struct {
	m  *Manager
	id string
	// users counts the Acquires under way and the Holds; guarded by m.mu.
	users int
	// gate is held by who loads or gives up the copy.
	gate chan struct{}
	// released has a token when a Hold was released.
	released chan struct{}

	mu sync.Mutex // guards what follows
	// sess is set while the copy is loaded.
	sess    *session.Session
	journal *durable.Journal // nil in a worker that doesn't store
	epoch   uint64
	created int64 // names the session, with its id
	// over is the epoch that another worker has begun, 0 if none is known: what is of
	// an earlier one is refused at once.
	over uint64
	// lease is that of when the copy was last known to be the owner's.
	lease int64
	holds int
	// stale is why the copy can't be used as it is; nil if it can.
	stale error

	// order is held from a change of the directory until it is staged, so that
	// the journal has changes in the order in which they were made.
	order sync.Mutex
	// newest is when the latest of the changes so far was sent; guarded by order.
	newest time.Time
	// looked is what files were when they were last stored; guarded by order.
	looked map[string]look
}

// look is what a file was, and when it was looked at.
type look struct {
	session.Stamp
	at time.Time
}

// settled reports whether a change of the file since would show.
func (l look) settled() bool { return l.at.Sub(time.Unix(0, l.CTime)) > racyTime }

// racyTime is more than a tick of the kernel's clock: what was changed that
// recently may be changed again and have the same time.
const racyTime = 50 * time.Millisecond

func (c *workcopy) isLoaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess != nil
}

// Hold is a session in use. Its methods may be called from any goroutine, but
// not after Release.
type Hold struct {
	c       *workcopy
	Session *session.Session
	// Sent is when what is asked for now was sent; see ErrOvertaken. Zero: that
	// isn't known.
	Sent time.Time
	// Operation is the id of the change that is asked for now; "" if it has none.
	// One whose id the journal has was made, and is not made again.
	Operation string
	// First is when the change was first sent, if it may have been made since; see
	// Anew and ErrForgotten.
	First   time.Time
	journal *durable.Journal
	release func()
}

// Local returns a hold on a session that no manager knows and nothing stores.
func Local(s *session.Session, release func()) *Hold { return &Hold{Session: s, release: release} }

// Release gives the session back.
func (h *Hold) Release() {
	h.release()
	c := h.c
	if c == nil {
		return
	}
	c.mu.Lock()
	c.holds--
	fenced := c.holds == 0 && errors.Is(c.stale, durable.ErrFenced)
	c.mu.Unlock()
	select {
	case c.released <- struct{}{}:
	default:
	}
	if fenced {
		c.m.busy.Go(c.abandon)
		return
	}
	c.m.put(c)
}

// abandon gives up a copy that another worker has taken over, and the last
// hold's place among the users.
func (c *workcopy) abandon() {
	defer c.m.put(c)
	ctx, cancel := context.WithTimeout(context.Background(), acquireTimeout)
	defer cancel()
	if err := c.enter(ctx); err != nil {
		return
	}
	defer c.leave()
	c.mu.Lock()
	fenced := errors.Is(c.stale, durable.ErrFenced)
	c.mu.Unlock()
	if !fenced {
		return // somebody else was quicker
	}
	c.m.Log.Info("session taken over by another worker: its copy is removed", "session", c.id)
	if err := c.drop(ctx); err != nil {
		c.m.Log.Warn("copy of a session not removed", "session", c.id, "error", err)
	}
}

func (c *workcopy) enter(ctx context.Context) error {
	select {
	case c.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for session %s: %w", c.id, ErrBusy)
	}
}

func (c *workcopy) leave() { <-c.gate }

// hold returns a Hold if the copy is there and known to be good.
func (c *workcopy) hold(epoch uint64, lease int64, sure bool) (*Hold, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess != nil && epoch < c.over {
		return nil, overElsewhere(epoch)
	}
	if c.sess == nil || c.stale != nil || c.journal != nil && c.journal.Broken() != nil {
		return nil, nil
	}
	if epoch < c.epoch {
		return nil, elsewhere("the request is of epoch %d, the session of %d", epoch, c.epoch)
	}
	if epoch > c.epoch || c.journal != nil && (!sure || lease != c.lease) {
		return nil, nil
	}
	release, err := c.sess.Use()
	if err != nil {
		return nil, err
	}
	c.holds++
	return &Hold{c: c, Session: c.sess, journal: c.journal, release: release}, nil
}

func (c *workcopy) acquire(ctx context.Context, epoch uint64, create bool) (*Hold, error) {
	lease, holds := c.m.lease()
	if h, err := c.hold(epoch, lease, holds); h != nil || err != nil {
		return h, err
	}
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.leave()
	// Again: who had the gate may have done what is needed. The lease is taken
	// before the looks at record and journal that it stands for.
	lease, holds = c.m.lease()
	if h, err := c.hold(epoch, lease, holds); h != nil || err != nil {
		return h, err
	}
	if err := c.prepare(ctx, epoch, lease, create); err != nil {
		return nil, err
	}
	h, err := c.hold(epoch, lease, true)
	if h == nil && err == nil {
		err = ErrBusy // it broke again at once
	}
	return h, err
}

// prepare makes the copy good for an epoch, or says why it can't be; the gate
// is held.
func (c *workcopy) prepare(ctx context.Context, epoch uint64, lease int64, create bool) error {
	if !c.m.Durable {
		return c.prepareLocal(ctx, epoch, create)
	}
	c.mu.Lock()
	loaded := c.sess != nil
	good := loaded && c.stale == nil && c.journal.Broken() == nil && c.epoch == epoch
	journal := c.journal
	c.mu.Unlock()
	if good {
		good, err := c.confirm(ctx, journal, epoch)
		if err != nil {
			return err
		}
		if good {
			c.mu.Lock()
			c.lease = lease
			c.mu.Unlock()
			return nil
		}
		c.fail(durable.ErrFenced)
	}
	if loaded {
		if err := c.drop(ctx); err != nil {
			return err
		}
	}
	return c.load(ctx, epoch, lease, create)
}

// confirm asks whether this worker is still the owner of a loaded copy.
func (c *workcopy) confirm(ctx context.Context, journal *durable.Journal, epoch uint64) (bool, error) {
	r, err := c.m.Store.Record(ctx, c.id)
	if errors.Is(err, durable.ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r.Worker != c.m.Worker || r.Epoch != epoch {
		return false, nil
	}
	if b := journal.Staged(); b != nil {
		if b.Wait() != nil {
			return false, nil
		}
	}
	return journal.Current(ctx)
}

// fail makes the copy unfit for use.
func (c *workcopy) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale == nil || errors.Is(err, durable.ErrFenced) {
		c.stale = err
	}
}

// drop gives the loaded copy up and removes its directory, when nobody uses it
// any more; the gate is held, so nobody else begins to.
func (c *workcopy) drop(ctx context.Context) error {
	c.mu.Lock()
	if c.stale == nil {
		c.stale = errDropped
	}
	c.mu.Unlock()
	for {
		c.mu.Lock()
		holds := c.holds
		c.mu.Unlock()
		if holds == 0 {
			break
		}
		select {
		case <-c.released:
		case <-ctx.Done():
			return ErrBusy
		}
	}
	c.unload()
	return c.removeDir()
}

var errDropped = errors.New("the copy is given up")

func (c *workcopy) unload() {
	c.mu.Lock()
	c.sess, c.journal, c.stale, c.epoch, c.over = nil, nil, nil, 0, 0
	c.mu.Unlock()
	c.order.Lock()
	c.looked = nil
	c.order.Unlock()
}

// removeDir removes the session's directory if there is one.
func (c *workcopy) removeDir() error {
	err := c.m.Sessions.Remove(c.id)
	if errors.Is(err, session.ErrNoSession) {
		return nil
	}
	if errors.Is(err, session.ErrBusy) {
		return ErrBusy
	}
	return err
}

// prepareLocal is prepare where the directory is all there is.
func (c *workcopy) prepareLocal(ctx context.Context, epoch uint64, create bool) error {
	sess, ok := c.m.Sessions.Get(c.id)
	var err error
	switch {
	case ok && epoch < sess.Epoch():
		return elsewhere("the request is of epoch %d, the session of %d", epoch, sess.Epoch())
	case ok && c.m.ended.covers(c.id, anyCreated, epoch):
		return overElsewhere(epoch)
	case ok:
		err = sess.Advance(epoch)
	case create:
		// The gateway has just made this worker its owner, unless the session
		// was removed a moment ago, or is one that must be stored.
		var r durable.Record
		r, err = c.m.Store.Record(ctx, c.id)
		if errors.Is(err, durable.ErrNone) || err == nil && (r.Worker != c.m.Worker || r.Epoch != epoch || r.Durable) {
			return elsewhere("its record says otherwise")
		}
		if err == nil {
			c.m.ended.forget(c.id)
			sess, err = c.m.Sessions.Create(c.id, epoch)
		}
	default:
		err = errNoSession
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sess, c.epoch, c.stale, c.over = sess, epoch, nil, 0
	return nil
}

var errNoSession = &session.Error{Kind: session.ErrNoSession, Text: "Session does not exist"}
