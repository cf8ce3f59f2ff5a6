package dispatch

import (
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// deafen makes nobody listen to what JetStream says of jobs it gave up; Close wants
// something to end.
func (g *rig) deafen(t *testing.T) {
	t.Helper()
	deaf, err := g.NC.SubscribeSync("deaf")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.advisories.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	g.advisories = deaf
}

// A job that JetStream gave up is answered even if nobody heard it say so.
func TestStrayJob(t *testing.T) {
	g := startWith(t, func(c *Config) { c.strayInterval = 20 * time.Millisecond })
	g.deafen(t)
	out := g.do(t.Context(), t, Job{Kind: protocol.Evaluate, Session: "s1"})
	lost := g.stored(t, 1, protocol.EvaluateQueue)
	consumer, err := g.EvaluateConsumer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Others come and are done, as in life.
	for deadline := time.Now().Add(waitLimit); ; {
		if time.Now().After(deadline) {
			t.Fatal("never answered")
		}
		if _, err := g.JS.Publish(t.Context(), protocol.EvaluateQueue, nil); err != nil && !bus.QueueFull(err) {
			t.Fatal(err)
		}
		for msg := g.pull(t, consumer); msg != nil; msg = g.pull(t, consumer) {
			if msg.Header.Get(protocol.HeaderJob) != lost.Header.Get(protocol.HeaderJob) {
				msg.Ack()
				break
			}
			if meta, err := msg.Metadata(); err == nil && meta.NumDelivered > 1 {
				g.tell(t, msg, 1)
			}
			msg.Nak()
		}
		select {
		case o := <-out:
			if o.err != nil || o.Status != 500 {
				t.Errorf("outcome %+v, want a 500", o)
			}
			for msg := g.pull(t, consumer); msg != nil; msg = g.pull(t, consumer) {
				msg.Ack() // the last of the others
			}
			g.stored(t, 0, protocol.EvaluateQueue)
			return
		default:
		}
	}
}

// The same for the queue of one worker, in which nothing else comes for long.
func TestStrayJobOfOneWorker(t *testing.T) {
	g := startWith(t, func(c *Config) { c.strayInterval = 20 * time.Millisecond })
	g.deafen(t)
	consumer, err := g.WorkerConsumer(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	out := g.do(t.Context(), t, Job{Kind: protocol.Evaluate, Session: "s1", Worker: "w1", Epoch: 1})
	g.stored(t, 1, protocol.WorkerQueue("w1"))
	for deadline := time.Now().Add(waitLimit); ; {
		if time.Now().After(deadline) {
			t.Fatal("never answered")
		}
		if msg := g.pull(t, consumer); msg != nil {
			if meta, err := msg.Metadata(); err == nil && meta.NumDelivered > 1 {
				g.tell(t, msg, 1)
			}
			msg.Nak()
		}
		select {
		case o := <-out:
			if o.err != nil || o.Status != 500 {
				t.Errorf("outcome %+v, want a 500", o)
			}
			g.stored(t, 0, protocol.WorkerQueue("w1"))
			return
		default:
		}
	}
}
