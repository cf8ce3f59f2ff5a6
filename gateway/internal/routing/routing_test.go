package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/gateway/internal/placement"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// fleet stands in for everything a router uses: a bucket, what is remembered of
// it, workers, and what they answer.
type fleet struct {
	bucket map[string]ownership.Owner
	cache  map[string]ownership.Owner
	live   map[string]bool // false: there is a record of it, and no heartbeat
	mute   map[string]bool // live by its heartbeat, and nobody answers
	dying  map[string]bool // lost while it is asked
	broken error           // of the bucket
	// durable workers store their sessions.
	durable map[string]bool
	// strand loses a worker when it gets a job; withdrawn says that the job
	// had not begun.
	strand    map[string]bool
	withdrawn bool
	sent      []string
	// answer says what a worker answers; nil: 200.
	answer func(worker string, epoch uint64) int
	// anew workers say that what they are sent again was not done before.
	anew bool
	ops  []protocol.SessionOp
}

func newFleet(live ...string) *fleet {
	f := &fleet{bucket: map[string]ownership.Owner{}, cache: map[string]ownership.Owner{}, live: map[string]bool{}, mute: map[string]bool{}, dying: map[string]bool{}, durable: map[string]bool{}, strand: map[string]bool{}}
	for _, w := range live {
		f.live[w] = true
	}
	return f
}

func (f *fleet) own(session, worker string, epoch uint64) ownership.Owner {
	o := ownership.Owner{SessionRecord: protocol.SessionRecord{Worker: worker, Epoch: epoch}, Revision: uint64(len(f.bucket)) + 10*epoch}
	f.bucket[session] = o
	return o
}

func (f *fleet) Recall(ctx context.Context, session string) (ownership.Owner, error) {
	if o, ok := f.cache[session]; ok {
		o.Cached = true
		return o, nil
	}
	return f.Lookup(ctx, session)
}

func (f *fleet) Lookup(_ context.Context, session string) (ownership.Owner, error) {
	if f.broken != nil {
		return ownership.Owner{}, f.broken
	}
	if o, ok := f.bucket[session]; ok {
		return o, nil
	}
	return ownership.Owner{}, ownership.ErrNone
}

func (f *fleet) Create(ctx context.Context, session, worker string, durable bool) (ownership.Owner, bool, error) {
	if _, ok := f.bucket[session]; ok {
		o, err := f.Lookup(ctx, session)
		return o, false, err
	}
	o := f.own(session, worker, 1)
	o.Durable = durable
	f.bucket[session] = o
	return o, true, nil
}

func (f *fleet) Replace(_ context.Context, session string, old ownership.Owner, worker string, lost protocol.Former) (ownership.Owner, error) {
	if f.bucket[session].Revision != old.Revision {
		return ownership.Owner{}, ownership.ErrLost
	}
	o := f.own(session, worker, old.Epoch+1)
	o.Durable = old.Durable
	o.Former = []protocol.Former{lost}
	f.bucket[session] = o
	return o, nil
}

func (f *fleet) Remove(_ context.Context, session string, o ownership.Owner) error {
	if f.bucket[session].Revision != o.Revision {
		return ownership.ErrLost
	}
	delete(f.bucket, session)
	return nil
}

func (f *fleet) Snapshot() []placement.Worker {
	var all []placement.Worker
	for w, live := range f.live {
		if live {
			all = append(all, placement.Worker{Heartbeat: &protocol.Heartbeat{Worker: w, Slots: map[string]int{"c": 2}[w] + 1, Durable: f.durable[w]}, Seen: time.Now()})
		}
	}
	return all
}

func (f *fleet) Live(worker string) bool    { return f.live[worker] }
func (f *fleet) Durable(worker string) bool { return f.live[worker] && f.durable[worker] }

func (f *fleet) Instance(string) string { return "" }

func (f *fleet) Lifetime(string) context.Context { return context.Background() }

func (f *fleet) AwaitLost(_ context.Context, worker string) error {
	if f.mute[worker] { // its last heartbeat is too long ago now
		f.live[worker] = false
	}
	return nil
}

func (f *fleet) Lost(worker string) protocol.Former {
	return protocol.Former{Worker: worker, Seen: uint64(len(worker))}
}

func (f *fleet) Withdraw(context.Context, *dispatch.Stranded) (bool, error) { return f.withdrawn, nil }

func (f *fleet) Any() bool     { return len(f.Snapshot()) > 0 }
func (f *fleet) Placed(string) {}

func (f *fleet) Do(_ context.Context, job dispatch.Job) (protocol.Result, error) {
	if job.Movable && f.strand[job.Worker] {
		f.sent = append(f.sent, fmt.Sprintf("%s %s/%d stranded", job.Kind, job.Worker, job.Epoch))
		f.live[job.Worker] = false
		return protocol.Result{}, fault.Unavailable("lost", &dispatch.Stranded{Worker: job.Worker})
	}
	return f.send(string(job.Kind), job.Worker, job.Epoch)
}

func (f *fleet) Ask(_ context.Context, worker, op string, o protocol.SessionOp) (protocol.Result, error) {
	f.ops = append(f.ops, o)
	if f.mute[worker] {
		f.sent = append(f.sent, op+" "+worker+" mute")
		return protocol.Result{}, fault.Unavailable("mute", dispatch.ErrNobody)
	}
	if f.dying[worker] {
		f.sent = append(f.sent, op+" "+worker+" dies")
		f.live[worker] = false
		return protocol.Result{}, &fault.Error{Status: 502, Detail: "it may have been done", Cause: errLost}
	}
	if op == protocol.OpFork && (o.NewID == "" || o.NewEpoch != 1 || f.bucket[o.NewID].Worker != worker) {
		return protocol.Result{}, fmt.Errorf("fork to %q of epoch %d without a record", o.NewID, o.NewEpoch)
	}
	res, err := f.send(op, worker, o.Epoch)
	res.Anew = f.anew && res.Status != 200 && !o.First.IsZero()
	return res, err
}

func (f *fleet) send(what, worker string, epoch uint64) (protocol.Result, error) {
	f.sent = append(f.sent, fmt.Sprintf("%s %s/%d", what, worker, epoch))
	status := 200
	if f.answer != nil {
		status = f.answer(worker, epoch)
	}
	return protocol.Result{Status: status, Worker: worker}, nil
}

// durable lets all workers store, c among them, which has the most room.
func durable(setup func(*fleet)) func(*fleet) {
	return func(f *fleet) {
		f.live["c"] = true
		for w := range f.live {
			f.durable[w] = true
		}
		setup(f)
	}
}

func (f *fleet) ownDurable(session, worker string, epoch uint64) {
	o := f.own(session, worker, epoch)
	o.Durable = true
	f.bucket[session] = o
}

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
