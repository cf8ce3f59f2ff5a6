package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// advisoryGroup makes one gateway of all take each advisory.
const advisoryGroup = "gradefleet-gateways"

const (
	// exhaustedTimeout bounds one attempt to do what an advisory asks for,
	// exhaustedPatience all of them; exhaustedPause is the time between two.
	exhaustedTimeout, exhaustedPatience = 10 * time.Second, time.Minute
	exhaustedPause                      = time.Second
)

// advisory is the part we need of JetStream's
// io.nats.jetstream.advisory.v1.max_deliver.
type advisory struct {
	Sequence   uint64 `json:"stream_seq"`
	Deliveries int    `json:"deliveries"`
}

// onExhausted answers and deletes a job that JetStream will not deliver again:
// a work queue would keep it, unanswered. The job may be another gateway's. This
// gateway alone is told, and only once, often while NATS is in trouble: it tries
// for a while.
func (d *Dispatcher) onExhausted(m *nats.Msg) {
	var a advisory
	if err := json.Unmarshal(m.Data, &a); err != nil {
		d.cfg.Log.Warn("advisory can't be read", "subject", m.Subject, "error", err)
		return
	}
	d.handle(a)
}

// handle does what an advisory asks for, in the background.
func (d *Dispatcher) handle(a advisory) {
	if !d.enter(nil) {
		return
	}
	go func() {
		defer d.busy.Done()
		ctx, cancel := context.WithTimeout(context.Background(), exhaustedPatience)
		defer cancel()
		for {
			err := d.giveUp(ctx, a)
			if err == nil || errors.Is(err, bus.ErrNoMessage) {
				return
			}
			d.cfg.Log.Error("job that was delivered too often is not answered", "sequence", a.Sequence, "error", err)
			select {
			case <-d.closing:
				return
			case <-ctx.Done():
				return
			case <-time.After(exhaustedPause):
			}
		}
	}()
}

func (d *Dispatcher) giveUp(ctx context.Context, a advisory) error {
	ctx, cancel := context.WithTimeout(ctx, exhaustedTimeout)
	defer cancel()
	// Of the leader: a replica may not have it yet, and nobody is told again.
	msg, err := bus.At(ctx, d.cfg.NC, protocol.JobsStream, a.Sequence)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	// A job that can't be parsed may still say where its answer goes.
	job, parseErr := protocol.ParseJob(msg.Header, nil)
	switch {
	case job.Kept && job.ID != "":
		again, err := d.cfg.Requeue(ctx, job.ID)
		if err != nil {
			return fmt.Errorf("look at kept job %s: %w", job.ID, err)
		}
		if again {
			return d.queueAnew(ctx, job, msg)
		}
	case job.Kind == protocol.Run:
		return d.giveBack(ctx, job, a)
	}
	d.cfg.Log.Error("job given up", "job", job.ID, "request_id", job.RequestID, "session", job.Session,
		"deliveries", a.Deliveries, "error", parseErr)
	result := protocol.Result{Job: job.ID, Status: http.StatusInternalServerError, Body: protocol.ErrorBody(fmt.Sprintf(
		"The job was given up: it was delivered %d times, and each time its worker died or gave up while running it", a.Deliveries))}
	switch {
	case job.Kept && job.ID != "":
		if err := d.cfg.Finish(ctx, job.ID, result); err != nil {
			return fmt.Errorf("answer kept job %s: %w", job.ID, err)
		}
	case job.Reply != "":
		reply := &nats.Msg{Subject: job.Reply, Header: nats.Header(result.Header()), Data: result.Body}
		reply.Header.Set(protocol.HeaderGivenUp, "1") // its own gateway may know better
		if err := d.cfg.NC.PublishMsg(reply); err != nil {
			return fmt.Errorf("answer job %s: %w", job.ID, err)
		}
	}
	d.metrics.exhausted.Inc()
	if err := d.cfg.Jobs.DeleteMsg(ctx, a.Sequence); err != nil {
		return fmt.Errorf("delete job %s: %w", job.ID, err)
	}
	return nil
}

// queueAnew puts a kept job at its queue's end that was not begun each time: it was
// delivered where its record couldn't be reached, and that was no try. Its record
// sees to it that it begins once, should both messages be there for a moment.
func (d *Dispatcher) queueAnew(ctx context.Context, job protocol.Job, msg bus.Message) error {
	again := &nats.Msg{Subject: msg.Subject, Header: maps.Clone(msg.Header), Data: msg.Data}
	// Else it would be taken for a duplicate; the same when this is tried again.
	again.Header.Set(jetstream.MsgIDHeader, fmt.Sprint(job.ID, "-after-", msg.Sequence))
	if _, err := d.js.PublishMsg(ctx, again); err != nil {
		return fmt.Errorf("queue job %s anew: %w", job.ID, err)
	}
	d.cfg.Log.Warn("job queued anew, since deliveries of it were lost", "job", job.ID, "request_id", job.RequestID)
	if err := d.cfg.Jobs.DeleteMsg(ctx, msg.Sequence); err != nil {
		return fmt.Errorf("delete job %s: %w", job.ID, err)
	}
	return nil
}

// giveBack gives up a command. A worker takes it out of the stream before it
// begins it, so what can be deleted here was never begun.
func (d *Dispatcher) giveBack(ctx context.Context, job protocol.Job, a advisory) error {
	if err := d.cfg.Jobs.DeleteMsg(ctx, a.Sequence); err != nil {
		return fmt.Errorf("take job %s back: %w", job.ID, err)
	}
	d.metrics.exhausted.Inc()
	result := protocol.Result{Job: job.ID, Status: http.StatusServiceUnavailable}
	reply := &nats.Msg{
		Subject: job.Reply,
		Header:  nats.Header(result.Header()),
		Data: protocol.ErrorBody(fmt.Sprintf(
			"The command was not run: it was delivered %d times, and each time its worker was lost or cut off before it began; ask again", a.Deliveries)),
	}
	if err := d.cfg.NC.PublishMsg(reply); err != nil {
		return fmt.Errorf("answer job %s: %w", job.ID, err)
	}
	return nil
}

// maxQueuedAnew is how often one job is queued anew because its deliveries were
// lost before a worker began it.
const maxQueuedAnew = 2

// errQueueAnew asks for the publication of a job once more.
var errQueueAnew = errors.New("its deliveries were lost")

// news notes what a worker tells of a job.
func (d *Dispatcher) news(id string, n protocol.News) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pending[id]; p != nil {
		p.begun += n.Tries
		p.at(n.Sequence)
	}
}

// queueAgain has a job that is to be given up published anew, unless workers
// began it each time, as far as is known: the first delivery isn't told of.
func (d *Dispatcher) queueAgain(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pending[id]
	if p == nil || p.begun >= protocol.MaxDeliver-1 || p.queuedAnew >= maxQueuedAnew {
		return false
	}
	p.begun = 0
	p.queuedAnew++
	p.sequence.Store(0)
	p.anew <- struct{}{} // has room for all of them
	return true
}
