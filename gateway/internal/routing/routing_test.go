package routing

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestRouting(t *testing.T) {
	type call func(*Router, context.Context, Request) (protocol.Result, error)
	stale := func(_ string, epoch uint64) int { // only epoch 2 is right
		if epoch != 2 {
			return 421
		}
		return 200
	}
	always421 := func(string, uint64) int { return 421 }
	for _, c := range []struct {
		name   string
		setup  func(*fleet)
		call   call
		sent   string
		status int
		detail string
	}{
		{"evaluate without an owner", nil, (*Router).Evaluate, "evaluate /0", 200, ""},
		{"evaluate with an owner", func(f *fleet) { f.own("s", "b", 3) }, (*Router).Evaluate, "evaluate b/3", 200, ""},
		{"evaluate without workers", func(f *fleet) { clear(f.live) }, (*Router).Evaluate, "", 503, "No worker"},
		{"evaluate with an owner that is not there", func(f *fleet) { f.own("s", "dead", 1) }, (*Router).Evaluate, "", 503, "Worker dead"},
		{"evaluate with a broken bucket", func(f *fleet) { f.broken = errors.New("boom") }, (*Router).Evaluate, "", 503, "looked up"},
		{"run without an owner", nil, (*Router).Run, "", 400, "Session does not exist"},
		{"run without an owner or workers", func(f *fleet) { clear(f.live) }, (*Router).Run, "", 400, "Session does not exist"},
		{"run with an owner", func(f *fleet) { f.own("s", "a", 1) }, (*Router).Run, "run a/1", 200, ""},
		{"run, remembered owner is stale", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = stale
		}, (*Router).Run, "run a/1, run b/2", 200, ""},
		{"run, remembered owner is gone, another took over", func(f *fleet) {
			f.cache["s"] = f.own("s", "dead", 1)
			f.own("s", "b", 2)
		}, (*Router).Run, "run b/2", 200, ""},
		{"run, session removed meanwhile", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			delete(f.bucket, "s")
			f.answer = always421
		}, (*Router).Run, "run a/1", 400, "Session does not exist"},
		{"run, nobody says it is theirs", func(f *fleet) { f.own("s", "a", 1); f.answer = always421 },
			(*Router).Run, "run a/1, run a/1", 503, "moving"},
		{"run, the remembered owner knows no such session, another has it", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = func(worker string, _ uint64) int {
				if worker == "a" {
					return 400
				}
				return 200
			}
		}, (*Router).Run, "run a/1, run b/2", 200, ""},
		{"run, refused by the remembered owner, which is right", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.answer = func(string, uint64) int { return 400 }
		}, (*Router).Run, "run a/1", 400, ""},
		{"evaluate never trusts what is remembered", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = stale
		}, (*Router).Evaluate, "evaluate b/2", 200, ""},
		{"evaluate, the owner changes under way", func(f *fleet) {
			f.own("s", "a", 1)
			f.answer = func(worker string, epoch uint64) int {
				if epoch == 1 {
					f.own("s", "b", 2)
				}
				return stale(worker, epoch)
			}
		}, (*Router).Evaluate, "evaluate a/1, evaluate b/2", 200, ""},

		{"read without an owner", nil, (*Router).Read, "", 404, "File does not exist"},
		{"delete without an owner", nil, (*Router).Delete, "", 404, "File does not exist"},
		{"rename without an owner", nil, (*Router).Rename, "", 404, "Old file does not exist"},
		{"read with an owner", func(f *fleet) { f.own("s", "a", 4) }, (*Router).Read, "read a/4", 200, ""},
		{"delete with an owner", func(f *fleet) { f.own("s", "a", 4) }, (*Router).Delete, "delete a/4", 200, ""},
		{"rename with an owner", func(f *fleet) { f.own("s", "a", 4) }, (*Router).Rename, "rename a/4", 200, ""},
		{"read, remembered owner is stale", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = stale
		}, (*Router).Read, "read a/1, read b/2", 200, ""},
		{"read, the remembered owner knows no such file, another has it", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = func(worker string, _ uint64) int {
				if worker == "a" {
					return 404
				}
				return 200
			}
		}, (*Router).Read, "read a/1, read b/2", 200, ""},
		{"read, no such file", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.answer = func(string, uint64) int { return 404 }
		}, (*Router).Read, "read a/1", 404, ""},
		{"read, owner is not there", func(f *fleet) { f.own("s", "dead", 1) }, (*Router).Read, "", 503, "Worker dead"},
		{"read, owner is mute", func(f *fleet) { f.own("s", "a", 1); f.mute["a"] = true }, (*Router).Read, "read a mute", 503, "mute"},

		{"write to a new session", func(f *fleet) { delete(f.live, "b") }, (*Router).Write, "write a/1", 200, ""},
		{"write with an owner", func(f *fleet) { f.own("s", "b", 5) }, (*Router).Write, "write b/5", 200, ""},
		{"write without workers", func(f *fleet) { clear(f.live) }, (*Router).Write, "", 503, "No worker"},
		{"write, owner is not there", func(f *fleet) { f.own("s", "dead", 1) }, (*Router).Write, "", 503, "Worker dead"},
		{"write, owner is mute", func(f *fleet) { f.own("s", "a", 1); f.mute["a"] = true }, (*Router).Write, "write a mute", 503, "mute"},
		{"write to a new session, the only worker is mute", func(f *fleet) { delete(f.live, "b"); f.mute["a"] = true },
			(*Router).Write, "write a mute", 503, "No worker"},
		{"write never trusts what is remembered", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = stale
		}, (*Router).Write, "write b/2", 200, ""},
		{"write, session removed under way", func(f *fleet) {
			delete(f.live, "b")
			f.own("s", "a", 9)
			f.answer = func(_ string, epoch uint64) int {
				if epoch == 9 {
					delete(f.bucket, "s")
					return 421
				}
				return 200
			}
		}, (*Router).Write, "write a/9, write a/1", 200, ""},

		// Durable sessions: fleets of a, b and c, which all store.
		{"durable, read, owner is lost", durable(func(f *fleet) { f.ownDurable("s", "dead", 3) }), (*Router).Read, "read c/4", 200, ""},
		{"durable, write, owner is lost", durable(func(f *fleet) { f.ownDurable("s", "dead", 3) }), (*Router).Write, "write c/4", 200, ""},
		{"durable, run, owner is lost", durable(func(f *fleet) { f.ownDurable("s", "dead", 3) }), (*Router).Run, "run c/4", 200, ""},
		{"durable, evaluate, owner is lost", durable(func(f *fleet) { f.ownDurable("s", "dead", 3) }), (*Router).Evaluate, "evaluate c/4", 200, ""},
		{"durable, fork, owner is lost", durable(func(f *fleet) { f.ownDurable("s", "dead", 3) }), (*Router).Fork, "fork c/4", 200, ""},
		{"durable, delete, owner is mute and then lost", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.mute["a"] = true }),
			(*Router).Delete, "delete a mute, delete c/2", 200, ""},
		{"durable, write, owner is lost while it is asked", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.dying["a"] = true }),
			(*Router).Write, "write a dies, write c/2", 200, ""},
		{"durable, write, owner is lost while it is asked, and the next refuses", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.dying["a"] = true
			f.answer = func(string, uint64) int { return 503 }
		}), (*Router).Write, "write a dies, write c/2", 502, "may have been done"},
		{"durable, write, owner is lost while it is asked, and there is no other", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.dying["a"], f.live["b"], f.live["c"] = true, false, false
		}), (*Router).Write, "write a dies", 502, "may have been done"},
		{"durable, delete, owner is lost while it is asked", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.dying["a"] = true }),
			(*Router).Delete, "delete a dies, delete c/2", 200, ""},
		{"durable, rename, owner is lost while it is asked", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.dying["a"] = true }),
			(*Router).Rename, "rename a dies, rename c/2", 200, ""},
		{"durable, delete, owner is lost while it is asked, and did not do it", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.dying["a"], f.anew = true, true
			f.answer = func(string, uint64) int { return 404 }
		}), (*Router).Delete, "delete a dies, delete c/2", 404, ""},
		{"durable, delete, owner is lost while it is asked, and the next knows of no ids", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.dying["a"] = true
			f.answer = func(string, uint64) int { return 404 }
		}), (*Router).Delete, "delete a dies, delete c/2", 502, "may have been done"},
		{"durable, write, owner is lost while it is asked, did not do it, and the next can't", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.dying["a"], f.anew = true, true
			f.answer = func(string, uint64) int { return 503 }
		}), (*Router).Write, "write a dies, write c/2", 503, ""},
		{"durable, write, NATS didn't say whether it is stored", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.answer = func(string, uint64) int { return map[int]int{1: 504}[len(f.sent)] + map[int]int{2: 200}[len(f.sent)] }
		}), (*Router).Write, "write a/1, write a/1", 200, ""},
		{"durable, delete, NATS didn't say whether it is stored, and it is not", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.anew = true
			f.answer = func(string, uint64) int { return map[int]int{1: 504}[len(f.sent)] + map[int]int{2: 404}[len(f.sent)] }
		}), (*Router).Delete, "delete a/1, delete a/1", 404, ""},
		{"durable, delete, NATS didn't say whether it is stored, nor can the session be opened", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.answer = func(string, uint64) int { return map[int]int{1: 504}[len(f.sent)] + map[int]int{2: 503}[len(f.sent)] }
		}), (*Router).Delete, "delete a/1, delete a/1", 504, ""},
		{"durable, write, NATS never says whether it is stored", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.anew = true
			f.answer = func(string, uint64) int { return 504 }
		}), (*Router).Write, "write a/1, write a/1, write a/1, write a/1", 504, ""},
		{"durable, read, and NATS doesn't answer", durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.answer = func(string, uint64) int { return 504 }
		}), (*Router).Read, "read a/1", 504, ""},
		{"not durable, a delete that may have been done", func(f *fleet) {
			f.own("s", "a", 1)
			f.answer = func(string, uint64) int { return 504 }
		}, (*Router).Delete, "delete a/1", 504, ""},
		{"not durable, delete, owner is lost while it is asked", func(f *fleet) { f.own("s", "a", 1); f.dying["a"] = true },
			(*Router).Delete, "delete a dies", 502, "may have been done"},
		{"durable, owner doesn't store any more", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.durable["a"] = false }),
			(*Router).Read, "read c/2", 200, ""},
		{"durable, owner is lost, the others don't store", func(f *fleet) { f.ownDurable("s", "dead", 3) }, (*Router).Read, "", 503, "no other worker that stores"},
		{"durable, evaluate in the queue of a lost worker", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.strand["a"] = true }),
			(*Router).Evaluate, "evaluate a/1 stranded, evaluate c/2", 200, ""},
		{"durable, run in the queue of a lost worker", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.strand["a"] = true; f.withdrawn = true }),
			(*Router).Run, "run a/1 stranded, run c/2", 200, ""},
		{"durable, run that had begun before the new owner was recorded", durable(func(f *fleet) { f.ownDurable("s", "a", 1); f.strand["a"] = true }),
			(*Router).Run, "run a/1 stranded", 502, "may have run"},
		{"not durable, run in the queue of a lost worker", func(f *fleet) { f.own("s", "a", 1); f.strand["a"] = true; f.withdrawn = true },
			(*Router).Run, "run a/1", 200, ""},

		{"fork without an owner", nil, (*Router).Fork, "", 404, "Session to fork not found"},
		{"fork", func(f *fleet) { f.own("s", "a", 2) }, (*Router).Fork, "fork a/2", 200, ""},
		{"fork, remembered owner is stale", func(f *fleet) {
			f.cache["s"] = f.own("s", "a", 1)
			f.own("s", "b", 2)
			f.answer = stale
		}, (*Router).Fork, "fork a/1, fork b/2", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet("a", "b")
			if c.setup != nil {
				c.setup(f)
			}
			r := New(Config{
				Dispatcher: f, Sessions: f, Workers: f,
				JobDeadline: time.Minute, FileDeadline: time.Minute, Log: slog.New(slog.DiscardHandler),
			})
			res, err := c.call(r, t.Context(), Request{ID: "r", Session: "s"})
			if sent := strings.Join(f.sent, ", "); sent != c.sent {
				t.Errorf("sent %q, want %q", sent, c.sent)
			}
			if err == nil {
				if res.Status != c.status {
					t.Errorf("status %d, want %d", res.Status, c.status)
				}
				return
			}
			if e := fault.Of(err); e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("fault %v, want a %d with %q", e, c.status, c.detail)
			}
		})
	}
}

