package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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
	// confirmTimeout bounds one confirmation.
	confirmTimeout = 5 * time.Second
)

// Marker is where in a stream confirmations are written, each in place of the one
// before. It is no valid key of ours, and what watches a bucket ignores it.
type Marker struct {
	subject string
	// rollup is for a stream that would keep them all.
	rollup bool
}

// The markers of the streams that are read so.
var (
	SessionsMarker  = Marker{subject: KeySubject(protocol.SessionsBucket, protocol.ConfirmToken)}
	WorkersMarker   = Marker{subject: KeySubject(protocol.WorkersBucket, protocol.ConfirmToken)}
	KeptMarker      = Marker{subject: protocol.KeptSubject(protocol.ConfirmToken)}
	ManifestsMarker = Marker{subject: protocol.ManifestSubject(protocol.ConfirmToken), rollup: true}
)

// Is reports whether a subject is the marker's.
func (m Marker) Is(subject string) bool { return m.subject == subject }

// Confirms reports whether a read needs a confirmation and can have one: there are
// several servers, and a write may say what the last message of another subject
// has to be, which it may from version 2.11 on. Of one server's answers there is
// no doubt.
func (b *Bus) Confirms() bool { return b.replicas > 1 && b.from2_11() }

// Confirm reports whether sequence is the last of a subject, 0 that it has no
// message, at a time after the call. False may also mean that something is being
// written to it, or confirmed by another process.
func (b *Bus) Confirm(ctx context.Context, marker Marker, subject string, sequence uint64) (bool, error) {
	return b.confirms.do(subject, sequence, func() (bool, error) {
		msg := &nats.Msg{Subject: marker.subject, Header: nats.Header{"KV-Operation": {"DEL"}}} // no value of a bucket
		if marker.rollup {
			msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
		}
		// Others may be waiting for it, too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
		defer cancel()
		_, err := b.JS.PublishMsg(ctx, msg, jetstream.WithExpectLastSequenceForSubject(sequence, subject))
		if WrongRevision(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("confirm the last message of %s: %w", subject, err)
		}
		return true, nil
	})
}

// LastConfirmed is Last, and an answer that there is no message, or one for which
// doubted returns true, is confirmed if there is a need to; see Confirms.
func (b *Bus) LastConfirmed(ctx context.Context, stream string, marker Marker, subject string, doubted func(Message) bool) (Message, error) {
	if !b.Confirms() {
		return Last(ctx, b.NC, stream, subject)
	}
	return b.lastConfirmed(ctx, stream, marker, subject, doubted)
}

func (b *Bus) lastConfirmed(ctx context.Context, stream string, marker Marker, subject string, doubted func(Message) bool) (Message, error) {
	for try := 0; ; try++ {
		m, err := Last(ctx, b.NC, stream, subject)
		if err != nil && !errors.Is(err, ErrNoMessage) || err == nil && !doubted(m) {
			return m, err
		}
		ok, cerr := b.Confirm(ctx, marker, subject, m.Sequence)
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
		case <-time.After(confirmPause/2 + rand.N(confirmPause)):
		}
	}
}

// confirms lets callers that want to know the same share the answer: many ask at
// once for what is not there, and NATS refuses all but one of such writes.
type confirms struct {
	mu    sync.Mutex // guards what follows
	turns uint64
	asked map[string]*asking
}

// asking is what callers want to know of one subject.
type asking struct {
	callers int // guarded by confirms.mu

	mu sync.Mutex // held while one asks; guards what follows
	// turn is when the latest answer was asked for; the rest is that answer.
	turn, sequence uint64
	ok             bool
	err            error
}

// do asks, unless somebody has asked the same since the call.
func (c *confirms) do(subject string, sequence uint64, ask func() (bool, error)) (bool, error) {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = map[string]*asking{}
	}
	a := c.asked[subject]
	if a == nil {
		a = &asking{}
		c.asked[subject] = a
	}
	a.callers++
	c.turns++
	came := c.turns
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if a.callers--; a.callers == 0 {
			delete(c.asked, subject)
		}
	}()

	a.mu.Lock()
	defer a.mu.Unlock()
	if a.turn > came && a.sequence == sequence {
		return a.ok, a.err
	}
	c.mu.Lock()
	c.turns++
	a.turn, a.sequence = c.turns, sequence
	c.mu.Unlock()
	a.ok, a.err = ask()
	return a.ok, a.err
}
