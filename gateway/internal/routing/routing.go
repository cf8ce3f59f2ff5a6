// Package routing decides which worker a request goes to and gets it there: it
// looks up the session's owner, places new sessions, and asks again when an
// owner has changed. It speaks neither HTTP nor NATS; those it uses are behind
// the interfaces it declares.
package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Request is one request of a caller, its shape checked.
type Request struct {
	// ID is the request id, for logs.
	ID string
	// Session is a valid session id.
	Session string
	// Caller names who asks, for limits.
	Caller string
	// Bulk says that nobody sits and waits for the answer.
	Bulk bool
	// Body is the caller's JSON. It is not used after the call has returned.
	Body []byte
}

// Dispatcher gets a request to a given worker; see package dispatch.
type Dispatcher interface {
	Do(ctx context.Context, job dispatch.Job) (protocol.Result, error)
	Ask(ctx context.Context, worker, op string, o protocol.SessionOp) (protocol.Result, error)
	Withdraw(ctx context.Context, s *dispatch.Stranded) (bool, error)
}

// Sessions says who owns a session; see package ownership.
type Sessions interface {
	Lookup(ctx context.Context, session string) (ownership.Owner, error)
	Recall(ctx context.Context, session string) (ownership.Owner, error)
	Create(ctx context.Context, session, worker string, durable bool) (ownership.Owner, bool, error)
	Replace(ctx context.Context, session string, old ownership.Owner, worker string, lost protocol.Former) (ownership.Owner, error)
	Remove(ctx context.Context, session string, o ownership.Owner) error
}

// Workers says which workers are live; see package roster.
type Workers interface {
	Snapshot() []placement.Worker
	Live(worker string) bool
	Any() bool
	Placed(worker string)
	// Durable reports whether a worker is live and stores its sessions.
	Durable(worker string) bool
	// Instance tells the lives of a worker apart.
	Instance(worker string) string
	// Lifetime ends when a worker is lost or starts anew.
	Lifetime(worker string) context.Context
	// AwaitLost waits for that.
	AwaitLost(ctx context.Context, worker string) error
	// Lost is what was last seen of a worker that is lost.
	Lost(worker string) protocol.Former
}

// Config of a router.
type Config struct {
	Dispatcher Dispatcher
	Sessions   Sessions
	Workers    Workers
	// JobDeadline is how long a caller waits for an evaluate or a run, the
	// time in the queue included.
	JobDeadline time.Duration
	// FileDeadline is how long a caller waits for a file operation or a fork.
	FileDeadline time.Duration
	// Metrics may be nil.
	Metrics *Metrics
	Log     *slog.Logger
}

// Router routes. Its methods may be called from any goroutine; their errors are
// of package fault.
type Router struct {
	Config
	now func() time.Time
}

// New returns a router.
func New(cfg Config) *Router { return &Router{Config: cfg, now: time.Now} }

// Evaluate runs code against cases: on the owner of the session, or on any
// worker if it has none.
func (r *Router) Evaluate(ctx context.Context, req Request) (protocol.Result, error) {
	return r.job(ctx, protocol.Evaluate, req, r.evaluateRoute())
}

func (r *Router) evaluateRoute() route {
	return route{
		// A worker that is not the owner any more would run it in an empty
		// session, and say nothing.
		find: r.Sessions.Lookup,
		missing: func() (ownership.Owner, error) {
			if !r.Workers.Any() {
				return ownership.Owner{}, noWorker()
			}
			return ownership.Owner{}, nil // no worker, epoch 0: the shared queue
		},
	}
}

// Run runs a command in a session, which must have an owner.
func (r *Router) Run(ctx context.Context, req Request) (protocol.Result, error) {
	return r.job(ctx, protocol.Run, req, r.runRoute(r.Sessions.Recall))
}

func (r *Router) runRoute(find func(context.Context, string) (ownership.Owner, error)) route {
	return route{find: find, missing: func() (ownership.Owner, error) {
		return ownership.Owner{}, fault.BadRequest("Session does not exist")
	}}
}

// Locate returns the worker that a job of a session must go to and the epoch,
// "" and 0 if any will do. It is looked up, since nobody asks again for a job
// that is kept.
func (r *Router) Locate(ctx context.Context, kind protocol.Kind, session string) (worker string, epoch uint64, err error) {
	way := r.evaluateRoute()
	if kind == protocol.Run {
		way = r.runRoute(r.Sessions.Lookup)
	}
	o, err := r.owner(ctx, session, way, way.find)
	return o.Worker, o.Epoch, err
}

