package sessionapi

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// Whether something was done, was not, or may have been decides what a caller may
// do next.
func TestDescribe(t *testing.T) {
	notStored := func(cause error) error { return fmt.Errorf("%w: %w", workcopy.ErrNotStored, cause) }
	for _, c := range []struct {
		err    error
		status int
	}{
		{notStored(errors.New("refused")), 503},
		{notStored(fmt.Errorf("%w: no answer", durable.ErrDoubt)), 504},
		{notStored(durable.ErrFull), 507},
		{session.ErrNotExist, 404},
		{workcopy.ErrElsewhere, protocol.StatusMisdirected},
		{errors.New("unheard of"), 500},
	} {
		if status, detail := describe(c.err); status != c.status {
			t.Errorf("%v: %d %s, want %d", c.err, status, detail, c.status)
		}
	}
}

// Where a session could not be opened nothing was done, whatever the reason.
func TestNotOpened(t *testing.T) {
	s := &Service{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		err    error
		status int
	}{
		{errors.New("read journal: no answer"), 503},
		{fmt.Errorf("claim: %w", durable.ErrDoubt), 503},
		{session.ErrNoSession, 404},
		{workcopy.ErrElsewhere, protocol.StatusMisdirected},
	} {
		if status, detail := describe(s.notOpened(protocol.SessionOp{}, c.err)); status != c.status {
			t.Errorf("%v: %d %s, want %d", c.err, status, detail, c.status)
		}
	}
	if err := s.notOpened(protocol.SessionOp{}, nil); err != nil {
		t.Error(err)
	}
}
