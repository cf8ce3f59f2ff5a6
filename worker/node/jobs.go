package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// handle carries out a job on a slot; see intake.Handler.
func (n *Node) handle(ctx context.Context, number int, job protocol.Job) (protocol.Result, error) {
	s := n.slots[number]
	var place execute.Place
	var hold *workcopy.Hold
	if job.Epoch != 0 {
		var refusal *protocol.Result
		var err error
		if hold, refusal, err = n.sessionOf(ctx, job); refusal != nil || err != nil {
			return orRefuse(refusal), err
		}
		defer hold.Release()
		place = execute.Place{Place: n.placeOf(hold.Session), Importable: true}
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
		if hold == nil && n.intake != nil {
			lend = n.lend // a session's files are for one process after the other
		}
		a, err = s.Evaluate(ctx, job.Body, place, lend)
	}
	note := ""
	if hold != nil {
		// Whatever became of the job: what it left is what the next one finds.
		var refusal *protocol.Result
		if note, refusal = n.save(ctx, hold, job); refusal != nil && err == nil {
			return *refusal, nil
		}
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
	if hold != nil {
		n.sizing.Go(func() { n.refresh(hold.Session) }) // off the job's time
	}
	if note != "" && a.Status == 200 {
		a.Body = notStored(a.Body, note)
	}
	return protocol.Result{Status: a.Status, Body: a.Body}, nil
}

// refresh takes the size of a session after a job.
func (n *Node) refresh(s *session.Session) {
	if _, err := s.Refresh(); err != nil && !errors.Is(err, session.ErrNoSession) {
		n.log.Warn("measure session", "session", s.ID(), "error", err)
	}
}

// sessionOf returns the session of a job, or the answer that refuses it.
func (n *Node) sessionOf(ctx context.Context, job protocol.Job) (*workcopy.Hold, *protocol.Result, error) {
	if n.copies == nil {
		return n.ownSession(job)
	}
	// An evaluate finds none if the gateway placed the session here a moment ago
	// and nothing was written yet: an empty session is what there is.
	hold, err := n.copies.Acquire(ctx, job.Session, job.Epoch, job.Kind == protocol.Evaluate)
	var r protocol.Result
	switch {
	case err == nil:
		return hold, nil, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case errors.Is(err, workcopy.ErrElsewhere), errors.Is(err, session.ErrStaleEpoch):
		r = refuse(protocol.StatusMisdirected, "%v", err)
	case errors.Is(err, session.ErrNoSession):
		r = refuse(400, "Session does not exist")
	case errors.Is(err, session.ErrNoUsers), errors.Is(err, workcopy.ErrBusy):
		r = refuse(503, "%v; ask again", err)
	case errors.Is(err, workcopy.ErrHeld):
		r = refuse(503, "A worker that owned the session before has not let go of it yet; ask again")
	default:
		n.log.Error("session of a job can't be opened", "session", job.Session, "request", job.RequestID, "error", err)
		r = refuse(503, "The session can't be opened on worker %s now, and the %s was not carried out; ask again (its log has the details)", n.id, job.Kind)
	}
	return nil, &r, nil
}

// ownSession is sessionOf for a worker without a queue, whose sessions are
// nobody else's.
func (n *Node) ownSession(job protocol.Job) (*workcopy.Hold, *protocol.Result, error) {
	sess, ok := n.store.Get(job.Session)
	if !ok {
		r := refuse(400, "Session does not exist")
		return nil, &r, nil
	}
	release, err := sess.Use()
	if err != nil {
		return nil, nil, err
	}
	return workcopy.Local(sess, release), nil, nil
}

// save stores what a job changed in its session. The answer is what to say
// instead of the job's if that fails, the note what to add to the job's if it
// left what nobody could store.
func (n *Node) save(ctx context.Context, hold *workcopy.Hold, job protocol.Job) (note string, _ *protocol.Result) {
	err := hold.Save(context.WithoutCancel(ctx))
	if err == nil {
		return "", nil
	}
	var r protocol.Result
	switch {
	case errors.Is(err, workcopy.ErrElsewhere):
		r = refuse(protocol.StatusMisdirected, "%v", err)
	case errors.Is(err, session.ErrTooLarge), errors.Is(err, session.ErrRefused), errors.Is(err, session.ErrConflict):
		n.log.Warn("a job left what can't be stored", "session", job.Session, "request", job.RequestID, "error", err)
		return err.Error() + "; it is as it was before", nil
	case errors.Is(err, durable.ErrFull):
		n.log.Error("no room left to store what a job changed", "session", job.Session, "request", job.RequestID, "error", err)
		r = refuse(507, "The %s was carried out, and what it changed is undone: there is no room left to store it", job.Kind)
	case errors.Is(err, durable.ErrDoubt) && job.Kind == protocol.Run:
		n.log.Error("what a command changed may be stored or not", "session", job.Session, "request", job.RequestID, "error", err)
		r = refuse(502, "The command may have run without effect: it was carried out, and NATS did not answer in time whether what it changed is stored")
	default:
		n.log.Error("what a job changed is not stored", "session", job.Session, "request", job.RequestID, "error", err)
		r = refuse(503, "The %s was carried out, but what it changed could not be stored and is undone; ask again", job.Kind)
	}
	return "", &r
}

func orRefuse(r *protocol.Result) protocol.Result {
	if r == nil {
		return protocol.Result{}
	}
	return *r
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
