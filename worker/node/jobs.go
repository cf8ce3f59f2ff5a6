package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// handle carries out a job on a slot; see intake.Handler.
func (n *Node) handle(ctx context.Context, number int, job protocol.Job) (protocol.Result, error) {
	s := n.slots[number]
	var place execute.Place
	var owner *session.Session
	if job.Epoch != 0 {
		var refusal *protocol.Result
		if owner, refusal = n.sessionOf(job); refusal != nil {
			return *refusal, nil
		}
		release, err := owner.Use()
		if err != nil {
			return refuse(400, "Session does not exist"), nil
		}
		defer release()
		place = execute.Place{Place: placeOf(owner), Importable: true}
	} else if job.Kind == protocol.Run {
		return refuse(400, "Session does not exist"), nil
	} else {
		place = execute.Place{Place: placeOf(s.scratch)}
	}
	a, err := execute.Answer{}, error(nil)
	if job.Kind == protocol.Run {
		a, err = s.Run(ctx, job.Body, place)
	} else {
		a, err = s.Evaluate(ctx, job.Body, place)
	}
	if d := s.Restarts() - s.restarts; d > 0 {
		n.metrics.restarts.Add(float64(d))
		s.restarts = s.Restarts()
	}
	if err != nil {
		return protocol.Result{}, fmt.Errorf("%s: %w", job.Kind, err)
	}
	for status, count := range a.Statuses {
		n.metrics.cases.WithLabelValues(string(status)).Add(float64(count))
	}
	n.metrics.outcomes.WithLabelValues(string(job.Kind), a.Outcome).Inc()
	if owner != nil {
		n.sizing.Go(func() { n.refresh(owner) }) // off the job's time
	}
	return protocol.Result{Status: a.Status, Body: a.Body}, nil
}

// refresh takes the size of a session after a job.
func (n *Node) refresh(s *session.Session) {
	if _, err := s.Refresh(); err != nil && !errors.Is(err, session.ErrNoSession) {
		n.log.Warn("measure session", "session", s.ID(), "error", err)
	}
}

// sessionOf finds the session of a job, or the answer that refuses it.
func (n *Node) sessionOf(job protocol.Job) (*session.Session, *protocol.Result) {
	sess, ok := n.store.Get(job.Session)
	if !ok {
		r := refuse(400, "Session does not exist")
		if job.Kind == protocol.Evaluate {
			// The gateway placed the session here a moment ago and nothing was
			// written yet: an empty session is what there is.
			created, err := n.store.Create(job.Session, job.Epoch)
			if err == nil {
				return created, nil
			}
			r = refuse(500, "create session: %v", err)
		}
		return nil, &r
	}
	if job.Epoch < sess.Epoch() {
		r := refuse(protocol.StatusMisdirected, "session %s has moved on to epoch %d, the request says %d", job.Session, sess.Epoch(), job.Epoch)
		return nil, &r
	}
	return sess, nil
}

// owned is a session or a scratch: directories and whom they belong to.
type owned interface {
	UID() int
	GID() int
	WorkDir() string
	TmpDir() string
	HomeDir() string
}

func placeOf(o owned) sandbox.Place {
	return sandbox.Place{UID: o.UID(), GID: o.GID(), Work: o.WorkDir(), Tmp: o.TmpDir(), Home: o.HomeDir()}
}

func refuse(status int, format string, args ...any) protocol.Result {
	return protocol.Result{Status: status, Body: protocol.ErrorBody(fmt.Sprintf(format, args...))}
}

// idle makes a slot ready for the next job, before it counts as free.
func (n *Node) idle(number int) {
	s := n.slots[number]
	if err := s.scratch.Reset(); err != nil {
		n.log.Error("reset scratch session", "slot", number, "error", err)
	}
	s.Ready()
}
