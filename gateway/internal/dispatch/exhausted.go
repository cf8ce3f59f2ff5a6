package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// advisoryGroup makes one gateway of all take each advisory.
const advisoryGroup = "gradefleet-gateways"

// exhaustedTimeout bounds the handling of one advisory.
const exhaustedTimeout = 10 * time.Second

// advisory is the part we need of JetStream's
// io.nats.jetstream.advisory.v1.max_deliver.
type advisory struct {
	Sequence   uint64 `json:"stream_seq"`
	Deliveries int    `json:"deliveries"`
}

// onExhausted answers and deletes a job that JetStream will not deliver again:
// a work queue would keep it, unanswered. The job may be another gateway's.
func (d *Dispatcher) onExhausted(m *nats.Msg) {
	if !d.enter(nil) {
		return
	}
	defer d.busy.Done()
	var a advisory
	if err := json.Unmarshal(m.Data, &a); err != nil {
		d.cfg.Log.Warn("advisory can't be read", "subject", m.Subject, "error", err)
		return
	}
	if err := d.giveUp(a); err != nil {
		d.cfg.Log.Error("job that was delivered too often is not answered", "sequence", a.Sequence, "error", err)
	}
}

func (d *Dispatcher) giveUp(a advisory) error {
	ctx, cancel := context.WithTimeout(context.Background(), exhaustedTimeout)
	defer cancel()
	msg, err := d.cfg.Jobs.GetMsg(ctx, a.Sequence)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	// A job that can't be parsed may still say where its answer goes.
	job, parseErr := protocol.ParseJob(msg.Header, nil)
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
