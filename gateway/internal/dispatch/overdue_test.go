package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A result that was lost between two NATS servers, unnoticed by worker and gateway,
// is asked for.
func TestOverdueResultIsAskedFor(t *testing.T) {
	for _, kind := range []protocol.Kind{protocol.Evaluate, protocol.Run} {
		t.Run(string(kind), func(t *testing.T) {
			g := startWith(t, func(c *Config) { c.overdueInterval = 30 * time.Millisecond })
			asked, err := g.NC.SubscribeSync(protocol.ResendSubject("g1"))
			if err != nil {
				t.Fatal(err)
			}
			out := g.do(t.Context(), t, Job{Kind: kind, Worker: "w1"})
			msg := g.stored(t, 1, protocol.WorkerQueue("w1"))
			for range 3 { // while the job is in its queue, it is only asked for
				m, err := asked.NextMsg(waitLimit)
				if err != nil || string(m.Data) != msg.Header.Get(protocol.HeaderJob) {
					t.Fatalf("asked for %v, %v, want the job", m, err)
				}
			}
			g.reply(t, msg, 200, "")
			if o := <-out; o.err != nil || o.Status != 200 {
				t.Errorf("outcome %+v, want the result", o)
			}
		})
	}
}

// A worker that had no slot put the job at its queue's end: it is there, not lost.
func TestMovedJobIsNotLost(t *testing.T) {
	g := startWith(t, func(c *Config) { c.overdueInterval = 30 * time.Millisecond })
	asked, err := g.NC.SubscribeSync(protocol.ResendSubject("g1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := g.do(ctx, t, Job{Kind: protocol.Evaluate})
	old := g.stored(t, 1, protocol.EvaluateQueue)
	id := old.Header.Get(protocol.HeaderJob)
	tell := func(sequence uint64) {
		t.Helper()
		if err := g.NC.PublishMsg(&nats.Msg{Subject: old.Header.Get(protocol.HeaderReply), Header: protocol.News{Sequence: sequence}.Header(id)}); err != nil {
			t.Fatal(err)
		}
	}
	ack, err := g.JS.PublishMsg(t.Context(), &nats.Msg{Subject: protocol.EvaluateQueue, Header: old.Header, Data: old.Data})
	if err != nil {
		t.Fatal(err)
	}
	tell(ack.Sequence)
	eventually(t, "the gateway knows", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		p := g.pending[id]
		return p != nil && p.sequence.Load() == ack.Sequence
	})
	if err := g.Bus.Jobs.DeleteMsg(t.Context(), old.Sequence); err != nil {
		t.Fatal(err)
	}
	// The gateway asks before it looks, and believes it is gone when it was missed twice.
	before, _, err := asked.Pending() // of those it has asked, it may have looked before it was moved
	if err != nil {
		t.Fatal(err)
	}
	for range before + 4 {
		if _, err := asked.NextMsg(waitLimit); err != nil {
			t.Fatal(err)
		}
		tell(old.Sequence) // of another worker, late
	}
	select {
	case o := <-out:
		t.Fatalf("outcome %+v of a job that is in its queue", o)
	default:
	}
	cancel() // and nobody waits any more
	<-out
	g.stored(t, 0, protocol.EvaluateQueue)
}

// If nobody has it any more, the caller of an evaluate doesn't wait for its
// deadline; a command may run still.
func TestOverdueResultIsLost(t *testing.T) {
	g := startWith(t, func(c *Config) { c.overdueInterval = 30 * time.Millisecond })
	run := g.do(t.Context(), t, Job{Kind: protocol.Run, Worker: "w1"})
	command := g.stored(t, 1, protocol.WorkerQueue("w1"))
	if err := g.Bus.Jobs.DeleteMsg(t.Context(), command.Sequence); err != nil {
		t.Fatal(err)
	}
	out := g.do(t.Context(), t, Job{Kind: protocol.Evaluate})
	msg := g.stored(t, 1, protocol.EvaluateQueue)
	if err := g.Bus.Jobs.DeleteMsg(t.Context(), msg.Sequence); err != nil { // as acknowledged
		t.Fatal(err)
	}
	wantFault(t, (<-out).err, 503, "result was lost")
	select {
	case o := <-run:
		t.Errorf("outcome %+v of a command that may run still", o)
	default:
	}
	g.reply(t, command, 200, "")
	<-run
}
