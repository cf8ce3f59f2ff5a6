package sessionapi

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/micro"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// release lets go of a session that another worker owns now. A worker that is
// leaving answers too: it may have answered a read a moment ago.
func (s *Service) release(r micro.Request) {
	asked, err := parseRelease(r.Data())
	if err != nil {
		s.log.Warn("refuse to let go of a session", "error", err)
		if err := r.Error("400", err.Error(), nil); err != nil {
			s.log.Warn("answer release of a session", "error", err)
		}
		return
	}
	s.copies.LetGo(asked)
	if err := r.Respond(r.Data()); err != nil {
		s.log.Warn("answer release of a session", "session", asked.Session, "error", err)
	}
}

func parseRelease(data []byte) (r protocol.Release, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read release of a session: %w", err)
	}
	return r, protocol.CheckSessionID(r.Session)
}
