package backlog

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A line has room for so many bytes: what is there, and what is about to come.
func TestLineHasRoomForItsShare(t *testing.T) {
	now := time.Now()
	pace := new(meter)
	v := &view{
		feeder: &Feeder{cfg: Config{Meter: pace, Log: slog.New(slog.DiscardHandler)}, now: func() time.Time { return now }},
		waits:  map[string]waits{}, rooms: map[string]map[string]room{}, limits: limits{jobs: 10, bytes: 100}, closed: true,
	}
	sequence := uint64(0)
	comes := func(caller, job string, bytes int) {
		sequence++
		v.add(&entry{sequence: sequence, subject: caller, job: job, bytes: bytes})
	}
	ask := func(caller, job string, bytes int64, want bool) protocol.Line {
		t.Helper()
		l := v.line(protocol.LineRequest{Subject: caller, Job: job, Bytes: bytes})
		if l.Refused == want {
			t.Errorf("room for %d bytes of %s: %v, want %v; %+v", bytes, caller, !l.Refused, want, l)
		}
		return l
	}
	ask("a", "a1", 1000, true) // alone
	comes("a", "a1", 1000)
	ask("a", "a2", 1, false)
	ask("a", "a1", 1000, true) // it is there already
	ask("b", "b1", 60, true)
	ask("b", "b1", 60, true)  // the same again
	ask("b", "b2", 41, false) // b1 is on its way
	ask("b", "b3", 40, true)
	comes("b", "b1", 60)
	ask("b", "b2", 1, false)
	pace.Store(7)
	if l, want := ask("b", "", 0, true), (protocol.Line{Jobs: 2, Bytes: 100, MaxJobs: 10, MaxBytes: 100, All: 2, Callers: 2, PerSecond: 7}); l != want {
		t.Errorf("line %+v, want %+v", l, want)
	}
	now = now.Add(keepFor + time.Nanosecond) // b3 never came
	ask("b", "b2", 40, true)
	comes("b", "b2", 40)
	for range 2 { // a1 and b1 are moved
		v.count(v.turns.next(), -1)
		v.turns.pop()
	}
	if l, want := ask("b", "b4", 60, true), (protocol.Line{Jobs: 1, Bytes: 40, MaxJobs: 10, MaxBytes: 100, All: 1, Callers: 1, PerSecond: 7}); l != want {
		t.Errorf("line %+v, want %+v", l, want)
	}
	comes("b", "b4", 60)
	if len(v.rooms) > 0 {
		t.Errorf("room is kept for %v, which have come", v.rooms)
	}
}

// The feeder answers with what the streams say, also after another gateway has set
// other limits; and room that nobody came for is given back.
func TestLineIsTold(t *testing.T) {
	g := newRig(t)
	f := g.feeder("g1", func(c *Config) {
		c.Window = func() int { return 0 }
		c.lookInterval = 5 * time.Millisecond
	})
	g.many("a", 3)
	_, at := g.store("b", time.Minute)
	f.knows(t, at)
	ask := func(r protocol.LineRequest) (l protocol.Line) {
		t.Helper()
		request, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var reply *nats.Msg
		eventually(t, "the feeder answers", func() bool {
			reply, err = g.NC.Request(protocol.BacklogLine, request, waitLimit)
			return err == nil
		})
		if err := json.Unmarshal(reply.Data, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := protocol.LineRequest{Subject: protocol.BacklogSubject("a")}
	body := int64(len(`{"caller":"a"}`))
	want := protocol.Line{Jobs: 3, Bytes: 3 * body, MaxJobs: 1000, MaxBytes: bus.DefaultBacklogBytes / 10, All: 4, Callers: 2}
	if l := ask(a); l != want {
		t.Errorf("line %+v, want %+v", l, want)
	}
	if _, err := bus.Ensure(t.Context(), g.NC, bus.Settings{QueueLimit: 1000, BacklogLimit: 4000, BacklogBytes: 4000}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the feeder knows of other limits", func() bool { return ask(a).MaxBytes == 1000 })
	if l := ask(protocol.LineRequest{Subject: a.Subject, Job: "large", Bytes: 1001 - 3*body}); !l.Refused {
		t.Errorf("line %+v has room for more than its share", l)
	}
	if l := ask(protocol.LineRequest{Subject: a.Subject, Job: "large", Bytes: 1000 - 3*body}); l.Refused {
		t.Errorf("line %+v has no room for its share", l)
	}
	if l := ask(a); l.Jobs != 4 || l.Bytes != 1000 {
		t.Errorf("line %+v without what is to come", l)
	}
}

// Jobs that had their turn are counted, whatever came of it.
func TestTurnsAreCounted(t *testing.T) {
	g := newRig(t)
	pace := new(meter)
	g.feeder("g1", func(c *Config) { c.Meter = pace })
	g.many("a", 3)
	g.store("b", -time.Minute) // past its deadline
	g.empty()
	eventually(t, "four turns are counted", func() bool { return pace.Load() == 4 })
}
