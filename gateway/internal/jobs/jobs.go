// Package jobs is the gateway's part in kept jobs, whose answers outlive the
// connections that asked for them: asynchronous jobs, and requests with an
// idempotency key. It makes, joins, watches, cancels and, where a worker was
// lost, ends them; the records are of package kept.
package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// lookInterval is how often a waiting caller's job is looked at even if
	// nothing was heard of it.
	lookInterval = 2 * time.Second
	// expireGrace is how long after its deadline a job that was not begun is
	// called expired: a worker may be about to begin it.
	expireGrace = time.Second
	// maxRaces is how often a change is tried when others change the record meanwhile.
	maxRaces = 10
)

// Request asks for a job.
type Request struct {
	// ID is the request id, for logs.
	ID      string
	Kind    protocol.Kind
	Session string
	// Caller names who asks. Private jobs are shown to no other caller.
	Caller  string
	Private bool
	// Key is the idempotency key; "" for none.
	Key string
	// Webhook is a URL to be told of the end; "" for none.
	Webhook string
	// Body is the caller's JSON. It is not used after the call has returned.
	Body []byte
}

// job is the id of the request's job: one of its own, or the one that all
// requests of the caller with the same key share.
func (r *Request) job() string {
	if r.Key == "" {
		return protocol.NewID()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", r.Caller, r.Kind, r.Key))
	return hex.EncodeToString(sum[:16])
}

func (r *Request) digest() string {
	if r.Key == "" {
		return ""
	}
	sum := sha256.Sum256(r.Body)
	return hex.EncodeToString(sum[:])
}

// Records are the kept jobs' records; see package kept.
type Records interface {
	Create(ctx context.Context, k protocol.Kept) (kept.Record, error)
	Get(ctx context.Context, job string) (kept.Record, error)
	Put(ctx context.Context, r kept.Record) (kept.Record, error)
	FinishUnchanged(ctx context.Context, r kept.Record, result protocol.Result, ran bool) error
	Cancel(ctx context.Context, job string) (kept.Record, error)
	Expire(ctx context.Context, job string, now time.Time) (kept.Record, error)
	Each(ctx context.Context, yield func(kept.Record) bool) error
}

// Router says which worker a job of a session must go to; see package routing.
type Router interface {
	Locate(ctx context.Context, kind protocol.Kind, session string) (worker string, epoch uint64, err error)
}

// Dispatcher queues jobs; see package dispatch.
type Dispatcher interface {
	Store(ctx context.Context, job dispatch.Job, record protocol.Kept, messageID string) error
	Cancel(job string) error
	Find(ctx context.Context, worker, job string) (body []byte, sequence uint64, ok bool, err error)
	Take(ctx context.Context, sequence uint64) (bool, error)
}

// Config of a service.
type Config struct {
	NC         *nats.Conn
	Records    Records
	Router     Router
	Dispatcher Dispatcher
	// Workers returns the latest heartbeat of each live worker.
	Workers func() []protocol.Heartbeat
	// Deadline is how long an asynchronous job may wait to be begun, and
	// JobDeadline how long a caller waits for one with an idempotency key.
	Deadline, JobDeadline time.Duration
	// Stopping is closed when the gateway stops: who only watches a job is told
	// how far it is.
	Stopping <-chan struct{}
	Log      *slog.Logger
}

// Service makes kept jobs and looks after them. Its methods may be called from
// any goroutine; their errors are of package fault.
type Service struct {
	cfg     Config
	closing chan struct{}
	swept   chan struct{} // gets a value when a worker was lost
	now     func() time.Time
	missing map[string]time.Time // since when workers are not live, and "job" and an id in no queue; Run's
}

// New returns a service. Run looks after its jobs; Close ends all waiting.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, closing: make(chan struct{}), swept: make(chan struct{}, 1), now: time.Now, missing: map[string]time.Time{}}
}

// Close ends all waiting for jobs, which themselves go on. It is called once.
func (s *Service) Close() { close(s.closing) }

// Submit queues an asynchronous job, or finds the one of the same key, and
// returns its record.
func (s *Service) Submit(ctx context.Context, req Request) (protocol.Kept, error) {
	r, _, err := s.ensure(ctx, &req, true, s.cfg.Deadline)
	return r.Kept, err
}

// Do queues a job with an idempotency key, or joins the one of the same key, and
// waits for its answer. joined says that it was there before. A caller that
// hangs up leaves the job to those who ask again.
func (s *Service) Do(ctx context.Context, req Request) (result protocol.Result, joined bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.JobDeadline)
	defer cancel()
	r, joined, err := s.ensure(ctx, &req, false, s.cfg.JobDeadline)
	if err != nil {
		return protocol.Result{}, joined, err
	}
	if r, err = s.await(ctx, r.Job, nil); err != nil {
		return protocol.Result{}, joined, err
	}
	if r.State == protocol.KeptCancelled {
		return protocol.Result{}, joined, &fault.Error{Status: http.StatusConflict, Detail: "The job of this idempotency key was cancelled; use another key"}
	}
	if !r.State.Final() {
		return protocol.Result{}, joined, fault.Timeout("The job is not done yet; ask again with the same idempotency key")
	}
	return protocol.Result{Job: r.Job, Worker: r.Worker, Status: r.Status, Body: r.Body}, joined, nil
}

