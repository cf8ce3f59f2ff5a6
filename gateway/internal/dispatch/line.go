package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/rate"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// lineTimeout is how long the feeder of the backlog may take to answer. It does so
// from memory.
const lineTimeout = 2 * time.Second

// fullPart is which part of what is full is to be worked off before it pays to try
// again: others who wait will have been let in before.
const fullPart = 10

// errOwnLimit is in the chain of an error that only the caller himself can help.
var errOwnLimit = errors.New("the caller is at his limit")

// line asks the feeder about the line of a job's caller. If it doesn't answer,
// which it can't while another gateway takes that over, ok is false.
func (d *Dispatcher) line(ctx context.Context, ask protocol.LineRequest) (l protocol.Line, ok bool) {
	request, err := json.Marshal(ask)
	if err != nil {
		d.cfg.Log.Error("question about a line of the backlog not encoded", "error", err)
		return l, false
	}
	ctx, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	reply, err := d.cfg.NC.RequestWithContext(ctx, protocol.BacklogLine, request)
	if err == nil {
		err = json.Unmarshal(reply.Data, &l)
	}
	if err != nil {
		d.cfg.Log.Debug("line of the backlog not known", "error", err)
		return l, false
	}
	return l, true
}

// share refuses a job that is more than its caller's share of the backlog's bytes
// has room for. Only large jobs can be: of those that are no larger than what the
// backlog has for each of its jobs, JetStream's own limit refuses the one too many.
func (d *Dispatcher) share(ctx context.Context, job *Job, id string) error {
	if d.cfg.BacklogBytes <= 0 || float64(len(job.Body))*float64(d.cfg.BacklogLimit) <= float64(d.cfg.BacklogBytes) {
		return nil
	}
	l, ok := d.line(ctx, protocol.LineRequest{Subject: protocol.BacklogSubject(job.Caller), Job: id, Bytes: int64(len(job.Body))})
	if !ok || !l.Refused {
		return nil
	}
	return &fault.Error{
		Status: http.StatusTooManyRequests,
		Detail: fmt.Sprintf("Your asynchronous jobs that wait have %d bytes, this one has %d, and the limit for one caller is %d; wait until some of them have begun",
			l.Bytes, len(job.Body), l.MaxBytes),
		RetryAfter: afterLine(l, l.Jobs),
		Cause:      errOwnLimit,
	}
}

// lineFull turns JetStream's refusal of a job for the backlog into a fault.
func (d *Dispatcher) lineFull(ctx context.Context, job *Job, err error) error {
	l, ok := d.line(ctx, protocol.LineRequest{Subject: protocol.BacklogSubject(job.Caller)})
	f := &fault.Error{Status: http.StatusTooManyRequests, Cause: err}
	switch bus.LimitOf(err) {
	case bus.SubjectLimit:
		limit := d.cfg.QueueLimit
		if ok && l.MaxJobs > 0 {
			limit = l.MaxJobs // another gateway may have set it since
		}
		f.Detail = fmt.Sprintf("%d of your asynchronous jobs wait, the limit for one caller; wait until some of them have begun", limit)
		f.RetryAfter, f.Cause = afterLine(l, limit), errors.Join(errOwnLimit, err)
		return f
	case bus.ByteLimit:
		f.Detail = fmt.Sprintf("The backlog of asynchronous jobs is full: those of all callers have %d bytes, its limit; try again later", d.cfg.BacklogBytes)
	default:
		f.Detail = fmt.Sprintf("The backlog of asynchronous jobs is full: it holds %d jobs of all callers, its limit; try again later", d.cfg.BacklogLimit)
	}
	f.RetryAfter = rate.RetryAfter(float64(l.All)/fullPart, l.PerSecond)
	return f
}

// afterLine estimates, in seconds, when a part of so many jobs of a line will have
// had their turns, which are one in as many as there are callers.
func afterLine(l protocol.Line, jobs int64) int {
	return rate.RetryAfter(float64(jobs)/fullPart*float64(max(l.Callers, 1)), l.PerSecond)
}
