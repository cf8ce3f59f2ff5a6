package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A kept job is one whose answer outlives the connection that asked for it: an
// asynchronous job, or one with an idempotency key. It has a record in the
// RESULTS stream, which changes by compare-and-set only, so that a job begins,
// ends and is cancelled once, whoever tries.
const (
	// KeptStream is the stream of the records of kept jobs; a record is the last
	// message of its subject.
	KeptStream = "RESULTS"
	keptPrefix = "gf.kept."
	// KeptSubjects matches the record of any kept job.
	KeptSubjects = keptPrefix + "*"
	// HooksStream is the work-queue stream of webhooks to be delivered.
	HooksStream = "HOOKS"
	hooksPrefix = "gf.hooks."
	// HooksSubjects matches all of its subjects.
	HooksSubjects = hooksPrefix + "*"
	// HooksConsumer is the durable consumer that all gateways share.
	HooksConsumer = "hooks"
	// HeaderKept marks the message of a kept job.
	HeaderKept = "Gf-Kept"
	// HeaderRecord carries a kept job's record, as JSON; the message's data is
	// the answer.
	HeaderRecord = "Gf-Record"
)

// KeptSubject is where the record of a kept job is.
func KeptSubject(job string) string { return keptPrefix + job }

// SettledSubject is where it is said, to who listens, that a kept job has ended.
// It is the reply subject of kept jobs, and only a hint: the record counts.
func SettledSubject(job string) string { return "gf.settled." + job }

// HookSubject is where a webhook of a kept job is queued.
func HookSubject(job string) string { return hooksPrefix + job }

// KeptState is how far a kept job is.
type KeptState string

// The states of a kept job.
const (
	KeptQueued    KeptState = "queued"
	KeptRunning   KeptState = "running"
	KeptDone      KeptState = "done"
	KeptCancelled KeptState = "cancelled"
)

// Final reports whether a job in this state never changes again.
func (s KeptState) Final() bool { return s == KeptDone || s == KeptCancelled }

// Kept is the record of a kept job.
type Kept struct {
	Job       string    `json:"job"`
	Kind      Kind      `json:"kind"`
	State     KeptState `json:"state"`
	RequestID string    `json:"request_id,omitempty"`
	Session   string    `json:"session,omitempty"`
	// Caller names who asked, as limits and logs do; Private says that only the
	// same caller may see the job, since it had a key.
	Caller  string `json:"caller,omitempty"`
	Private bool   `json:"private,omitempty"`
	// Owner is the worker whose own queue the job is in; "" for a shared one.
	Owner string `json:"owner,omitempty"`
	// From is the worker in whose queue the job was before, while it is not known
	// to be in its owner's.
	From     string    `json:"from,omitempty"`
	Created  time.Time `json:"created"`
	Deadline time.Time `json:"deadline"`
	// Worker and Since say where and since when the job runs, or ran.
	Worker string    `json:"worker,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Finished is when it was done or cancelled, Status the HTTP status of its answer.
	Finished time.Time `json:"finished,omitzero"`
	Status   int       `json:"status,omitempty"`
	// Ran says that the job was begun; what was not may be tried again under
	// its idempotency key.
	Ran bool `json:"ran,omitempty"`
	// Tries counts how often a worker began the job, but for those that gave it
	// back because they stop. Workers of before 2026-11-29 leave it as it is.
	Tries int `json:"tries,omitempty"`
	// Digest is of the request's body, for an idempotency key.
	Digest string `json:"digest,omitempty"`
	// Attempt counts how often the job was queued anew since it was not begun.
	Attempt int `json:"attempt,omitempty"`
	// Webhook is the URL that is told of the end.
	Webhook string `json:"webhook,omitempty"`

	// Body is the answer, JSON. It is the message's data.
	Body []byte `json:"-"`
}

// Header returns the record's headers.
func (k *Kept) Header() (map[string][]string, error) {
	text, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("encode record of job %s: %w", k.Job, err)
	}
	return map[string][]string{HeaderRecord: {string(text)}}, nil
}

// ParseKept reads a record from the headers and the data of its message.
func ParseKept(header map[string][]string, body []byte) (Kept, error) {
	var k Kept
	text := first(header, HeaderRecord)
	if text == "" {
		return k, errors.New("read record of a job: no " + HeaderRecord)
	}
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return k, fmt.Errorf("read record of a job: %w", err)
	}
	k.Body = body
	return k, nil
}
