package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/jobs"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/shape"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// maxKeyLength is the longest idempotency key, in bytes.
	maxKeyLength = 255
	// maxWait is how long a caller may wait for a job by GET, in seconds.
	maxWait = 60
	// listed is how many jobs are listed unless the caller wants fewer.
	listed = 100
	// mostListed is the most it may want.
	mostListed = 1000
	// maxWebhookLength is the longest URL of a webhook, in bytes.
	maxWebhookLength = 2048
)

// job is post for evaluate and run: plainly, with an idempotency key, or
// asynchronously, as the headers say.
func (a *api) job(kind protocol.Kind, form *shape.Form, do func(context.Context, routing.Request) (protocol.Result, error)) gin.HandlerFunc {
	return a.limited(func(c *gin.Context) (protocol.Result, error) {
		body, session, err := a.readForm(c, form)
		if err != nil {
			return protocol.Result{}, err
		}
		defer body.release()
		key, err := idempotencyKey(c.Request.Header)
		if err != nil {
			return protocol.Result{}, err
		}
		async := prefersAsync(c.Request.Header)
		if !async && c.GetHeader("X-Webhook-URL") != "" {
			return protocol.Result{}, fault.BadRequest("X-Webhook-URL: only an asynchronous job is told of; add Prefer: respond-async")
		}
		if key == "" && !async {
			return do(c.Request.Context(), routing.Request{ID: requestID(c), Session: session, Caller: caller(c), Body: body.bytes})
		}
		req := jobs.Request{ID: requestID(c), Kind: kind, Session: session, Caller: caller(c), Private: keyed(c), Key: key, Body: body.bytes}
		if async {
			return a.submit(c, req)
		}
		result, joined, err := a.Jobs.Do(c.Request.Context(), req)
		if joined && err == nil {
			c.Header("Idempotent-Replayed", "true")
		}
		if err == nil && (result.Status == http.StatusServiceUnavailable || result.Status == http.StatusTooManyRequests) {
			c.Header("Retry-After", "1")
		}
		return result, err
	})
}

// submit queues an asynchronous job.
func (a *api) submit(c *gin.Context, req jobs.Request) (protocol.Result, error) {
	if req.Webhook = c.GetHeader("X-Webhook-URL"); req.Webhook != "" {
		if a.CheckWebhook == nil {
			return protocol.Result{}, fault.BadRequest("X-Webhook-URL: webhooks are not enabled on this server; ask GET /jobs/{id} instead")
		}
		if len(req.Webhook) > maxWebhookLength {
			return protocol.Result{}, fault.BadRequest(fmt.Sprintf("X-Webhook-URL: %d bytes, the limit is %d", len(req.Webhook), maxWebhookLength))
		}
		if err := a.CheckWebhook(req.Webhook); err != nil {
			return protocol.Result{}, fault.BadRequest("X-Webhook-URL: " + err.Error())
		}
	}
	k, err := a.Jobs.Submit(c.Request.Context(), req)
	if err != nil {
		return protocol.Result{}, err
	}
	c.Header("Location", "/jobs/"+k.Job)
	c.Header("Preference-Applied", "respond-async")
	k.Body = nil
	return answerJob(http.StatusAccepted, k)
}

// prefersAsync reports whether a Prefer header (RFC 7240) asks for a 202.
func prefersAsync(h http.Header) bool {
	for _, value := range h.Values("Prefer") {
		for part := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
				return true
			}
		}
	}
	return false
}

// idempotencyKey is the key that a request carries, "" if none. An empty one is
// refused: who sends it believes that the request is carried out once.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	switch {
	case len(values) > 1:
		return "", fault.BadRequest(fmt.Sprintf("Idempotency-Key: sent %d times, want it once", len(values)))
	case key == "":
		return "", fault.BadRequest(fmt.Sprintf("Idempotency-Key: it is empty; want 1 to %d characters, or no such header", maxKeyLength))
	case len(key) > maxKeyLength:
		return "", fault.BadRequest(fmt.Sprintf("Idempotency-Key: %d bytes, the limit is %d", len(key), maxKeyLength))
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", fault.BadRequest(fmt.Sprintf("Idempotency-Key: byte %d is no printable ASCII character", i))
		}
	}
	return key, nil
}

