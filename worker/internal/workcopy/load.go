package workcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// claimTries is how often a journal is read anew that somebody else wrote to
// between the reading and the claim.
const claimTries = 3

// load makes this worker the one who may write to the session's journal, and the
// directory what the journal says; the gate is held and nothing is loaded.
func (c *workcopy) load(ctx context.Context, epoch uint64, lease int64, create bool) error {
	var err error
	for range claimTries {
		if err = c.tryLoad(ctx, epoch, lease, create); !errors.Is(err, durable.ErrFenced) {
			return err
		}
	}
	return elsewhere("%v", err)
}

func (c *workcopy) tryLoad(ctx context.Context, epoch uint64, lease int64, create bool) error {
	m := c.m
	record, err := m.Store.Record(ctx, c.id)
	if errors.Is(err, durable.ErrNone) {
		return elsewhere("it has no record")
	}
	if err != nil {
		return err
	}
	if record.Worker != m.Worker || record.Epoch != epoch {
		return elsewhere("its record names worker %s and epoch %d, the request epoch %d", record.Worker, record.Epoch, epoch)
	}
	id := durable.Identity{Session: c.id, Created: record.Created.UnixNano(), Epoch: epoch}
	if m.ended.covers(c.id, id.Created, epoch) {
		return overElsewhere(epoch) // the record was read from a server that has been stopped
	}
	if err := c.succeed(ctx, &record); err != nil {
		return err
	}
	journal, err := m.Store.Load(ctx, c.id)
	none := errors.Is(err, durable.ErrNone)
	if err != nil && !none {
		return err
	}
	last, _, _ := journal.Last()
	if !none && last.Created != id.Created {
		none = true // left of an earlier session of that id
		journal.Reset()
	}
	if !none && last.Epoch > epoch {
		return elsewhere("its journal is of epoch %d, the request of %d", last.Epoch, epoch)
	}
	journal.Begin(id)
	sess, here := m.Sessions.Get(c.id)
	switch {
	case !record.Durable && here:
		sess, err = c.adopt(ctx, journal, sess, record)
	case none:
		sess, err = c.start(ctx, journal, record, create)
	default:
		sess, err = c.restore(ctx, journal, sess, epoch)
	}
	if err != nil {
		return err
	}
	if c.publish(sess, journal, id, lease) {
		return nil
	}
	if err := c.removeDir(); err != nil {
		m.Log.Warn("copy of a session not removed", "session", c.id, "error", err)
	}
	return overElsewhere(epoch)
}

// overElsewhere is the error for an epoch after which another worker has begun one.
func overElsewhere(epoch uint64) error {
	return elsewhere("the request is of epoch %d, and another worker has begun a later one", epoch)
}

// publish makes what was loaded usable, unless this worker has let go of the
// session meanwhile.
func (c *workcopy) publish(sess *session.Session, journal *durable.Journal, id durable.Identity, lease int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m.ended.covers(c.id, id.Created, id.Epoch) {
		return false
	}
	c.sess, c.journal, c.epoch, c.created = sess, journal, id.Epoch, id.Created
	c.lease, c.stale, c.over = lease, nil, 0
	return true
}

// start makes a session of which nothing is stored.
func (c *workcopy) start(ctx context.Context, journal *durable.Journal, record durable.Record, create bool) (*session.Session, error) {
	// A directory of that name is left of a session that is no more, or of one
	// of which nothing was acknowledged.
	if err := c.removeDir(); err != nil {
		return nil, err
	}
	if !create {
		return nil, errNoSession
	}
	if !record.Durable { // placed by a gateway that knew this worker otherwise
		if err := c.m.Store.MarkDurable(ctx, record); err != nil {
			return nil, err
		}
	}
	return c.m.Sessions.Create(c.id, record.Epoch)
}