// ensure makes the request's job, or finds it. A job of the same key that ended
// without being begun is queued once more.
func (s *Service) ensure(ctx context.Context, req *Request, bulk bool, wait time.Duration) (kept.Record, bool, error) {
	id, digest := req.job(), req.digest()
	for range maxRaces {
		worker, epoch, err := s.cfg.Router.Locate(ctx, req.Kind, req.Session)
		if err != nil {
			return s.orKnown(ctx, req, id, digest, err)
		}
		now := s.now().UTC()
		job := dispatch.Job{Kind: req.Kind, RequestID: req.ID, Session: req.Session, Worker: worker, Epoch: epoch, Bulk: bulk, Caller: req.Caller, Body: req.Body}
		r, err := s.cfg.Records.Create(ctx, protocol.Kept{
			Job: id, Kind: req.Kind, State: protocol.KeptQueued, RequestID: req.ID, Session: req.Session, Caller: req.Caller, Private: req.Private,
			Owner: worker, Created: now, Deadline: now.Add(wait), Digest: digest, Webhook: req.Webhook,
		})
		if err == nil {
			return r, false, s.publish(ctx, job, r)
		}
		if !errors.Is(err, kept.ErrChanged) {
			return r, false, s.unreachable(ctx, err)
		}
		r, err = s.cfg.Records.Get(ctx, id)
		switch {
		case errors.Is(err, kept.ErrNone):
			continue // forgotten at this moment
		case err != nil:
			return r, true, s.unreachable(ctx, err)
		case r.Digest != digest:
			return r, true, errOtherBody
		case r.State == protocol.KeptDone && !r.Ran:
			r.State, r.Created, r.Deadline, r.Owner, r.Status, r.Body = protocol.KeptQueued, now, now.Add(wait), worker, 0, nil
			r.Finished, r.Worker, r.Since, r.Attempt = time.Time{}, "", time.Time{}, r.Attempt+1
			if r, err = s.cfg.Records.Put(ctx, r); errors.Is(err, kept.ErrChanged) {
				continue
			} else if err != nil {
				return r, true, s.unreachable(ctx, err)
			}
			return r, false, s.publish(ctx, job, r)
		case r.State == protocol.KeptQueued && now.Before(r.Deadline):
			// The gateway that recorded it may have died before it published it;
			// and who is told that it is queued may never ask for it to be again.
			// The stream drops the second of two messages, and a later one does
			// no harm.
			r.Owner = worker
			return r, true, s.publishAgain(ctx, job, r)
		}
		return r, true, nil
	}
	return kept.Record{}, true, s.unreachable(ctx, kept.ErrChanged)
}

// orKnown returns the job if it is known already and its body is the same,
// whatever err is in the way of a new one.
func (s *Service) orKnown(ctx context.Context, req *Request, id, digest string, err error) (kept.Record, bool, error) {
	if req.Key == "" {
		return kept.Record{}, false, err
	}
	r, readErr := s.cfg.Records.Get(ctx, id)
	switch {
	case readErr != nil || r.State == protocol.KeptDone && !r.Ran:
		return r, false, err
	case r.Digest != digest:
		return r, true, errOtherBody
	}
	return r, true, nil
}

var errOtherBody = fault.Unprocessable("The idempotency key was used before with another body; use a new key for a new request")

// publishAgain queues a job that is in its queue most likely. Where it can't be
// queued it is left as it is: it was accepted, and others wait for it.
func (s *Service) publishAgain(ctx context.Context, job dispatch.Job, r kept.Record) error {
	err := s.cfg.Dispatcher.Store(ctx, job, r.Kept, fmt.Sprint(r.Job, ".", r.Attempt))
	if err != nil && fault.Of(err).Status == http.StatusTooManyRequests {
		s.cfg.Log.Debug("queue is full for a job that should be in it", "job", r.Job)
		return nil
	}
	return err
}

// publish queues a recorded job. What can't be queued is ended, so that nobody
// waits for it.
func (s *Service) publish(ctx context.Context, job dispatch.Job, r kept.Record) error {
	err := s.cfg.Dispatcher.Store(ctx, job, r.Kept, fmt.Sprint(r.Job, ".", r.Attempt))
	if err == nil {
		return nil
	}
	undo := context.WithoutCancel(ctx)
	switch {
	case !errors.Is(err, dispatch.ErrUnknown):
		f := fault.Of(err)
		r.Webhook = "" // the caller is being told
		if endErr := s.cfg.Records.FinishUnchanged(undo, r, protocol.Result{Status: f.Status, Body: protocol.ErrorBody(f.Detail)}, false); endErr != nil {
			s.cfg.Log.Warn("record of a job that was not queued is left", "job", r.Job, "error", endErr)
		}
	case r.Digest == "":
		// Nobody will know its id: whatever is queued of it must not run.
		if _, endErr := s.cfg.Records.Cancel(undo, r.Job); endErr != nil {
			s.cfg.Log.Warn("record of a job that may be queued is left", "job", r.Job, "error", endErr)
		}
	}
	return err
}

