package routing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// lossWait is how long a worker that doesn't answer is given to be known
	// as lost: its last heartbeat may have come just before.
	lossWait = protocol.WorkerTTL + time.Second
	// replyGrace is how long the answer of a worker that is lost may take.
	replyGrace = 300 * time.Millisecond
	// verdictLook is how often, meanwhile, it is looked whether it is back.
	verdictLook = 100 * time.Millisecond
	// takeTries is how often a record is looked at again that other gateways
	// change.
	takeTries = 4
)

// liveOwner returns the owner if it can serve the session, or who takes it over.
func (r *Router) liveOwner(ctx context.Context, session string, o ownership.Owner) (ownership.Owner, error) {
	for range takeTries {
		if !o.Durable {
			if !r.Workers.Live(o.Worker) {
				return o, notThere(o.Worker)
			}
			return o, nil
		}
		if r.Workers.Durable(o.Worker) {
			return o, nil
		}
		// A live worker that doesn't store was started anew with another
		// setting: what it has is stored, and it must not go on with it.
		if !r.Workers.Live(o.Worker) {
			if err := r.awaitVerdict(ctx, o.Worker); err != nil {
				return o, err
			}
			if r.Workers.Durable(o.Worker) {
				return o, nil // it is back
			}
		}
		next, err := r.takeOver(ctx, session, o)
		if err == nil || !errors.Is(err, ownership.ErrLost) {
			return next, err
		}
		// Another gateway was quicker.
		if o, err = r.Sessions.Lookup(ctx, session); err != nil {
			if errors.Is(err, ownership.ErrNone) {
				return o, moving()
			}
			return o, r.lookupFault(ctx, err)
		}
	}
	return o, moving()
}

// awaitVerdict waits until a worker whose heartbeats are late is lost for certain,
// or live again.
func (r *Router) awaitVerdict(ctx context.Context, worker string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*lossWait)
	defer cancel()
	for {
		look, stop := context.WithTimeout(ctx, verdictLook)
		err := r.Workers.AwaitLost(look, worker)
		stop()
		switch {
		case err == nil, r.Workers.Live(worker):
			return nil
		case ctx.Err() != nil:
			return notThere(worker)
		}
	}
}

// takeOver makes another worker the owner of a durable session. The error is
// ErrLost if the record has changed.
func (r *Router) takeOver(ctx context.Context, session string, old ownership.Owner) (ownership.Owner, error) {
	worker, ok := placement.Choose(r.durableWorkers(old.Worker), session, r.now())
	if !ok {
		return old, fault.Unavailable(fmt.Sprintf("Worker %s, which owned the session, can't go on with it, and no other worker that stores sessions is there; ask again", old.Worker), nil)
	}
	r.Workers.Placed(worker)
	o, err := r.Sessions.Replace(ctx, session, old, worker, r.Workers.Lost(old.Worker))
	switch {
	case errors.Is(err, ownership.ErrLost):
		return old, err
	case err != nil:
		return old, r.lookupFault(ctx, err)
	}
	r.Metrics.failover()
	r.Log.Info("session goes on at another worker", "session", session, "worker", old.Worker, "now", worker, "epoch", o.Epoch)
	return o, nil
}

// durableWorkers are those that store their sessions, but for one.
func (r *Router) durableWorkers(but string) []placement.Worker {
	var all []placement.Worker
	for _, w := range r.Workers.Snapshot() {
		if w.Durable && w.Worker != but {
			all = append(all, w)
		}
	}
	return all
}

// errLost is in the chain of the error for a request whose worker was lost while
// it was asked.
var errLost = errors.New("the worker was lost")

// afterLoss returns who is to get a request that its owner didn't answer, or the
// error if it must not be sent again.
func (r *Router) afterLoss(ctx context.Context, req Request, way route, owner ownership.Owner, err error) (ownership.Owner, error) {
	var stranded *dispatch.Stranded
	switch {
	case errors.As(err, &stranded):
		return r.afterStranding(ctx, req, way, owner, stranded, err)
	case !owner.Durable:
		return owner, err
	case errors.Is(err, dispatch.ErrNobody):
		// Nothing has happened. Its heartbeat may count for some seconds still,
		// and until then it may be serving others.
		wait, cancel := context.WithTimeout(ctx, lossWait)
		defer cancel()
		if r.Workers.AwaitLost(wait, owner.Worker) != nil {
			return owner, err
		}
	case errors.Is(err, errLost) && !way.once:
	default:
		return owner, err
	}
	return r.owner(ctx, req.Session, way, r.Sessions.Lookup)
}

// afterStranding moves a job that waits in the queue of a lost worker. The new
// owner comes first: from then on the old one, should it come back, can't begin
// the job any more.
func (r *Router) afterStranding(ctx context.Context, req Request, way route, owner ownership.Owner, stranded *dispatch.Stranded, cause error) (ownership.Owner, error) {
	next, err := r.owner(ctx, req.Session, way, r.Sessions.Lookup)
	waited, werr := r.Dispatcher.Withdraw(ctx, stranded)
	if werr != nil {
		r.Log.Warn("job of a lost worker not taken back", "session", req.Session, "request_id", req.ID, "error", werr)
	}
	switch {
	case way.once && !waited:
		return owner, &fault.Error{
			Status: http.StatusBadGateway,
			Detail: fmt.Sprintf("Worker %s was lost while it ran the command, which may have run in part or in full", owner.Worker),
			Cause:  cause,
		}
	case err != nil:
		return owner, err
	}
	return next, nil
}

// askOwner asks the owner of a session, for as long as it is there.
func (r *Router) askOwner(ctx context.Context, owner ownership.Owner, op string, o protocol.SessionOp) (protocol.Result, error) {
	if !owner.Durable {
		return r.Dispatcher.Ask(ctx, owner.Worker, op, o)
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	life := r.Workers.Lifetime(owner.Worker)
	if life.Err() != nil {
		return protocol.Result{}, fault.Unavailable(fmt.Sprintf("Worker %s, which owned the session, is lost", owner.Worker), dispatch.ErrNobody)
	}
	// What it answered before it said goodbye may be on its way still.
	defer context.AfterFunc(life, func() { time.AfterFunc(replyGrace, cancel) })()
	o.Instance = r.Workers.Instance(owner.Worker)
	res, err := r.Dispatcher.Ask(asking, owner.Worker, op, o)
	if err != nil && life.Err() != nil && ctx.Err() == nil && !errors.Is(err, dispatch.ErrNobody) {
		err = &fault.Error{
			Status: http.StatusBadGateway,
			Detail: fmt.Sprintf("Worker %s was lost while it was asked; the operation may have been done", owner.Worker),
			Cause:  errLost,
		}
	}
	return res, err
}
