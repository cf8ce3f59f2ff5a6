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
		place = execute.Place{Place: n.placeOf(owner), Importable: true}
	} else if job.Kind == protocol.Run {
		return refuse(400, "Session does not exist"), nil
	} else {
		place = execute.Place{Place: n.placeOf(s.scratch)}
	}
	a, err := execute.Answer{}, error(nil)
	if job.Kind == protocol.Run {
		a, err = s.Run(ctx, job.Body, place)
	} else {
		var lend execute.Lender
		if owner == nil {
			lend = n.lend // a session's files are for one process after the other
		}
		a, err = s.Evaluate(ctx, job.Body, place, lend)
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
	for mark, count := range a.Marks {
		n.metrics.marks.WithLabelValues(mark).Add(float64(count))
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
	Usage() session.Usage
	Refresh() (session.Usage, error)
}

// placeOf is where a job runs. A session that is over its quota already may
// run commands, to delete files, but take up no more.
func (n *Node) placeOf(o owned) sandbox.Place {
	now := o.Usage()
	p := sandbox.Place{UID: o.UID(), GID: o.GID(), Work: o.WorkDir(), Tmp: o.TmpDir(), Home: o.HomeDir()}
	if n.cfg.SessionBytes > 0 {
		p.DiskBytes = max(n.cfg.SessionBytes, now.Bytes)
	}
	if n.cfg.SessionFiles > 0 {
		p.DiskFiles = max(n.cfg.SessionFiles, now.Files)
	}
	if p.DiskBytes > 0 || p.DiskFiles > 0 {
		p.Usage = func() (bytes, files int64, err error) {
			u, err := o.Refresh()
			if err == nil && u.Partial && !now.Partial {
				u.Files = max(u.Files, p.DiskFiles+1) // there is more than was counted
			}
			return u.Bytes, u.Files, err
		}
	}
	return p
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

// lend borrows a free slot for an evaluation that runs on another.
func (n *Node) lend() *execute.Loan {
	number, recalled, ok := n.intake.Borrow()
	if !ok {
		return nil
	}
	s := n.slots[number]
	n.metrics.lent.Inc()
	return &execute.Loan{
		Slot: s.Slot, At: execute.Place{Place: n.placeOf(s.scratch)}, Recalled: recalled,
		Return: func() {
			n.idle(number)
			n.intake.Return(number)
		},
	}
}
