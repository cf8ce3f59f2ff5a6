package protocol

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Kind says what a job asks for.
type Kind string

// The kinds of jobs.
const (
	// Evaluate runs code against cases. At least once: a job whose worker died
	// is delivered again, MaxDeliver times in all.
	Evaluate Kind = "evaluate"
	// Run runs a shell command. At most once: a command may have effects.
	Run Kind = "run"
)

// Headers of a job message and of its result. JetStream uses a message's own
// reply subject for its acknowledgement, so the result's inbox is a header.
const (
	HeaderVersion   = "Gf-Version"
	HeaderJob       = "Gf-Job"
	HeaderKind      = "Gf-Kind"
	HeaderRequestID = "Gf-Request"
	HeaderSession   = "Gf-Session"
	HeaderEpoch     = "Gf-Epoch"
	HeaderReply     = "Gf-Reply"
	HeaderDeadline  = "Gf-Deadline"
	HeaderEnqueued  = "Gf-Enqueued"
	HeaderStatus    = "Gf-Status"
	HeaderWorker    = "Gf-Worker"
	HeaderNewID     = "Gf-New-Id"
	HeaderNewEpoch  = "Gf-New-Epoch"
	// HeaderBegun makes a message to a job's reply subject no result, but News.
	// HeaderSequence is where the job is now in the stream of jobs. HeaderGivenUp
	// marks the answer to a job that was delivered too often.
	HeaderBegun    = "Gf-Begun"
	HeaderSequence = "Gf-Sequence"
	HeaderGivenUp  = "Gf-Given-Up"
	HeaderInstance = "Gf-Instance"
	// Of session operations, see SessionOp.ID, SessionOp.First and Result.Anew.
	HeaderOperation = "Gf-Operation"
	HeaderFirst     = "Gf-First"
	HeaderAnew      = "Gf-Anew"
)

// Job is one evaluate or run request on its way to a worker.
type Job struct {
	ID        string
	Kind      Kind
	RequestID string
	// Session is the session id the caller gave; Epoch is the ownership epoch
	// the gateway saw, 0 if the session has no owner (a session-less evaluate).
	Session string
	Epoch   uint64
	// Reply is the subject that the Result goes to.
	Reply string
	// Enqueued and Deadline are in the gateway's clock. A worker drops a job
	// that it gets after its deadline: the caller was answered 504.
	Enqueued time.Time
	Deadline time.Time
	// Kept says that the job has a record, which says whether it is wanted still
	// and gets its answer; see Kept.
	Kept bool
	// Body is the caller's JSON, byte for byte, its shape checked.
	Body []byte
}

// Header returns the job's headers.
func (j *Job) Header() map[string][]string {
	h := map[string][]string{
		HeaderVersion:   {strconv.Itoa(Version)},
		HeaderJob:       {j.ID},
		HeaderKind:      {string(j.Kind)},
		HeaderRequestID: {j.RequestID},
		HeaderSession:   {j.Session},
		HeaderReply:     {j.Reply},
		HeaderEnqueued:  {strconv.FormatInt(j.Enqueued.UnixMicro(), 10)},
		HeaderDeadline:  {strconv.FormatInt(j.Deadline.UnixMicro(), 10)},
	}
	if j.Epoch != 0 {
		h[HeaderEpoch] = []string{strconv.FormatUint(j.Epoch, 10)}
	}
	if j.Kept {
		h[HeaderKept] = []string{"1"}
	}
	return h
}

// ErrVersion is in the chain of the error for a job of another wire version.
var ErrVersion = errors.New("unknown protocol version")

// ParseJob reads a job from its headers and body. The error names the header.
// A job with an error may still carry ID and Reply, to say so to its caller.
func ParseJob(header map[string][]string, body []byte) (Job, error) {
	j := Job{
		ID:        first(header, HeaderJob),
		Kind:      Kind(first(header, HeaderKind)),
		RequestID: first(header, HeaderRequestID),
		Session:   first(header, HeaderSession),
		Reply:     first(header, HeaderReply),
		Kept:      first(header, HeaderKept) != "",
		Body:      body,
	}
	if v := first(header, HeaderVersion); v != strconv.Itoa(Version) {
		return j, fmt.Errorf("%s is %q, this worker speaks %d: %w", HeaderVersion, v, Version, ErrVersion)
	}
	if j.ID == "" || j.Reply == "" {
		return j, fmt.Errorf("job without %s or %s", HeaderJob, HeaderReply)
	}
	if j.Kind != Evaluate && j.Kind != Run {
		return j, fmt.Errorf("%s is %q, want %q or %q", HeaderKind, j.Kind, Evaluate, Run)
	}
	var err error
	if j.Enqueued, err = micros(header, HeaderEnqueued); err != nil {
		return j, err
	}
	if j.Deadline, err = micros(header, HeaderDeadline); err != nil {
		return j, err
	}
	if s := first(header, HeaderEpoch); s != "" {
		if j.Epoch, err = strconv.ParseUint(s, 10, 64); err != nil {
			return j, fmt.Errorf("%s: %w", HeaderEpoch, err)
		}
	}
	return j, nil
}

// Result is the answer to a job or to a session operation: an HTTP status and
// the JSON body for the caller, encoded once, by the worker.
type Result struct {
	Job    string
	Worker string
	Status int
	// Anew says of a change that may have been made when it was sent before (see
	// SessionOp.First) that it was not: this answer is all that came of it.
	Anew bool
	Body []byte
}

// Header returns the result's headers.
func (r *Result) Header() map[string][]string {
	h := map[string][]string{
		HeaderJob:    {r.Job},
		HeaderWorker: {r.Worker},
		HeaderStatus: {strconv.Itoa(r.Status)},
	}
	if r.Anew {
		h[HeaderAnew] = []string{"1"}
	}
	return h
}

// ParseResult reads a result from its headers and body.
func ParseResult(header map[string][]string, body []byte) (Result, error) {
	r := Result{Job: first(header, HeaderJob), Worker: first(header, HeaderWorker), Anew: first(header, HeaderAnew) != "", Body: body}
	var err error
	if r.Status, err = strconv.Atoi(first(header, HeaderStatus)); err != nil {
		return r, fmt.Errorf("%s: %w", HeaderStatus, err)
	}
	return r, nil
}

// first looks a header up under its exact name, without canonicalising: nats
// headers keep their case.
func first(h map[string][]string, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func micros(h map[string][]string, name string) (time.Time, error) {
	n, err := strconv.ParseInt(first(h, name), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", name, err)
	}
	return time.UnixMicro(n), nil
}