// A change has one id however often it is sent, and no other has it; what was not
// done for certain is not said to have been sent before.
func TestChangeHasOneID(t *testing.T) {
	seen := map[string]bool{"": true}
	for name, call := range map[string]func(*Router, context.Context, Request) (protocol.Result, error){
		"write": (*Router).Write, "delete": (*Router).Delete, "rename": (*Router).Rename,
	} {
		f := newFleet("a", "b", "c")
		durable(func(f *fleet) {
			f.ownDurable("s", "a", 1)
			f.cache["s"] = f.bucket["s"]
			f.dying["c"] = true
			f.answer = func(worker string, _ uint64) int {
				if worker == "a" {
					f.ownDurable("s", "c", 2)
					f.live["a"] = false
					return 421
				}
				return 200
			}
		})(f)
		r := New(Config{Dispatcher: f, Sessions: f, Workers: f, FileDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
		before := time.Now()
		res, err := call(r, t.Context(), Request{Session: "s"})
		if err != nil || res.Status != 200 || len(f.ops) != 3 {
			t.Fatalf("%s: %+v, %v after %q", name, res, err, f.sent)
		}
		id := f.ops[0].ID
		if seen[id] {
			t.Errorf("%s has the id %q, which is none or another's", name, id)
		}
		seen[id] = true
		for i, o := range f.ops {
			if o.ID != id || o.First.IsZero() != (i < 2) {
				t.Errorf("%s, sending %d has id %q, first sent %v; the first had %q", name, i, o.ID, o.First, id)
			}
		}
		if first := f.ops[2].First; first.Before(before) || first.After(time.Now()) {
			t.Errorf("%s was first sent at %v", name, first)
		}
	}
}

// A worker whose heartbeat is late is not lost, nor are the jobs that it has.
func TestLateHeartbeatIsNoLoss(t *testing.T) {
	f := newFleet("a")
	f.own("s", "a", 1)
	r := New(Config{Dispatcher: f, Sessions: f, Workers: f, JobDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if _, err := r.Run(t.Context(), Request{Session: "s"}); err != nil {
		t.Fatal(err)
	}
	f.live["a"] = false
	if f.jobs[0].Lost() {
		t.Error("lost since its heartbeat is late")
	}
	f.gone = map[string]bool{"a": true}
	if !f.jobs[0].Lost() {
		t.Error("not lost though it was seen to be")
	}
}

// The worker that was chosen died a moment ago: another takes the session.
func TestNewSessionIsPlacedElsewhere(t *testing.T) {
	f := newFleet("a", "b")
	r := New(Config{Dispatcher: f, Sessions: f, Workers: f, FileDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
	first, _ := placement.Choose(f.Snapshot(), "s", time.Now())
	f.mute[first] = true
	res, err := r.Write(t.Context(), Request{Session: "s"})
	if err != nil || res.Status != 200 || res.Worker == first {
		t.Fatalf("write: %+v, %v; want another worker than %s", res, err, first)
	}
	if o := f.bucket["s"]; o.Worker != res.Worker || o.Epoch != 2 || len(o.Former) != 1 || o.Former[0] != f.Lost(first) {
		t.Errorf("record %+v, want %s in epoch 2, and before it %+v", o, res.Worker, f.Lost(first))
	}
}

// Who takes over must be told what is known of the owner before.
func TestTakeOverNamesTheFormerOwner(t *testing.T) {
	f := newFleet("a")
	durable(func(f *fleet) { f.ownDurable("s", "dead", 3) })(f)
	r := New(Config{Dispatcher: f, Sessions: f, Workers: f, FileDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if _, err := r.Read(t.Context(), Request{Session: "s"}); err != nil {
		t.Fatal(err)
	}
	if o := f.bucket["s"]; len(o.Former) != 1 || o.Former[0] != f.Lost("dead") {
		t.Errorf("record %+v, want that it was dead's", o)
	}
}

func TestForkLeavesNoRecordBehind(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer int
		mute   bool
		want   int // records left
	}{{"made", 200, false, 2}, {"refused", 404, false, 1}, {"no answer", 0, true, 1}} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet("a")
			f.own("s", "a", 1)
			f.mute["a"] = c.mute
			f.answer = func(string, uint64) int { return c.answer }
			r := New(Config{Dispatcher: f, Sessions: f, Workers: f, FileDeadline: time.Minute, Log: slog.New(slog.DiscardHandler)})
			res, err := r.Fork(t.Context(), Request{Session: "s"})
			if len(f.bucket) != c.want {
				t.Errorf("%d records, want %d (answer %+v, %v)", len(f.bucket), c.want, res, err)
			}
			if c.answer == 200 && !strings.Contains(string(res.Body), `"new_id"`) {
				t.Errorf("body %s, want the new id", res.Body)
			}
		})
	}
}
