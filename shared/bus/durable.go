package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ensureDurable creates what durable sessions are kept in.
func (b *Bus) ensureDurable(ctx context.Context, replicas int, bytes int64) (err error) {
	b.Manifests, err = b.JS.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        protocol.ManifestsStream,
		Description: "what the files of each session are",
		Subjects:    []string{protocol.ManifestSubjects},
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		AllowRollup: true,
		// No direct reads: who takes a session over must see its last entry,
		// which a replica may not have yet.
	})
	if err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.ManifestsStream, err)
	}
	if bytes == 0 {
		bytes = -1
		if now, err := b.JS.Stream(ctx, protocol.BlobsStream); err == nil {
			bytes = now.CachedInfo().Config.MaxBytes
		}
	}
	b.Blobs, err = b.JS.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        protocol.BlobsStream,
		Description: "contents of sessions' files, under their digests",
		Subjects:    []string{protocol.BlobSubjects},
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		// Stored again, a content only gets younger.
		MaxMsgsPerSubject: 1,
		AllowDirect:       true,
		// Full, it refuses what is new: what is old is somebody's.
		MaxBytes: bytes,
		Discard:  jetstream.DiscardNew,
	})
	if err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.BlobsStream, err)
	}
	b.Upkeep, err = ensureBucket(ctx, b.JS, jetstream.KeyValueConfig{
		Bucket:      protocol.UpkeepBucket,
		Description: "which worker collects what no session names, and which gateway feeds the bulk queue",
		Storage:     jetstream.FileStorage,
		History:     1,
		Replicas:    replicas,
	})
	return err
}

// MarkerTTL is how long what is left of a removed session's record stays, where
// the server can do that.
const MarkerTTL = time.Hour

// markersExpire reports whether the server can remove what is left of a deleted
// key after a time: from version 2.11 on.
func (b *Bus) markersExpire() bool { return b.from2_11() }

func (b *Bus) from2_11() bool {
	var major, minor int
	if _, err := fmt.Sscanf(b.NC.ConnectedServerVersion(), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 2 || major == 2 && minor >= 11
}

// ErrNoMessage is returned by Last for a subject without a message.
var ErrNoMessage = errors.New("no message of that subject")

// Message is a message of a stream.
type Message struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// Last returns the last message of a subject as the stream's leader has it, or
// ErrNoMessage. Reads of a bucket by the client may be answered by a replica,
// which need not have what was just written.
func Last(ctx context.Context, nc *nats.Conn, stream, subject string) (Message, error) {
	return get(ctx, nc, stream, getRequest{Last: subject})
}

// Next returns the first message of a subject from a sequence on, likewise.
func Next(ctx context.Context, nc *nats.Conn, stream, subject string, from uint64) (Message, error) {
	return get(ctx, nc, stream, getRequest{Sequence: max(from, 1), Next: subject})
}

// At returns the message of a sequence, likewise; ErrNoMessage if it is gone.
func At(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) (Message, error) {
	return get(ctx, nc, stream, getRequest{Sequence: sequence})
}

// getRequest is JetStream's io.nats.jetstream.api.v1.stream_msg_get_request.
type getRequest struct {
	Last     string `json:"last_by_subj,omitempty"`
	Next     string `json:"next_by_subj,omitempty"`
	Sequence uint64 `json:"seq,omitempty"`
}

// getResponse is io.nats.jetstream.api.v1.stream_msg_get_response.
type getResponse struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Time     time.Time `json:"time"`
		Header   []byte    `json:"hdrs"`
		Data     []byte    `json:"data"`
	} `json:"message"`
}

func get(ctx context.Context, nc *nats.Conn, stream string, ask getRequest) (m Message, err error) {
	request, err := json.Marshal(ask)
	if err != nil {
		return m, fmt.Errorf("encode request to %s: %w", stream, err)
	}
	reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return m, fmt.Errorf("read message of %s: %w", stream, err)
	}
	var r getResponse
	if err := json.Unmarshal(reply.Data, &r); err != nil {
		return m, fmt.Errorf("read message of %s: %w", stream, err)
	}
	switch {
	case r.Error != nil && r.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return m, ErrNoMessage
	case r.Error != nil:
		return m, fmt.Errorf("read message of %s: %w", stream, r.Error)
	case r.Message == nil:
		return m, fmt.Errorf("read message of %s: answer without one", stream)
	}
	m = Message{Subject: r.Message.Subject, Sequence: r.Message.Sequence, Time: r.Message.Time, Data: r.Message.Data}
	if len(r.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(r.Message.Header); err != nil {
			return m, fmt.Errorf("read message of %s: %w", stream, err)
		}
	}
	return m, nil
}

// KeySubject is the subject of a bucket's key, KeyStream the bucket's stream.
func KeySubject(bucket, key string) string { return "$KV." + bucket + "." + key }

// KeyStream is the stream of a bucket.
func KeyStream(bucket string) string { return "KV_" + bucket }

// Deleted reports whether a message of a bucket says that its key was deleted.
func (m Message) Deleted() bool {
	return m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != ""
}

// StoreFull reports whether a write was refused since there is no room for it.
func StoreFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && fullCodes[api.ErrorCode]
}

// fullCodes are JetStream's codes for what it has no room for: of the account,
// the server, its memory, its disk, the stream. Source: nats-server
// server/errors.json.
var fullCodes = map[jetstream.ErrorCode]bool{10002: true, 10023: true, 10028: true, 10047: true, errCodeStoreFailed: true}

// WrongRevision reports whether a write was refused since another came first.
func WrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
