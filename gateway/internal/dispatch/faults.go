package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

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
	case inDoubt(err):
		return unknown(job.Kind, "The connection to NATS was lost while the job was being queued", err)
	case job.Kind == protocol.Run:
		return fault.Unavailable("The job can't be queued now; the command was not run", err)
	}
	return fault.Unavailable("The job can't be queued now; ask again", err)
}

// unknown is the fault of a job whose fate is not known, and why. For a command
// that is a 502: after a 503 with its Retry-After it would be sent again.
func unknown(kind protocol.Kind, why string, cause error) error {
	if kind == protocol.Run {
		return &fault.Error{Status: http.StatusBadGateway, Detail: why + "; the command may have run, in part or in full", Cause: cause}
	}
	return fault.Unavailable(why+"; it is safe to ask again", cause)
}

func stopping(kind protocol.Kind) error { return unknown(kind, "The gateway is stopping", nil) }

// Ask asks the worker that owns a session to do a file operation or a fork
// (op is one of protocol's Op constants). It waits until ctx ends. Errors are
// of package fault, with ErrNobody in the chain where that is the reason.
//
// A request or its reply may be lost with a connection on the way. A read is then
// asked again, and so is anything else of a worker whose instance is known;
// without one, whether it was done is not known. A change that was overtaken on
// its way by one that was sent later is sent again, as sent now. All of that is
// the same change to a durable session, by o.ID.
func (d *Dispatcher) Ask(ctx context.Context, worker, op string, o protocol.SessionOp) (protocol.Result, error) {
	for wait := overtakenWait; ; wait = min(2*wait, maxOvertakenWait) {
		o.Sent = time.Now()
		if o.Instance != "" && op != protocol.OpRead {
			o.Attempt = protocol.NewID()
		}
		r, err := d.askOnce(ctx, worker, op, o)
		if err != nil || r.Status != protocol.StatusOvertaken {
			return r, err
		}
		// Its own clock may be behind the other gateway's.
		if !pause(ctx, wait) {
			return r, fault.Unavailable("Others change the session all the time; ask again", nil)
		}
	}
}

const (
	// overtakenWait is the pause before a change that was overtaken is sent again;
	// it doubles up to maxOvertakenWait.
	overtakenWait, maxOvertakenWait = time.Millisecond, 50 * time.Millisecond
)

func (d *Dispatcher) askOnce(ctx context.Context, worker, op string, o protocol.SessionOp) (protocol.Result, error) {
	msg := &nats.Msg{Subject: protocol.SessionSubject(worker, op), Header: nats.Header(o.Header()), Data: o.Body}
	reply, err := d.request(ctx, msg, op == protocol.OpRead || o.Attempt != "")
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

const (
	// askPatience is how long a reply may take before it is asked for again; it
	// doubles each time.
	askPatience = 2 * time.Second
	// nobodyWait is how long nobody may answer for a worker: it may be connecting
	// to another server, and nothing has happened yet. nobodyPause is the time
	// between attempts.
	nobodyWait, nobodyPause = 500 * time.Millisecond, 50 * time.Millisecond
)

// request asks until there is a reply or ctx ends, more than once only if that
// does no harm. Other errors say that nobody was asked.
func (d *Dispatcher) request(ctx context.Context, msg *nats.Msg, repeatable bool) (*nats.Msg, error) {
	sent := false
	begun := time.Now()
	for patience := d.askPatience; ; {
		try, cancel := ctx, context.CancelFunc(func() {})
		if repeatable {
			try, cancel = context.WithTimeout(ctx, patience)
		}
		reply, err := d.cfg.NC.RequestMsgWithContext(try, msg)
		cancel()
		switch {
		case err == nil, ctx.Err() != nil:
			return reply, err
		case repeatable && errors.Is(err, context.DeadlineExceeded):
			sent = true
			patience *= 2
			continue
		case sent: // whatever it is now, it was asked before
		case errors.Is(err, nats.ErrNoResponders) && time.Since(begun) < d.nobodyWait:
		default:
			return nil, err
		}
		if !pause(ctx, nobodyPause) {
			if !sent {
				return nil, err // nobody was there each time: nothing was done
			}
			return nil, ctx.Err()
		}
	}
}
