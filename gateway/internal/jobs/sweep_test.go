package jobs

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// moving stands in for what a job is moved by: one record, one message.
type moving struct {
	Records
	record kept.Record
	in     string // the worker in whose queue its message is; "" for none
	stored []string
	// changed is what the record is when it is to be written; nil: as it was.
	changed *kept.Record
	ended   int  // with that status; 0: it is not
	ran     bool // as that says
	nowhere bool // the session has no worker
	taken   bool // the message is gone at the moment when it is to be taken
}

// mover is its queues.
type mover struct {
	Dispatcher
	*moving
}

func (m mover) Cancel(string) error { return nil }

func (m *moving) Each(_ context.Context, yield func(kept.Record) bool) error {
	yield(m.record)
	return nil
}

func (m *moving) Get(context.Context, string) (kept.Record, error) { return m.record, nil }

func (m *moving) Put(_ context.Context, r kept.Record) (kept.Record, error) {
	if m.changed != nil {
		m.record = *m.changed
		return r, kept.ErrChanged
	}
	m.record = r
	return r, nil
}

func (m *moving) FinishUnchanged(_ context.Context, _ kept.Record, result protocol.Result, ran bool) error {
	m.ended, m.ran = result.Status, ran
	return nil
}

func (m mover) Find(_ context.Context, worker, _ string) ([]byte, uint64, bool, error) {
	return []byte("{}"), 7, worker == m.in, nil
}

func (m mover) Store(_ context.Context, job dispatch.Job, _ protocol.Kept, messageID string) error {
	m.stored = append(m.stored, job.Worker+" "+messageID)
	return nil
}

func (m mover) Take(context.Context, uint64) (bool, error) {
	taken := m.in != "" && !m.taken
	m.in = ""
	return taken, nil
}

func (m *moving) Locate(context.Context, protocol.Kind, string) (string, uint64, error) {
	if m.nowhere {
		return "", 0, errNoJob
	}
	return "w2", 2, nil
}

// A job whose worker is lost is moved to the session's next, whatever gets between
// the steps of that.
func TestMove(t *testing.T) {
	now := time.Now()
	job := func(state protocol.KeptState, owner, at, from string) kept.Record {
		return kept.Record{Kept: protocol.Kept{
			Job: "j", Kind: protocol.Evaluate, State: state, Session: "s", Owner: owner, Worker: at, From: from,
			Created: now, Deadline: now.Add(time.Hour), Ran: state == protocol.KeptRunning, Attempt: 1,
		}}
	}
	begunThere := job(protocol.KeptRunning, "w1", "w2", "")
	for name, c := range map[string]struct {
		record  kept.Record
		in      string
		changed *kept.Record
		stored  []string
		left    string // in whose queue its old message is afterwards
		from    string // as recorded
	}{
		"queued":                                  {job(protocol.KeptQueued, "w1", "", ""), "w1", nil, []string{"w2 j.2"}, "", ""},
		"running":                                 {job(protocol.KeptRunning, "w1", "w1", ""), "w1", nil, []string{"w2 j.2"}, "", "w1"},
		"queued, and begun there at once":         {job(protocol.KeptQueued, "w1", "", ""), "w1", &begunThere, []string{"w2 j.2"}, "", ""},
		"recorded, and its gateway was lost":      {job(protocol.KeptQueued, "w2", "", "w1"), "w1", nil, []string{"w2 j.1"}, "", "w1"},
		"recorded, queued, its gateway was lost":  {job(protocol.KeptQueued, "w2", "", "w1"), "", nil, nil, "", "w1"},
		"recorded, and the next owner is lost":    {job(protocol.KeptQueued, "w3", "", "w1"), "w1", nil, []string{"w2 j.2"}, "", "w1"},
		"at a live worker":                        {job(protocol.KeptQueued, "w2", "", ""), "w2", nil, nil, "w2", ""},
		"moved, and waiting at its live worker":   {job(protocol.KeptQueued, "w2", "", "w1"), "w2", nil, nil, "w2", "w1"},
		"running again before the record says it": {begunThere, "w1", nil, nil, "w1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := &moving{record: c.record, in: c.in, changed: c.changed}
			s := New(Config{
				Records: m, Dispatcher: mover{moving: m}, Router: m, Log: slog.New(slog.DiscardHandler),
				Workers: func() []protocol.Heartbeat { return []protocol.Heartbeat{{Worker: "w2", Started: now.Add(-time.Hour)}} },
			})
			s.missing = map[string]time.Time{"w1": now.Add(-time.Minute), "w3": now.Add(-time.Minute)}
			if _, err := s.sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.stored, c.stored) || m.in != c.left || m.record.From != c.from || m.ended != 0 {
				t.Errorf("stored %v, want %v; old message with %q, want %q; from %q, want %q; ended %d",
					m.stored, c.stored, m.in, c.left, m.record.From, c.from, m.ended)
			}
		})
	}
}

// A command is taken out of its queue before it is queued elsewhere. Where it isn't
// there any more it may have been begun, whatever its record says: JetStream may
// have lost that.
func TestMoveRun(t *testing.T) {
	now := time.Now()
	record := kept.Record{Kept: protocol.Kept{
		Job: "j", Kind: protocol.Run, State: protocol.KeptQueued, Session: "s", Owner: "w1", Created: now, Deadline: now.Add(time.Hour),
	}}
	changed := record
	changed.State = protocol.KeptRunning
	moved := record
	moved.Owner, moved.From, moved.Attempt = "w2", "w1", 1
	for name, c := range map[string]struct {
		moving
		stored []string
		status int
		ran    bool
		left   string // in whose queue it is afterwards, as far as it was there before
		since  time.Duration
	}{
		"queued":                 {moving{record: record, in: "w1"}, []string{"w2 j.1"}, 0, false, "", 0},
		"begun, as it seems":     {moving{record: record, in: ""}, nil, 502, true, "", 0},
		"begun just now":         {moving{record: record, in: "w1", taken: true}, nil, 502, true, "", 0},
		"recorded just now":      {moving{record: record, in: "w1", changed: &changed}, nil, 0, false, "w1", 0},
		"its session is nowhere": {moving{record: record, in: "w1", nowhere: true}, nil, 503, false, "w1", 0},
		"being moved, by a gateway that was lost": {moving{record: moved, in: "w1"}, []string{"w2 j.1"}, 0, false, "", 0},
		"being moved": {moving{record: moved, in: ""}, nil, 0, false, "", moveTime / 2},
		"being moved, by one that was lost in between": {moving{record: moved, in: ""}, nil, 502, true, "", 2 * moveTime},
		"moved": {moving{record: moved, in: "w2"}, nil, 0, false, "w2", 2 * moveTime},
	} {
		t.Run(name, func(t *testing.T) {
			m := &c.moving
			s := New(Config{
				Records: m, Dispatcher: mover{moving: m}, Router: m, Log: slog.New(slog.DiscardHandler),
				Workers: func() []protocol.Heartbeat { return []protocol.Heartbeat{{Worker: "w2", Started: now.Add(-time.Hour)}} },
			})
			s.missing = map[string]time.Time{"w1": now.Add(-time.Minute)}
			if c.since != 0 {
				s.missing["job j"] = now.Add(-c.since)
			}
			if _, err := s.sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.stored, c.stored) || m.ended != c.status || m.ran != c.ran || m.in != c.left {
				t.Errorf("stored %v, want %v; ended %d %v, want %d %v; its old message is with %q, want %q",
					m.stored, c.stored, m.ended, m.ran, c.status, c.ran, m.in, c.left)
			}
		})
	}
}
