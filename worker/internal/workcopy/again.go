package workcopy

import (
	"errors"
	"fmt"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
)

// A gateway that doesn't hear of a change, because the worker was lost or NATS
// didn't answer, sends it again, here or to the next owner. The journal has the
// ids of the latest changes and tells whether it was made.

// ErrForgotten: the change was sent before, and may have been made; so much has
// changed since that the journal doesn't tell. It was not made now.
var ErrForgotten = errors.New("too much has changed since to know whether it was done")

// clockSlack is how far the clocks of the fleet's machines may be apart, where it
// is decided whether what was sent before may be forgotten.
const clockSlack = time.Second

// Anew wraps the error of a change that was sent before: it was not made then, nor
// will be. So the error says all that came of it.
type Anew struct{ Err error }

func (a *Anew) Error() string { return a.Err.Error() }

// Unwrap returns the error.
func (a *Anew) Unwrap() error { return a.Err }

// before looks whether the change was made when it was sent before; order is
// held.
func (h *Hold) before() (made bool, err error) {
	if err := h.usable(); err != nil {
		return false, err
	}
	if h.journal.Has(h.Operation) {
		return true, nil
	}
	if !h.First.IsZero() && h.journal.Forgot(h.First.Add(-clockSlack)) {
		return false, ErrForgotten
	}
	return false, nil
}

// stands waits until a change that was made before is stored.
func (h *Hold) stands() error {
	var err error
	if b := h.journal.Staged(); b != nil {
		err = b.Wait()
	}
	if err == nil {
		err = h.journal.Broken()
	}
	if err == nil {
		return nil
	}
	h.c.fail(err)
	if errors.Is(err, durable.ErrFenced) {
		return explain(err) // the owner knows
	}
	// Of this change or of one after it.
	return fmt.Errorf("%w: %w: %v", ErrNotStored, durable.ErrDoubt, err)
}
