// Package queues says how long the queues are and how old what is in them is. It
// asks JetStream, at most once a second however many ask.
package queues

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// freshFor is how long an answer is given again.
	freshFor = time.Second
	// askTimeout bounds the questions for one answer.
	askTimeout = 2 * time.Second
)

// Queue is one queue.
type Queue struct {
	// Name is protocol's subject of the queue, or the backlog's stream.
	Name string
	// Waiting jobs are with no worker yet, Running ones are.
	Waiting, Running int
	// Oldest is when the oldest job was queued; zero if there is none.
	Oldest time.Time
}

// Reader reads the queues. Its methods may be called from any goroutine.
type Reader struct {
	jobs, backlog jetstream.Stream
	log           *slog.Logger

	mu   sync.Mutex
	read time.Time
	last []Queue
}

// New returns a reader of the streams of jobs.
func New(jobs, backlog jetstream.Stream, log *slog.Logger) *Reader {
	return &Reader{jobs: jobs, backlog: backlog, log: log}
}

// Queues returns the shared queues, the backlog, and those of workers that hold jobs. It is
// nil if JetStream doesn't answer.
func (r *Reader) Queues(ctx context.Context) []Queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.read) < freshFor {
		return r.last
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, err := r.ask(ctx)
	if err != nil {
		r.log.Warn("queues not read", "error", err)
		return nil
	}
	r.read, r.last = time.Now(), all
	return all
}

func (r *Reader) ask(ctx context.Context) ([]Queue, error) {
	info, err := r.jobs.Info(ctx, jetstream.WithSubjectFilter(protocol.JobsSubjects))
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", protocol.JobsStream, err)
	}
	subjects := info.State.Subjects
	if subjects == nil {
		subjects = map[string]uint64{}
	}
	for _, shared := range []string{protocol.EvaluateQueue, protocol.BulkQueue} {
		subjects[shared] += 0 // listed even if empty
	}
	var all []Queue
	for subject, n := range subjects {
		q := Queue{Name: subject, Waiting: int(n)}
		if n > 0 {
			if c, err := r.jobs.Consumer(ctx, protocol.QueueConsumer(subject)); err == nil {
				ahead := c.CachedInfo()
				q.Running = min(ahead.NumAckPending, q.Waiting)
				q.Waiting -= q.Running
			}
			// The oldest message comes with its body: there is no other way to its time.
			if m, err := r.jobs.GetMsg(ctx, info.State.FirstSeq, jetstream.WithGetMsgSubject(subject)); err == nil {
				q.Oldest = m.Time
			}
		}
		all = append(all, q)
	}
	waiting, err := r.backlog.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", protocol.BacklogStream, err)
	}
	q := Queue{Name: protocol.BacklogStream, Waiting: int(waiting.State.Msgs)}
	if q.Waiting > 0 {
		q.Oldest = waiting.State.FirstTime
	}
	all = append(all, q)
	slices.SortFunc(all, func(a, b Queue) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Label names a queue for people: "evaluate", "bulk", "backlog", "worker:" and
// its id.
func (q Queue) Label() string {
	if q.Name == protocol.BacklogStream {
		return "backlog"
	}
	if strings.HasPrefix(q.Name, protocol.WorkerQueue("")) {
		return "worker:" + protocol.LastToken(q.Name)
	}
	return protocol.LastToken(q.Name)
}