func (r *Router) job(ctx context.Context, kind protocol.Kind, req Request, way route) (protocol.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.JobDeadline)
	defer cancel()
	way.send = func(owner ownership.Owner) (protocol.Result, error) {
		job := dispatch.Job{
			Kind: kind, RequestID: req.ID, Session: req.Session,
			Worker: owner.Worker, Epoch: owner.Epoch, Bulk: req.Bulk, Caller: req.Caller, Movable: owner.Durable, Body: req.Body,
		}
		if owner.Worker != "" {
			// Not if its heartbeat is late: it may not be lost, and has other jobs.
			job.Lost = func() bool { return r.Workers.Lifetime(owner.Worker).Err() != nil }
		}
		return r.Dispatcher.Do(ctx, job)
	}
	way.once = kind == protocol.Run
	return r.follow(ctx, req, way)
}

// route is how a kind of request finds its worker.
type route struct {
	// find looks the owner up: Recall where a worker that is not the owner any
	// more can only refuse, Lookup otherwise.
	find func(ctx context.Context, session string) (ownership.Owner, error)
	// missing says what becomes of a session without an owner.
	missing func() (ownership.Owner, error)
	// send sends the request to the owner.
	send func(owner ownership.Owner) (protocol.Result, error)
	// once says that a request whose worker was lost with it must not be sent
	// again: it may have been carried out, and nobody could tell.
	once bool
}

// maxSends bounds how often one request is sent: its owners may be lost one
// after the other.
const maxSends = 4

// follow sends a request to the owner of its session. If the answer hints that
// another worker has become the owner, the owner is looked up, and if it is
// another one the request is sent again; so it is if the owner of a durable
// session is lost and can't have carried it out.
func (r *Router) follow(ctx context.Context, req Request, way route) (protocol.Result, error) {
	owner, err := r.owner(ctx, req.Session, way, way.find)
	if err != nil {
		return protocol.Result{}, err
	}
	misdirected := 0
	for sends := 1; ; sends++ {
		res, err := way.send(owner)
		if err == nil && !doubtful(res.Status, owner) {
			return res, nil
		}
		var now ownership.Owner
		if err != nil {
			if now, err = r.afterLoss(ctx, req, way, owner, err); err != nil {
				return protocol.Result{}, err
			}
		} else {
			if now, err = r.owner(ctx, req.Session, way, r.Sessions.Lookup); err != nil {
				return protocol.Result{}, err
			}
			if now.Revision == owner.Revision && res.Status != protocol.StatusMisdirected {
				return res, nil // it is the owner: the answer stands
			}
			if res.Status == protocol.StatusMisdirected {
				if misdirected++; misdirected > 1 {
					return protocol.Result{}, moving()
				}
			}
		}
		if sends == maxSends {
			return protocol.Result{}, moving()
		}
		r.Log.Info("session has another owner than was thought", "session", req.Session, "request_id", req.ID,
			"worker", owner.Worker, "now", now.Worker)
		owner = now
	}
}

// doubtful reports whether a worker's answer may mean that it isn't the owner of
// the session: it says so, or owner was only remembered and the worker knows
// nothing of the session or the file. Such an answer has had no effect.
func doubtful(status int, owner ownership.Owner) bool {
	switch status {
	case protocol.StatusMisdirected:
		return true
	case http.StatusBadRequest, http.StatusNotFound:
		return owner.Cached
	}
	return false
}

// owner returns the live owner of a session, as find or missing say. One that is
// remembered and isn't live is looked up: somebody else may have taken over.
func (r *Router) owner(ctx context.Context, session string, way route, find func(context.Context, string) (ownership.Owner, error)) (ownership.Owner, error) {
	o, err := find(ctx, session)
	if err == nil && o.Cached && !r.Workers.Live(o.Worker) {
		o, err = r.Sessions.Lookup(ctx, session)
	}
	switch {
	case errors.Is(err, ownership.ErrNone):
		return way.missing()
	case err != nil:
		return o, r.lookupFault(ctx, err)
	}
	return r.liveOwner(ctx, session, o)
}

// lookupFault turns an error of the bucket into a fault.
func (r *Router) lookupFault(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.Gone()
	}
	return fault.Unavailable("The session's owner can't be looked up now; ask again", err)
}

func noWorker() error {
	return fault.Unavailable("No worker is there to take the request; ask again", nil)
}

func notThere(worker string) error {
	return fault.Unavailable(fmt.Sprintf("Worker %s, which owns the session, is not there; it may come back", worker), nil)
}

func moving() error {
	return fault.Unavailable("The session is moving to another worker; ask again", nil)
}
