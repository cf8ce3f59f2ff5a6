package routing

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Read reads a file of a session.
func (r *Router) Read(ctx context.Context, req Request) (protocol.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.FileDeadline)
	defer cancel()
	return r.ask(ctx, req, "File does not exist", func(owner ownership.Owner) (protocol.Result, error) {
		return r.askOwner(ctx, owner, protocol.OpRead, operation(req, owner))
	})
}

// Delete deletes a file of a session.
func (r *Router) Delete(ctx context.Context, req Request) (protocol.Result, error) {
	return r.change(ctx, protocol.OpDelete, req, "File does not exist")
}

// Rename renames a file of a session.
func (r *Router) Rename(ctx context.Context, req Request) (protocol.Result, error) {
	return r.change(ctx, protocol.OpRename, req, "Old file does not exist")
}

// ask asks a session's owner; a session without one is a 404 that says missing.
func (r *Router) ask(ctx context.Context, req Request, missing string, send func(ownership.Owner) (protocol.Result, error)) (protocol.Result, error) {
	return r.follow(ctx, req, route{
		find:    r.Sessions.Recall,
		missing: func() (ownership.Owner, error) { return ownership.Owner{}, fault.NotFound(missing) },
		send:    send,
	})
}

func (r *Router) change(ctx context.Context, op string, req Request, missing string) (protocol.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.FileDeadline)
	defer cancel()
	c := r.newChange(op, req)
	res, err := r.ask(ctx, req, missing, func(owner ownership.Owner) (protocol.Result, error) { return c.send(ctx, owner) })
	return c.outcome(res, err)
}

func operation(req Request, owner ownership.Owner) protocol.SessionOp {
	return protocol.SessionOp{RequestID: req.ID, Session: req.Session, Epoch: owner.Epoch, Body: req.Body}
}

// Write writes a file. A session without an owner gets one first.
func (r *Router) Write(ctx context.Context, req Request) (protocol.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.FileDeadline)
	defer cancel()
	created := false
	c := r.newChange(protocol.OpWrite, req)
	res, err := r.follow(ctx, req, route{
		// A worker that is not the owner any more would make the session anew.
		find: r.Sessions.Lookup,
		missing: func() (o ownership.Owner, err error) {
			o, created, err = r.place(ctx, req.Session)
			return o, err
		},
		send: func(owner ownership.Owner) (protocol.Result, error) {
			res, err := c.send(ctx, owner)
			if !created || !errors.Is(err, dispatch.ErrNobody) {
				return res, err
			}
			// The worker died within the time that its last heartbeat counts.
			// The session is a moment old and was never used: another takes it.
			if owner, err = r.placeElsewhere(ctx, req.Session, owner); err != nil {
				return protocol.Result{}, err
			}
			return c.send(ctx, owner)
		},
	})
	return c.outcome(res, err)
}

// place gives a new session an owner; created is false if another gateway was
// quicker.
func (r *Router) place(ctx context.Context, session string) (o ownership.Owner, created bool, err error) {
	worker, ok := placement.Choose(r.Workers.Snapshot(), session, r.now())
	if !ok {
		return o, false, noWorker()
	}
	r.Workers.Placed(worker) // at once: others choose meanwhile
	o, created, err = r.Sessions.Create(ctx, session, worker, r.Workers.Durable(worker))
	switch {
	case errors.Is(err, ownership.ErrNone): // created and removed by others meanwhile
		return o, false, moving()
	case err != nil:
		return o, false, r.lookupFault(ctx, err)
	case !created:
		o, err = r.liveOwner(ctx, session, o)
	}
	return o, created, err
}

// placeElsewhere gives a session that this gateway just created another owner.
func (r *Router) placeElsewhere(ctx context.Context, session string, old ownership.Owner) (ownership.Owner, error) {
	others := r.durableWorkers(old.Worker)
	if !old.Durable {
		others = slices.DeleteFunc(r.Workers.Snapshot(), func(w placement.Worker) bool { return w.Worker == old.Worker })
	}
	worker, ok := placement.Choose(others, session, r.now())
	if !ok {
		// Without a record, the next write starts anew.
		if err := r.Sessions.Remove(ctx, session, old); err != nil && !errors.Is(err, ownership.ErrLost) {
			r.Log.Warn("session left without a worker", "session", session, "error", err)
		}
		return ownership.Owner{}, noWorker()
	}
	r.Workers.Placed(worker)
	o, err := r.Sessions.Replace(ctx, session, old, worker, r.Workers.Lost(old.Worker))
	switch {
	case errors.Is(err, ownership.ErrLost):
		return o, moving()
	case err != nil:
		return o, r.lookupFault(ctx, err)
	}
	r.Log.Warn("new session placed elsewhere: its worker does not answer", "session", session, "worker", old.Worker, "now", worker)
	return o, nil
}

// forked is the answer to a fork.
type forked struct {
	NewID string `json:"new_id"`
}

// Fork copies a session, on the worker that owns it, to a new id.
func (r *Router) Fork(ctx context.Context, req Request) (protocol.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.FileDeadline)
	defer cancel()
	return r.follow(ctx, req, route{
		find: r.Sessions.Recall,
		missing: func() (ownership.Owner, error) {
			return ownership.Owner{}, fault.NotFound("Session to fork not found")
		},
		send: func(owner ownership.Owner) (protocol.Result, error) { return r.fork(ctx, req, owner) },
	})
}

// fork records the copy before it is made, so that there is no time in which it
// exists and nobody owns it, and takes the record back if it isn't made.
func (r *Router) fork(ctx context.Context, req Request, owner ownership.Owner) (protocol.Result, error) {
	id := protocol.NewUUID()
	record, _, err := r.Sessions.Create(ctx, id, owner.Worker, owner.Durable)
	if err != nil {
		return protocol.Result{}, r.lookupFault(ctx, err)
	}
	op := operation(req, owner)
	op.NewID, op.NewEpoch = id, record.Epoch
	res, err := r.askOwner(ctx, owner, protocol.OpFork, op)
	if err == nil && res.Status == http.StatusOK {
		res.Body, err = json.Marshal(forked{NewID: id})
		return res, err
	}
	// The caller may be gone, its context with it.
	undo := context.WithoutCancel(ctx)
	if err := r.Sessions.Remove(undo, id, record); err != nil && !errors.Is(err, ownership.ErrLost) {
		r.Log.Warn("record of a fork that was not made is left", "session", id, "error", err)
	}
	return res, err
}
