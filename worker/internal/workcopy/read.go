package workcopy

import (
	"errors"
	"fmt"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
)

// ReadFile is session.ReadFile, and has ErrNotStored for what may not be stored.
func (h *Hold) ReadFile(path string) ([]byte, error) {
	data, err := h.Session.ReadFile(path)
	if h.journal == nil {
		return data, err
	}
	// What was found, or was not, may have been changed a moment ago and not be
	// stored yet.
	if serr := h.settled(); serr != nil {
		return nil, serr
	}
	return data, err
}

// settled waits until what others changed is stored, on which an answer rests that
// changes nothing itself.
func (h *Hold) settled() error {
	// What is in the directory is staged when order is free.
	h.c.order.Lock()
	b := h.journal.Staged()
	h.c.order.Unlock()
	if b != nil {
		if err := h.wait(b); err != nil {
			return undoubted(err) // whatever became of the change
		}
	}
	return h.usable()
}

// usable returns why the copy isn't any more, or nil.
func (h *Hold) usable() error {
	h.c.mu.Lock()
	stale := h.c.stale
	h.c.mu.Unlock()
	return undoubted(explain(stale))
}

// undoubted takes durable.ErrDoubt from an error: what is in doubt is a change of
// before, not what was asked for.
func undoubted(err error) error {
	if errors.Is(err, durable.ErrDoubt) {
		return fmt.Errorf("%w: %v", ErrNotStored, err)
	}
	return err
}

// explain makes an error of this package of what went wrong with a copy.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, durable.ErrFenced):
		return elsewhere("%v", err)
	}
	return fmt.Errorf("%w: %w", ErrNotStored, err)
}

// wait waits until a batch is stored. If that can't be said the copy is stale:
// it may have what isn't stored.
func (h *Hold) wait(b *durable.Batch) error {
	if b == nil {
		return nil
	}
	if err := b.Wait(); err != nil {
		h.c.fail(err)
		return explain(err)
	}
	return nil
}