// jobView is a job as callers see it; its result is added as it is.
type jobView struct {
	Job      string             `json:"job_id"`
	Kind     protocol.Kind      `json:"kind"`
	State    protocol.KeptState `json:"state"`
	Session  string             `json:"session"`
	Created  time.Time          `json:"created"`
	Deadline time.Time          `json:"deadline"`
	Worker   string             `json:"worker,omitempty"`
	Since    time.Time          `json:"since,omitzero"`
	Finished time.Time          `json:"finished,omitzero"`
	Status   int                `json:"status,omitempty"`
}

// JobJSON is the JSON of a job, with its result if it is there.
func JobJSON(k protocol.Kept) ([]byte, error) {
	text, err := json.Marshal(jobView{
		Job: k.Job, Kind: k.Kind, State: k.State, Session: k.Session, Created: k.Created, Deadline: k.Deadline,
		Worker: k.Worker, Since: k.Since, Finished: k.Finished, Status: k.Status,
	})
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	if k.State == protocol.KeptDone && len(k.Body) > 0 {
		text = append(text[:len(text)-1], `,"result":`...)
		text = append(append(text, k.Body...), '}')
	}
	return text, nil
}

func answerJob(status int, k protocol.Kept) (protocol.Result, error) {
	body, err := JobJSON(k)
	return protocol.Result{Status: status, Body: body}, err
}

// getJob is GET /jobs/{id}.
func (a *api) getJob(c *gin.Context) (protocol.Result, error) {
	a.awaitNoBody(c)
	wait, err := number(c, "wait", 0, maxWait)
	if err != nil {
		return protocol.Result{}, err
	}
	k, err := a.Jobs.Get(c.Request.Context(), jobID(c), caller(c), time.Duration(wait)*time.Second)
	if err != nil {
		return protocol.Result{}, err
	}
	return answerJob(http.StatusOK, k)
}

// cancelJob is DELETE /jobs/{id}.
func (a *api) cancelJob(c *gin.Context) (protocol.Result, error) {
	k, err := a.Jobs.Cancel(c.Request.Context(), jobID(c), caller(c))
	if err != nil {
		return protocol.Result{}, err
	}
	return answerJob(http.StatusOK, k)
}

// jobID is the job's id; one that can't be is as good as unknown.
func jobID(c *gin.Context) string {
	id := c.Param("id")
	for i := range len(id) {
		if c := id[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return "none"
		}
	}
	return id
}

// listJobs is GET /jobs.
func (a *api) listJobs(c *gin.Context) (protocol.Result, error) {
	limit, err := number(c, "limit", listed, mostListed)
	if err != nil {
		return protocol.Result{}, err
	}
	var all []protocol.Kept
	if limit > 0 {
		if all, err = a.Jobs.List(c.Request.Context(), caller(c), limit); err != nil {
			return protocol.Result{}, err
		}
	}
	list := struct {
		Jobs []json.RawMessage `json:"jobs"`
	}{make([]json.RawMessage, len(all))}
	for i, k := range all {
		if list.Jobs[i], err = JobJSON(k); err != nil {
			return protocol.Result{}, err
		}
	}
	body, err := json.Marshal(list)
	return protocol.Result{Status: http.StatusOK, Body: body}, err
}

// number is a whole number of the query, from 0 to most.
func number(c *gin.Context, name string, usual, most int) (int, error) {
	text := c.Query(name)
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, fault.Unprocessable(fmt.Sprintf("query.%s: want a whole number from 0 to %d, got %.64q", name, most, text))
	}
	return n, nil
}