// adopt stores a session that was only a directory until now.
func (c *workcopy) adopt(ctx context.Context, journal *durable.Journal, sess *session.Session, record durable.Record) (*session.Session, error) {
	if err := sess.Advance(record.Epoch); err != nil {
		return nil, err
	}
	journal.Reset()
	c.order.Lock()
	defer c.order.Unlock()
	c.looked = map[string]look{}
	batch, err := c.scan(ctx, sess, journal, true)
	if err != nil {
		return nil, fmt.Errorf("store session %s: %w", c.id, err)
	}
	if err := batch.Wait(); err != nil {
		return nil, fmt.Errorf("store session %s: %w", c.id, err)
	}
	if err := c.m.Store.MarkDurable(ctx, record); err != nil {
		return nil, err
	}
	c.m.Log.Info("session stored that was kept by this worker alone", "session", c.id)
	return sess, nil
}

// restore claims a journal and makes the directory what it says.
func (c *workcopy) restore(ctx context.Context, journal *durable.Journal, sess *session.Session, epoch uint64) (*session.Session, error) {
	begun := time.Now()
	if err := journal.Claim().Wait(); err != nil {
		return nil, err
	}
	entries := journal.Entries()
	c.order.Lock()
	defer c.order.Unlock()
	if sess != nil {
		// Of before this worker was started again, or of an earlier time as
		// its owner: good if it is what is stored.
		same, err := c.same(ctx, sess, journal, len(entries))
		if err != nil {
			c.m.Log.Warn("copy of a session can't be compared with what is stored", "session", c.id, "error", err)
		}
		if same {
			return sess, sess.Advance(epoch)
		}
		if err := c.removeDir(); err != nil {
			return nil, err
		}
	}
	c.looked = map[string]look{}
	var bytes int64
	sess, err := c.m.Sessions.Restore(c.id, epoch, func(w *session.Writer) error {
		for pass := range 2 { // links last: nothing is written through one
			for i := range entries {
				if (entries[i].Kind == durable.Link) != (pass == 1) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := c.put(ctx, w, &entries[i]); err != nil {
					return err
				}
				bytes += entries[i].Size
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("restore session %s: %w", c.id, err)
	}
	c.m.Metrics.restored(bytes, time.Since(begun))
	c.m.Log.Info("session restored", "session", c.id, "epoch", epoch, "entries", len(entries), "bytes", bytes, "took", time.Since(begun))
	return sess, nil
}

// put writes one entry of a journal to the directory.
func (c *workcopy) put(ctx context.Context, w *session.Writer, e *durable.Entry) error {
	item := session.Item{Path: e.Path, Mode: e.Mode, Target: e.Target, Stamp: session.Stamp{MTime: e.MTime}}
	switch e.Kind {
	case durable.Dir:
		return w.Dir(item)
	case durable.Link:
		return w.Link(item)
	}
	stamp, err := w.File(item, func(to io.Writer) error { return c.m.Store.Get(ctx, e.Content(), to) })
	if err == nil {
		c.looked[e.Path] = look{stamp, time.Now()}
	}
	return err
}

// same reports whether a directory is what its journal says; order is held.
func (c *workcopy) same(ctx context.Context, sess *session.Session, journal *durable.Journal, entries int) (bool, error) {
	c.looked = map[string]look{}
	found := 0
	err := sess.Scan(ctx, func(item session.Item, open session.Opener) error {
		found++
		e, ok := journal.Entry(item.Path)
		if !ok || kinds[item.Kind] != e.Kind || item.Mode != e.Mode || item.Target != e.Target {
			return errDiffers
		}
		if item.Kind != session.FileItem {
			return nil
		}
		if item.Size != e.Size || item.MTime != e.MTime {
			return errDiffers
		}
		at := time.Now()
		f, stamp, err := open()
		if err != nil {
			return err
		}
		defer f.Close()
		same, err := e.Content().Same(f)
		if err != nil {
			return err
		}
		if !same {
			return errDiffers
		}
		c.looked[item.Path] = look{stamp, at}
		return nil
	})
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil && found == entries, err
}

var errDiffers = errors.New("it differs")

var kinds = map[session.ItemKind]durable.Kind{session.FileItem: durable.File, session.DirItem: durable.Dir, session.LinkItem: durable.Link}
