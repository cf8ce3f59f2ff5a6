package kept_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func open(t *testing.T) (*kept.Store, *bus.Bus) {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{QueueLimit: 10})
	if err != nil {
		t.Fatal(err)
	}
	return kept.New(b), b
}

func job(kind protocol.Kind) protocol.Kept {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return protocol.Kept{Job: protocol.NewID(), Kind: kind, State: protocol.KeptQueued, Session: "s", Caller: "c\r\nx", Created: now, Deadline: now.Add(time.Minute)}
}

func TestRecords(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	k := job(protocol.Evaluate)
	if _, err := s.Get(ctx, k.Job); !errors.Is(err, kept.ErrNone) {
		t.Errorf("get of none: %v", err)
	}
	r, err := s.Create(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, k); !errors.Is(err, kept.ErrChanged) {
		t.Errorf("created twice: %v", err)
	}
	got, err := s.Get(ctx, k.Job)
	if err != nil || got.Revision != r.Revision || got.Caller != k.Caller || !got.Deadline.Equal(k.Deadline) {
		t.Errorf("got %+v %v, want %+v", got, err, r)
	}
	old := r
	r.State = protocol.KeptRunning
	if _, err := s.Put(ctx, r); err != nil {
		t.Error(err)
	}
	if _, err := s.Put(ctx, old); !errors.Is(err, kept.ErrChanged) {
		t.Errorf("put in place of an old one: %v", err)
	}
}

