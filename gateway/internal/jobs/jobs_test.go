package jobs

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// recorded stands in for the records: there is one.
type recorded struct {
	Records
	record kept.Record
}

func (r *recorded) Locate(context.Context, protocol.Kind, string) (string, uint64, error) {
	return "", 0, nil
}

func (r *recorded) Create(context.Context, protocol.Kept) (kept.Record, error) {
	return kept.Record{}, kept.ErrChanged
}

func (r *recorded) FinishUnchanged(_ context.Context, _ kept.Record, result protocol.Result, _ bool) error {
	r.record.State, r.record.Status = protocol.KeptDone, result.Status
	return nil
}

func (r *recorded) Get(context.Context, string) (kept.Record, error) { return r.record, nil }

// queue is where its jobs go.
type queue struct {
	Dispatcher
	stored []string // message ids
	err    error
}

func (r *queue) Store(_ context.Context, _ dispatch.Job, _ protocol.Kept, messageID string) error {
	r.stored = append(r.stored, messageID)
	return r.err
}

// A gateway may die between a job's record and its message. Who joins the job, a
// moment later through another one, is told that it is queued: so it must be.
func TestJoinedJobIsQueued(t *testing.T) {
	req := Request{ID: "r", Kind: protocol.Evaluate, Session: "s", Key: "k", Body: []byte("{}")}
	for _, c := range []struct {
		state protocol.KeptState
		want  int
	}{{protocol.KeptQueued, 1}, {protocol.KeptRunning, 0}, {protocol.KeptCancelled, 0}} {
		now := time.Now()
		f := &recorded{record: kept.Record{Kept: protocol.Kept{
			Job: req.job(), Kind: req.Kind, State: c.state, Created: now, Deadline: now.Add(time.Minute), Digest: req.digest(),
		}}}
		q := &queue{}
		s := New(Config{Records: f, Router: f, Dispatcher: q, Deadline: time.Minute, JobDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
		if _, err := s.Submit(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if len(q.stored) != c.want {
			t.Errorf("%s: queued %d times, want %d", c.state, len(q.stored), c.want)
		}
	}
}

// It is left alone if it can't be: it is in its queue most likely, and was accepted.
func TestJoinedJobIsNotEnded(t *testing.T) {
	req := Request{ID: "r", Kind: protocol.Evaluate, Session: "s", Key: "k", Body: []byte("{}")}
	for _, c := range []struct {
		err  error
		want int
	}{
		{&fault.Error{Status: http.StatusTooManyRequests, Detail: "full"}, 0},
		{fault.Unavailable("away", nil), http.StatusServiceUnavailable},
	} {
		now := time.Now()
		f := &recorded{record: kept.Record{Kept: protocol.Kept{
			Job: req.job(), Kind: req.Kind, State: protocol.KeptQueued, Created: now, Deadline: now.Add(time.Minute), Digest: req.digest(),
		}}}
		s := New(Config{Records: f, Router: f, Dispatcher: &queue{err: c.err}, Deadline: time.Minute, JobDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
		got := 0
		if _, err := s.Submit(t.Context(), req); err != nil {
			got = fault.Of(err).Status
		}
		if got != c.want || f.record.State != protocol.KeptQueued {
			t.Errorf("%v: answered %d and left %s, want %d and queued", c.err, got, f.record.State, c.want)
		}
	}
}
