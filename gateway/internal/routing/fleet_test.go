package routing

import (
	"context"
	"fmt"
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
	jobs []dispatch.Job
	// gone workers were seen to be lost.
	gone map[string]bool
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

func (f *fleet) Lifetime(worker string) context.Context {
	if !f.gone[worker] {
		return context.Background()
	}
	ended, end := context.WithCancel(context.Background())
	end()
	return ended
}

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
	f.jobs = append(f.jobs, job)
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
