package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A read of a stream's leader may be answered by a server that was frozen, or cut
// off from the others, and doesn't know yet that another leads: with what was
// there before. A write is never accepted by such a server, since it needs a
// majority. So where much hangs on what is read, above all on that there is
// nothing, a small write confirms it, on condition that it is still so.

const (
	// confirmTries is how often a subject is read again that changes meanwhile.
	confirmTries = 5
	// confirmPause is the time between them: a write to the subject that is on its
	// way makes the condition fail, too.
	confirmPause = 20 * time.Millisecond
)

// Marker is where in a stream confirmations are written, each in place of the one
// before. It is no valid key of ours, and what watches a bucket ignores it.
type Marker struct {
	subject string
	// rollup is for a stream that would keep them all.
	rollup bool
}

const markerToken = "="

// The markers of the streams that are read so.
var (
	SessionsMarker  = Marker{subject: KeySubject(protocol.SessionsBucket, markerToken)}
	WorkersMarker   = Marker{subject: KeySubject(protocol.WorkersBucket, markerToken)}
	KeptMarker      = Marker{subject: protocol.KeptSubject(markerToken)}
	ManifestsMarker = Marker{subject: protocol.ManifestPrefix + markerToken, rollup: true}
)

// Is reports whether a subject is the marker's.
func (m Marker) Is(subject string) bool { return m.subject == subject }

// Confirm reports whether sequence is the last of a subject, 0 that it has no
// message, at a time after the call. False may also mean that something is being
// written to it.
func Confirm(ctx context.Context, js jetstream.JetStream, marker Marker, subject string, sequence uint64) (bool, error) {
	msg := &nats.Msg{Subject: marker.subject, Header: nats.Header{"KV-Operation": {"DEL"}}} // no value of a bucket
	if marker.rollup {
		msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	}
	_, err := js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequenceForSubject(sequence, subject))
	if WrongRevision(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("confirm the last message of %s: %w", subject, err)
	}
	return true, nil
}

// LastConfirmed is Last, and an answer that there is no message, or one for which
// doubted returns true, is confirmed by a majority of the stream's servers.
func LastConfirmed(ctx context.Context, js jetstream.JetStream, stream string, marker Marker, subject string, doubted func(Message) bool) (Message, error) {
	for try := 0; ; try++ {
		m, err := Last(ctx, js.Conn(), stream, subject)
		if err != nil && !errors.Is(err, ErrNoMessage) || err == nil && !doubted(m) {
			return m, err
		}
		ok, cerr := Confirm(ctx, js, marker, subject, m.Sequence)
		if cerr != nil {
			return m, cerr
		}
		if ok {
			return m, err
		}
		if try+1 >= confirmTries {
			return m, fmt.Errorf("read the last message of %s: it changed %d times", subject, confirmTries)
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(confirmPause):
		}
	}
}