// Of all who try at once, one wins, and what is final stays.
func TestRaces(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	for round := range 20 {
		k := job(protocol.Run)
		if _, err := s.Create(ctx, k); err != nil {
			t.Fatal(err)
		}
		var begun, cancelled atomic.Int64
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if i == 5 && round%2 == 0 {
					if _, err := s.Cancel(ctx, k.Job); err == nil {
						cancelled.Add(1)
					}
					return
				}
				r, err := s.Begin(ctx, protocol.Job{ID: k.Job, Kind: protocol.Run}, fmt.Sprint("w", i), i%2 == 0)
				if err != nil {
					return
				}
				begun.Add(1)
				if err := s.Finish(ctx, r, protocol.Result{Status: 200, Body: fmt.Append(nil, i)}, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r, err := s.Get(ctx, k.Job)
		if err != nil || !r.State.Final() || begun.Load() > 1 || begun.Load()+cancelled.Load() == 0 {
			t.Errorf("begun %d times, cancelled %d times, %s: %v", begun.Load(), cancelled.Load(), r.State, err)
		}
		if (r.State == protocol.KeptCancelled) != (cancelled.Load() == 1) {
			t.Errorf("cancelled %d times, and it is %s", cancelled.Load(), r.State)
		}
		if err := s.Finish(ctx, kept.Record{Kept: protocol.Kept{Job: k.Job}}, protocol.Result{Status: 500}, true); err != nil {
			t.Error(err)
		}
		if after, _ := s.Get(ctx, k.Job); after.Revision != r.Revision {
			t.Error("a final record changed")
		}
	}
}

func TestBeginAgain(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	for _, c := range []struct {
		kind        protocol.Kind
		redelivered bool
		want        error
	}{
		{protocol.Evaluate, true, nil},
		{protocol.Evaluate, false, kept.ErrUnwanted}, // a second message
		{protocol.Run, true, kept.ErrUnwanted},
		{protocol.Run, false, kept.ErrUnwanted},
	} {
		k := job(c.kind)
		s.Create(ctx, k)
		first, err := s.Begin(ctx, protocol.Job{ID: k.Job, Kind: c.kind}, "w1", false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Begin(ctx, protocol.Job{ID: k.Job, Kind: c.kind}, "w2", c.redelivered)
		if !errors.Is(err, c.want) {
			t.Errorf("%s, redelivered %v: %v, want %v", c.kind, c.redelivered, err, c.want)
		}
		// The first one's answer counts if it comes first, wherever it comes from.
		if err := s.Finish(ctx, first, protocol.Result{Status: 201}, true); err != nil {
			t.Error(err)
		}
		if r, _ := s.Get(ctx, k.Job); r.State != protocol.KeptDone || r.Status != 201 {
			t.Errorf("%s: ended as %+v", c.kind, r.Kept)
		}
	}
}

func TestFinishUnchanged(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	k := job(protocol.Run)
	seen, err := s.Create(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(ctx, protocol.Job{ID: k.Job, Kind: protocol.Run}, "w1", false); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishUnchanged(ctx, seen, protocol.Result{Status: 503}, false); err != nil {
		t.Error(err)
	}
	now, err := s.Get(ctx, k.Job)
	if err != nil || now.State != protocol.KeptRunning {
		t.Errorf("what was begun meanwhile is %s: %v", now.State, err)
	}
	if err := s.FinishUnchanged(ctx, now, protocol.Result{Status: 502}, true); err != nil {
		t.Error(err)
	}
	if r, _ := s.Get(ctx, k.Job); r.Status != 502 {
		t.Errorf("ended as %+v", r.Kept)
	}
}

func TestExpire(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	k := job(protocol.Evaluate)
	s.Create(ctx, k)
	if _, err := s.Expire(ctx, k.Job, time.Now()); !errors.Is(err, kept.ErrUnwanted) {
		t.Errorf("before its deadline: %v", err)
	}
	if r, err := s.Expire(ctx, k.Job, k.Deadline.Add(time.Second)); err != nil || r.Status != 504 || r.Ran {
		t.Errorf("after it: %+v %v", r.Kept, err)
	}
}

func TestEach(t *testing.T) {
	s, b := open(t)
	count := func() (n int) {
		if err := s.Each(context.Background(), func(r kept.Record) bool {
			if r.Body != nil || r.Revision == 0 {
				t.Errorf("%+v", r)
			}
			n++
			return n < 1500
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d of none", n)
	}
	for range 1200 {
		k := job(protocol.Evaluate)
		h, _ := k.Header()
		b.JS.PublishMsgAsync(&nats.Msg{Subject: protocol.KeptSubject(k.Job), Header: h, Data: []byte("body")})
	}
	<-b.JS.PublishAsyncComplete()
	if n := count(); n != 1200 {
		t.Errorf("%d, want 1200", n)
	}
	for range 400 {
		k := job(protocol.Evaluate)
		h, _ := k.Header()
		b.JS.PublishMsgAsync(&nats.Msg{Subject: protocol.KeptSubject(k.Job), Header: h})
	}
	<-b.JS.PublishAsyncComplete()
	if n := count(); n != 1500 {
		t.Errorf("%d, want to stop at 1500", n)
	}
}

// A list is not cut short by a busy machine.
func TestEachWaits(t *testing.T) {
	s, _ := open(t)
	for range 3 {
		if _, err := s.Create(t.Context(), job(protocol.Evaluate)); err != nil {
			t.Fatal(err)
		}
	}
	s.Slow()
	n := 0
	if err := s.Each(t.Context(), func(kept.Record) bool { n++; return true }); err != nil || n != 3 {
		t.Errorf("%d of 3: %v", n, err)
	}
}

// A job whose deliveries are used up begins in another message, unless workers
// began it so often.
func TestRequeue(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	for _, c := range []struct {
		name   string
		kind   protocol.Kind
		begins int
		back   int // of these, given back
		old    bool
		want   bool
	}{
		{"never begun", protocol.Evaluate, 0, 0, false, true},
		{"begun, and lost on its way after that", protocol.Evaluate, protocol.MaxDeliver - 1, 0, false, true},
		{"begun by a worker that stopped, and lost on its way after that", protocol.Evaluate, 1, 1, false, true},
		{"begun each time", protocol.Evaluate, protocol.MaxDeliver, 0, false, false},
		{"begun each time, once by a worker that stopped", protocol.Evaluate, protocol.MaxDeliver, 1, false, true},
		{"begun by a worker that doesn't count", protocol.Evaluate, 1, 0, true, false},
		{"a command", protocol.Run, 1, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := job(c.kind)
			r, err := s.Create(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.begins {
				if r, err = s.Begin(ctx, protocol.Job{ID: k.Job, Kind: c.kind}, "w1", i > 0); err != nil {
					t.Fatal(err)
				}
				if i < c.back {
					if err := s.GiveBack(ctx, r); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.old {
				r.Tries = 0
				if _, err := s.Put(ctx, r); err != nil {
					t.Fatal(err)
				}
			}
			got, err := s.Requeue(ctx, k.Job)
			if err != nil || got != c.want {
				t.Fatalf("%v %v, want %v", got, err, c.want)
			}
			if _, err := s.Begin(ctx, protocol.Job{ID: k.Job, Kind: c.kind}, "w2", false); (err == nil) != c.want {
				t.Errorf("a new message begins: %v", err)
			}
		})
	}
	done := job(protocol.Evaluate)
	r, err := s.Create(ctx, done)
	if err == nil {
		err = s.Finish(ctx, r, protocol.Result{Status: 200}, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{done.Job, protocol.NewID()} {
		if again, err := s.Requeue(ctx, id); again || err != nil {
			t.Errorf("ended or forgotten: %v %v", again, err)
		}
	}
}
