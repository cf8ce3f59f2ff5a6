package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ErrNobody is in the chain of Ask's error when nobody listens for the worker's
// operations: it was not asked, so nothing has happened.
var ErrNobody = errors.New("nobody answers for the worker")

// explain turns what ended a job into a fault; nil and faults stay.
func (d *Dispatcher) explain(job *Job, err error) error {
	var f *fault.Error
	switch {
	case err == nil, errors.As(err, &f):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Timeout("The job was not done before its deadline, waiting in the queue included; it was cancelled")
	case errors.Is(err, context.Canceled):
		return fault.Gone()
	}
	return d.refused(job, err)
}

// refused turns the error of a publication into a fault.
func (d *Dispatcher) refused(job *Job, err error) error {
	switch {
	case bus.QueueFull(err):
		queue := "The queue"
		switch {
		case job.Worker != "":
			queue = "The queue of worker " + job.Worker
		case job.Bulk:
			queue = "The bulk queue"
		}
		return &fault.Error{
			Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("%s is full: it holds %d jobs, its limit; try again later", queue, d.cfg.QueueLimit),
			// By then a tenth of it is worked off, and it pays to try again; others
			// who wait will have been let in before.
			RetryAfter: d.meter(job.Queue()).RetryAfter(time.Now(), float64(d.cfg.QueueLimit)/10),
			Cause:      err,
		}
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.TooLarge(fmt.Sprintf("The body is %d bytes, more than NATS carries (%d with headers)", len(job.Body), d.cfg.NC.MaxPayload()))
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		// It went out, and whether it was stored is not known.
		return fault.Unavailable("The connection to NATS was lost while the job was being queued; "+mayRun(job.Kind), err)
	case job.Kind == protocol.Run:
		return fault.Unavailable("The job can't be queued now; the command was not run", err)
	}
	return fault.Unavailable("The job can't be queued now; ask again", err)
}

// mayRun says what an unknown fate means for the caller.
func mayRun(kind protocol.Kind) string {
	if kind == protocol.Run {
		return "the command may have run, in part or in full"
	}
	return "it is safe to ask again"
}

func stopping(kind protocol.Kind) error {
	return fault.Unavailable("The gateway is stopping; "+mayRun(kind), nil)
}

// Ask asks the worker that owns a session to do a file operation or a fork
// (op is one of protocol's Op constants). It waits until ctx ends. Errors are
// of package fault, with ErrNobody in the chain where that is the reason.
func (d *Dispatcher) Ask(ctx context.Context, worker, op string, o protocol.SessionOp) (protocol.Result, error) {
	msg := &nats.Msg{Subject: protocol.SessionSubject(worker, op), Header: nats.Header(o.Header()), Data: o.Body}
	reply, err := d.cfg.NC.RequestMsgWithContext(ctx, msg)
	switch {
	case err == nil:
		return parse(reply)
	case errors.Is(err, nats.ErrNoResponders):
		return protocol.Result{}, fault.Unavailable(fmt.Sprintf("Worker %s, which owns the session, does not answer", worker), ErrNobody)
	case errors.Is(err, nats.ErrMaxPayload):
		return protocol.Result{}, fault.TooLarge(fmt.Sprintf("The body is %d bytes, more than NATS carries (%d with headers)", len(o.Body), d.cfg.NC.MaxPayload()))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return protocol.Result{}, fault.Timeout(fmt.Sprintf("Worker %s did not answer before the deadline; the operation may have been done", worker))
	case ctx.Err() != nil:
		return protocol.Result{}, fault.Gone()
	}
	return protocol.Result{}, fault.Unavailable("The session's worker can't be asked now; ask again", err)
}
