package workcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// saveTimeout bounds the storing of what a job or an operation changed.
const saveTimeout = 60 * time.Second

// WriteFile is session.WriteFile; when it returns the file is stored.
//
// Errors: those of session.WriteFile, ErrNotStored, ErrElsewhere, ErrOvertaken,
// ErrForgotten; in an Anew if the journal was found not to have the change.
func (h *Hold) WriteFile(ctx context.Context, path string, data []byte) error {
	if h.journal == nil {
		return h.inOrder(func() error { return h.Session.WriteFile(path, data) })
	}
	name, err := session.CleanPath(path)
	if err != nil {
		return err
	}
	// Before anything is changed; the directory is then quickly done.
	content, err := h.c.m.Store.Put(ctx, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return h.change(ctx, func() error { return h.Session.WriteFile(path, data) }, func() ([]durable.Entry, []string, bool, error) {
		set, plain, err := h.parents(name)
		if err != nil || !plain {
			return nil, nil, false, err
		}
		at := time.Now()
		item, plain, err := h.Session.Look(name)
		if errors.Is(err, session.ErrNotExist) { // a command removed it
			return nil, nil, false, nil
		}
		if err != nil || !plain || item.Kind != session.FileItem || item.Names > 1 {
			return nil, nil, false, err
		}
		e := durable.Entry{Path: name, Mode: item.Mode, MTime: item.MTime}
		e.SetContent(content)
		h.c.looked[name] = look{item.Stamp, at}
		return append(set, e), nil, true, nil
	})
}

// DeleteFile is session.DeleteFile; when it returns that is stored.
func (h *Hold) DeleteFile(ctx context.Context, path string) error {
	if h.journal == nil {
		return h.inOrder(func() error { return h.Session.DeleteFile(path) })
	}
	name, err := session.CleanPath(path)
	if err != nil {
		return err
	}
	_, plain, _ := h.Session.Look(name)
	return h.change(ctx, func() error { return h.Session.DeleteFile(path) }, func() ([]durable.Entry, []string, bool, error) {
		delete(h.c.looked, name)
		return nil, []string{name}, plain, nil
	})
}

// RenameFile is session.RenameFile; when it returns that is stored.
func (h *Hold) RenameFile(ctx context.Context, from, to string) error {
	if h.journal == nil {
		return h.inOrder(func() error { return h.Session.RenameFile(from, to) })
	}
	old, err := session.CleanPath(from)
	if err != nil {
		return err
	}
	name, err := session.CleanPath(to)
	if err != nil {
		return err
	}
	before, plain, _ := h.Session.Look(old)
	return h.change(ctx, func() error { return h.Session.RenameFile(from, to) }, func() ([]durable.Entry, []string, bool, error) {
		e, known := h.journal.Entry(old)
		set, parentsPlain, err := h.parents(name)
		if err != nil || !plain || !parentsPlain || !known || old == name || before.Names > 1 || kinds[before.Kind] != e.Kind {
			return nil, nil, false, err
		}
		// Its change time is another now; the next scan looks at it anew.
		delete(h.c.looked, old)
		delete(h.c.looked, name)
		e.Path = name
		return append(set, e), []string{old}, true, nil
	})
}

// change does an operation, unless it was done before, and stores what it changed:
// that which tells, or if it doesn't know for sure, what a scan finds.
//
// One that changed nothing that is stored leaves no id, and if it is asked again is
// done again: nobody can have seen that it was done before.
func (h *Hold) change(ctx context.Context, do func() error, tell func() (set []durable.Entry, deleted []string, sure bool, err error)) error {
	h.c.order.Lock()
	made, err := h.before()
	if made || err != nil {
		h.c.order.Unlock()
		if made {
			return h.stands()
		}
		return err
	}
	err = h.make(ctx, do, tell)
	if err != nil && !h.First.IsZero() {
		err = &Anew{err}
	}
	return err
}

// make does what change is to do; order is held, and not any more when it returns.
func (h *Hold) make(ctx context.Context, do func() error, tell func() (set []durable.Entry, deleted []string, sure bool, err error)) error {
	c := h.c
	if err := h.overtaken(); err != nil {
		c.order.Unlock()
		return err
	}
	if c.looked == nil {
		c.looked = map[string]look{}
	}
	if err := do(); err != nil {
		_, refused := errors.AsType[*session.Error](err)
		if !refused {
			c.fail(err) // nobody knows how far it came
		}
		c.order.Unlock()
		if refused {
			if serr := h.settled(); serr != nil {
				return serr
			}
		}
		return err
	}
	var batch *durable.Batch
	set, deleted, sure, err := tell()
	if err == nil && !sure {
		set, deleted, err = c.differences(ctx, h.Session, h.journal)
	}
	if err == nil {
		batch = stage(h.journal, set, deleted, false, h.Operation)
	}
	if err != nil {
		c.fail(err)
		c.order.Unlock()
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	c.order.Unlock()
	return h.wait(batch)
}

// inOrder makes a change in a worker that doesn't store.
func (h *Hold) inOrder(do func() error) error {
	h.c.order.Lock()
	defer h.c.order.Unlock()
	if err := h.overtaken(); err != nil {
		return err
	}
	return do()
}

// overtaken refuses a change that comes after one that was sent later; order is
// held.
func (h *Hold) overtaken() error {
	if h.Sent.IsZero() {
		return nil
	}
	if h.Sent.Before(h.c.newest) {
		return ErrOvertaken
	}
	h.c.newest = h.Sent
	return nil
}

// parents returns entries for the directories above a path that the journal
// doesn't have; plain is false if a scan has to find out.
func (h *Hold) parents(name string) (set []durable.Entry, plain bool, err error) {
	for _, dir := range session.Parents(name) {
		if e, ok := h.journal.Entry(dir); ok && e.Kind == durable.Dir {
			continue
		}
		item, plain, err := h.Session.Look(dir)
		if errors.Is(err, session.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil || !plain || item.Kind != session.DirItem {
			return nil, false, err
		}
		set = append(set, durable.Entry{Path: dir, Kind: durable.Dir, Mode: item.Mode})
	}
	return set, true, nil
}

// Save stores what a job changed. It is to be called after the job and before
// it is answered, whatever became of it.
//
// Errors: ErrElsewhere, ErrNotStored, and session.ErrTooLarge for what can't be
// stored. After each the session goes back to what is stored.
func (h *Hold) Save(ctx context.Context) error {
	if h.journal == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	c := h.c
	c.order.Lock()
	if err := h.usable(); err != nil {
		c.order.Unlock()
		return err
	}
	begun := time.Now()
	batch, err := c.scan(ctx, h.Session, h.journal, false)
	c.m.Metrics.scanned(time.Since(begun))
	if err != nil {
		c.fail(err)
		c.order.Unlock()
		if _, ok := errors.AsType[*session.Error](err); ok {
			return err
		}
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	c.order.Unlock()
	return h.wait(batch)
}

// scan stages what differs between the directory and the journal, contents
// stored; order is held. The batch is nil if there is nothing to wait for.
func (c *workcopy) scan(ctx context.Context, sess *session.Session, journal *durable.Journal, always bool) (*durable.Batch, error) {
	set, deleted, err := c.differences(ctx, sess, journal)
	if err != nil {
		return nil, err
	}
	return stage(journal, set, deleted, always), nil
}

// stage stages changes and whose they are. Where there are none it returns what
// there is to wait for, unless it is to stage always.
func stage(journal *durable.Journal, set []durable.Entry, deleted []string, always bool, operations ...string) *durable.Batch {
	if len(set) == 0 && len(deleted) == 0 && !always {
		return journal.Staged()
	}
	return journal.Stage(set, deleted, operations...)
}

// differences is what differs between the directory and the journal, contents
// stored; order is held.
func (c *workcopy) differences(ctx context.Context, sess *session.Session, journal *durable.Journal) (set []durable.Entry, deleted []string, err error) {
	seen := make(map[string]struct{}, len(c.looked))
	if c.looked == nil {
		c.looked = map[string]look{}
	}
	err = sess.Scan(ctx, func(item session.Item, open session.Opener) error {
		seen[item.Path] = struct{}{}
		e, known := journal.Entry(item.Path)
		if known && kinds[item.Kind] != e.Kind {
			known, e = false, durable.Entry{}
		}
		if item.Kind != session.FileItem {
			if !known || item.Mode != e.Mode || item.Target != e.Target {
				set = append(set, durable.Entry{Path: item.Path, Kind: kinds[item.Kind], Mode: item.Mode, Target: item.Target})
			}
			return nil
		}
		if l, ok := c.looked[item.Path]; known && ok && l.Stamp == item.Stamp && l.settled() {
			return nil
		}
		now, err := c.read(ctx, item, open, e, known)
		if errors.Is(err, session.ErrNotExist) {
			delete(seen, item.Path)
			return nil
		}
		if err != nil {
			return err
		}
		if !known || now.Mode != e.Mode || now.MTime != e.MTime || !now.Content().Equal(e.Content()) {
			set = append(set, now)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, path := range journal.Missing(seen) {
		deleted = append(deleted, path)
		delete(c.looked, path)
	}
	return set, deleted, nil
}

// read stores a file's content unless it is that of the entry before.
func (c *workcopy) read(ctx context.Context, item session.Item, open session.Opener, before durable.Entry, known bool) (durable.Entry, error) {
	at := time.Now()
	f, stamp, err := open()
	if err != nil {
		return durable.Entry{}, err
	}
	defer f.Close()
	e := durable.Entry{Path: item.Path, Mode: stamp.Mode & 0o777, MTime: stamp.MTime}
	same := false
	if known && stamp.Size == before.Size {
		if same, err = before.Content().Same(f); err != nil {
			return e, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return e, err
		}
	}
	if same {
		e.SetContent(before.Content())
	} else {
		content, err := c.m.Store.Put(ctx, f)
		if err != nil {
			return e, err
		}
		e.SetContent(content)
	}
	c.looked[item.Path] = look{stamp, at}
	return e, nil
}

// Fork makes the session of another record, which must be there already, with
// the files of this one as they are stored.
func (h *Hold) Fork(ctx context.Context, id string, epoch uint64) error {
	m := h.c.m
	if h.journal == nil {
		_, err := m.Sessions.Fork(ctx, h.Session.ID(), id, epoch)
		return err
	}
	if b := h.journal.Staged(); b != nil {
		if err := h.wait(b); err != nil {
			return err
		}
	}
	record, err := m.Store.Record(ctx, id)
	if errors.Is(err, durable.ErrNone) || err == nil && record.Epoch != epoch {
		return &session.Error{Kind: session.ErrConflict, Text: "The copy's record has changed; fork the session again"}
	}
	if err == nil {
		err = h.journal.Fork(durable.Identity{Session: id, Created: record.Created.UnixNano(), Epoch: epoch})
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return h.usable()
}