func (s *Service) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.Gone()
	}
	return fault.Unavailable("The records of jobs can't be reached now; ask again", err)
}

// await waits until a job has ended, or ctx has, or early is closed; then it
// returns the record as it is.
func (s *Service) await(ctx context.Context, job string, early <-chan struct{}) (kept.Record, error) {
	settled := make(chan *nats.Msg, 1)
	sub, err := s.cfg.NC.ChanSubscribe(protocol.SettledSubject(job), settled)
	if err != nil {
		return kept.Record{}, s.unreachable(ctx, err)
	}
	defer sub.Unsubscribe()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		// The subscription is at the server before this is answered.
		r, err := s.current(context.WithoutCancel(ctx), job)
		if err != nil || r.State.Final() {
			return r, err
		}
		select {
		case <-settled:
		case <-look.C:
		case <-early:
			return r, nil
		case <-s.closing:
			return r, fault.Unavailable("The gateway is stopping; the job goes on, ask for it again", nil)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return r, fault.Gone()
			}
			return s.current(context.WithoutCancel(ctx), job)
		}
	}
}

// current is a job's record, a 404 if there is none. One that was not begun
// before its deadline ends here.
func (s *Service) current(ctx context.Context, job string) (kept.Record, error) {
	r, err := s.cfg.Records.Get(ctx, job)
	if now := s.now(); err == nil && r.State == protocol.KeptQueued && now.After(r.Deadline.Add(expireGrace)) {
		if r, err = s.cfg.Records.Expire(ctx, job, now); errors.Is(err, kept.ErrUnwanted) {
			err = nil
		}
	}
	switch {
	case errors.Is(err, kept.ErrNone):
		return r, errNoJob
	case err != nil:
		return r, s.unreachable(ctx, err)
	}
	return r, nil
}

var errNoJob = fault.NotFound("There is no such job, or its result was kept for its time and is gone")

// Get returns a job's record, waiting for up to wait until it has ended.
func (s *Service) Get(ctx context.Context, job, caller string, wait time.Duration) (protocol.Kept, error) {
	r, err := s.current(ctx, job)
	if err != nil {
		return r.Kept, err
	}
	if r.Private && r.Caller != caller {
		return protocol.Kept{}, errNoJob
	}
	if r.State.Final() || wait <= 0 {
		return r.Kept, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	r, err = s.await(ctx, job, s.cfg.Stopping)
	return r.Kept, err
}

// Cancel ends a job that is queued or runs; one that was done is a 409.
func (s *Service) Cancel(ctx context.Context, job, caller string) (protocol.Kept, error) {
	r, err := s.current(ctx, job)
	if err != nil {
		return r.Kept, err
	}
	if r.Private && r.Caller != caller {
		return protocol.Kept{}, errNoJob
	}
	r, err = s.cfg.Records.Cancel(ctx, job)
	switch {
	case errors.Is(err, kept.ErrUnwanted) && r.State == protocol.KeptCancelled:
		return r.Kept, nil
	case errors.Is(err, kept.ErrUnwanted):
		return r.Kept, &fault.Error{Status: http.StatusConflict, Detail: "The job is done, it can't be cancelled any more"}
	case errors.Is(err, kept.ErrNone):
		return r.Kept, errNoJob
	case err != nil:
		return r.Kept, s.unreachable(ctx, err)
	}
	if err := s.cfg.Dispatcher.Cancel(job); err != nil {
		s.cfg.Log.Warn("job not cancelled at its worker", "job", job, "error", err)
	}
	return r.Kept, nil
}

// List returns the caller's jobs, without answers, those that changed last
// first, at most limit.
func (s *Service) List(ctx context.Context, caller string, limit int) ([]protocol.Kept, error) {
	ring := make([]protocol.Kept, 0, limit)
	n := 0
	err := s.cfg.Records.Each(ctx, func(r kept.Record) bool {
		if r.Caller != caller {
			return true
		}
		if len(ring) < limit {
			ring = append(ring, r.Kept)
		} else {
			ring[n%limit] = r.Kept
		}
		n++
		return true
	})
	if err != nil {
		return nil, s.unreachable(ctx, err)
	}
	all := make([]protocol.Kept, 0, len(ring))
	for i := range ring {
		all = append(all, ring[(n-1-i)%len(ring)])
	}
	return all, nil
}
