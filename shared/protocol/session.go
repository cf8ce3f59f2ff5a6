package protocol

import (
	"fmt"
	"strconv"
	"time"
)

// SessionRecord is the value of a session's key in the SESSIONS bucket.
type SessionRecord struct {
	// Worker owns the session's directory.
	Worker string `json:"worker"`
	// Epoch grows by one with each change of owner; it starts at 1. A worker
	// refuses requests of an older epoch than the one it holds.
	Epoch uint64 `json:"epoch"`
	// Created is when the first owner was chosen: with the id it names the
	// session, since an id can be used again after its session expired.
	Created time.Time `json:"created"`
	// Durable says that the session is what its manifest says, so that any
	// worker can go on with it; otherwise it is the directory of its owner.
	Durable bool `json:"durable,omitempty"`
	// Former are workers that owned the session in earlier epochs and may serve
	// it still, since nobody told them. The owner serves nothing before it has
	// made sure that they don't, and then takes them out.
	Former []Former `json:"former,omitempty"`
}

// Former is a worker that owned a session, and what was seen last of it in the
// WORKERS bucket when it was called lost: a heartbeat that was WorkerTTL old, or
// the deletion of its key.
type Former struct {
	Worker string `json:"worker"`
	// Seen is that entry's revision; 0 if none was seen, or it isn't lost.
	Seen uint64 `json:"seen,omitempty"`
	// At is when NATS stored it: a bucket that was lost begins with revision 1
	// again.
	At time.Time `json:"at,omitzero"`
}

// Release asks a worker to answer nothing more of a session in an epoch lower
// than this; a request to ReleaseSubject, as JSON. The answer is the same, and
// comes when no request that comes later is answered from the worker's copy.
type Release struct {
	Session string `json:"session"`
	Epoch   uint64 `json:"epoch"`
	// Created is that of the session's record.
	Created time.Time `json:"created"`
}

// SessionOp is a file operation or a fork, asked of the worker that owns the
// session as a NATS request to SessionSubject. Body is the documented JSON body
// of the HTTP request (for a read, its query as JSON). The reply is a Result.
type SessionOp struct {
	RequestID string
	Session   string
	Epoch     uint64
	// NewID and NewEpoch name the copy that a fork makes.
	NewID    string
	NewEpoch uint64
	// ID names a change for its whole life, however often it is sent and to whomever:
	// the session's journal remembers it, so that it is made once (see
	// NewOperationID). Empty: it is not a change, or its gateway knew of no ids.
	ID string
	// First is when it was first sent, in the gateway's clock, if it may have been
	// done since. Zero: it was not sent before, or has not been done for certain.
	First time.Time
	// Attempt names this sending of it: a worker that gets one again does it once
	// and answers the same. Empty: it may not be asked again.
	Attempt string
	// Instance is the life of the worker that is asked (see Heartbeat.Instance):
	// in another one it doesn't answer, since it doesn't know what it did before.
	// Empty: any.
	Instance string
	// Sent is when the gateway sent it, in the gateway's clock: a change that
	// arrives after one that was sent later is not made. It is that of each sending,
	// not of the first: who sends again has a caller who waits still, and what is
	// held up on its way of an earlier sending has the same ID. Zero if that isn't
	// known.
	Sent time.Time
	Body []byte
}

// Header returns the operation's headers.
func (o *SessionOp) Header() map[string][]string {
	h := map[string][]string{
		HeaderVersion:   {strconv.Itoa(Version)},
		HeaderRequestID: {o.RequestID},
		HeaderSession:   {o.Session},
		HeaderEpoch:     {strconv.FormatUint(o.Epoch, 10)},
	}
	if o.ID != "" {
		h[HeaderOperation] = []string{o.ID}
	}
	if !o.First.IsZero() {
		h[HeaderFirst] = []string{strconv.FormatInt(o.First.UnixMicro(), 10)}
	}
	if o.Attempt != "" {
		h[HeaderJob] = []string{o.Attempt}
	}
	if o.Instance != "" {
		h[HeaderInstance] = []string{o.Instance}
	}
	if !o.Sent.IsZero() {
		h[HeaderEnqueued] = []string{strconv.FormatInt(o.Sent.UnixMicro(), 10)}
	}
	if o.NewID != "" {
		h[HeaderNewID] = []string{o.NewID}
		h[HeaderNewEpoch] = []string{strconv.FormatUint(o.NewEpoch, 10)}
	}
	return h
}

// ParseSessionOp reads an operation from its headers and body.
func ParseSessionOp(header map[string][]string, body []byte) (SessionOp, error) {
	o := SessionOp{
		RequestID: first(header, HeaderRequestID),
		Session:   first(header, HeaderSession),
		NewID:     first(header, HeaderNewID),
		ID:        first(header, HeaderOperation),
		Attempt:   first(header, HeaderJob),
		Instance:  first(header, HeaderInstance),
		Body:      body,
	}
	if v := first(header, HeaderVersion); v != strconv.Itoa(Version) {
		return o, fmt.Errorf("%s is %q, this worker speaks %d: %w", HeaderVersion, v, Version, ErrVersion)
	}
	if err := CheckSessionID(o.Session); err != nil {
		return o, err
	}
	if len(o.ID) > MaxOperationIDLength {
		return o, fmt.Errorf("%s has %d bytes, the limit is %d", HeaderOperation, len(o.ID), MaxOperationIDLength)
	}
	var err error
	if o.Epoch, err = strconv.ParseUint(first(header, HeaderEpoch), 10, 64); err != nil {
		return o, fmt.Errorf("%s: %w", HeaderEpoch, err)
	}
	if first(header, HeaderFirst) != "" {
		if o.First, err = micros(header, HeaderFirst); err != nil {
			return o, err
		}
	}
	if first(header, HeaderEnqueued) != "" {
		if o.Sent, err = micros(header, HeaderEnqueued); err != nil {
			return o, err
		}
	}
	if o.NewID != "" {
		if err := CheckSessionID(o.NewID); err != nil {
			return o, err
		}
		if o.NewEpoch, err = strconv.ParseUint(first(header, HeaderNewEpoch), 10, 64); err != nil {
			return o, fmt.Errorf("%s: %w", HeaderNewEpoch, err)
		}
	}
	return o, nil
}
