package ownership

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The client reads a bucket by a direct get, which any replica may answer; this
// is JetStream's other way to read, which only the stream's leader answers.
const leaderGet = "$JS.API.STREAM.MSG.GET.KV_" + protocol.SessionsBucket

type leaderRequest struct {
	LastBySubject string `json:"last_by_subj"`
}

// leaderResponse is JetStream's io.nats.jetstream.api.v1.stream_msg_get_response.
type leaderResponse struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Sequence uint64 `json:"seq"`
		Header   []byte `json:"hdrs"`
		Data     []byte `json:"data"`
	} `json:"message"`
}

// readLeader is read by way of the stream's leader.
func (s *Store) readLeader(ctx context.Context, session string) ([]byte, uint64, error) {
	request, err := json.Marshal(leaderRequest{"$KV." + protocol.SessionsBucket + "." + protocol.SessionKey(session)})
	if err != nil {
		return nil, 0, fmt.Errorf("encode look-up of session %s: %w", session, err)
	}
	msg, err := s.nc.RequestWithContext(ctx, leaderGet, request)
	if err != nil {
		return nil, 0, fmt.Errorf("look up session %s: %w", session, err)
	}
	var r leaderResponse
	if err := json.Unmarshal(msg.Data, &r); err != nil {
		return nil, 0, fmt.Errorf("look up session %s: %w", session, err)
	}
	switch {
	case r.Error != nil && r.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, 0, ErrNone
	case r.Error != nil:
		return nil, 0, fmt.Errorf("look up session %s: %w", session, r.Error)
	case r.Message == nil:
		return nil, 0, fmt.Errorf("look up session %s: answer without a message", session)
	}
	if len(r.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(r.Message.Header)
		if err != nil {
			return nil, 0, fmt.Errorf("look up session %s: %w", session, err)
		}
		// A deleted key is a message too: one that says so.
		if h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "" {
			return nil, 0, ErrNone
		}
	}
	return r.Message.Data, r.Message.Sequence, nil
}
