package ownership

import (
	"context"
	"errors"
	"fmt"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// readLeader is read by way of the stream's leader: the client reads a bucket by
// a direct get, which any replica may answer. That there is no record is
// confirmed: a job would run without its session's files, a read find none.
func (s *Store) readLeader(ctx context.Context, session string) ([]byte, uint64, error) {
	m, err := s.bus.LastConfirmed(ctx, bus.KeyStream(protocol.SessionsBucket), bus.SessionsMarker,
		bus.KeySubject(protocol.SessionsBucket, protocol.SessionKey(session)), bus.Message.Deleted)
	switch {
	case errors.Is(err, bus.ErrNoMessage), err == nil && m.Deleted():
		return nil, 0, ErrNone
	case err != nil:
		return nil, 0, fmt.Errorf("look up session %s: %w", session, err)
	}
	return m.Data, m.Sequence, nil
}
