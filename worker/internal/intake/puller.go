package intake

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// puller asks one consumer for messages and knows how many it asked for that
// have not come. It speaks JetStream's pull protocol itself, over one standing
// subscription: a pull is then one publish, without a subscription of its own.
// Protocol: NATS architecture decision 13, "pull subscribe internals".
type puller struct {
	nc      *nats.Conn
	subject string
	inbox   string
	sub     *nats.Subscription
	// probes gets the answers to probes; nil if there are none.
	probes *nats.Subscription
	// asked is how many messages pulls are waiting for.
	asked int
	// heard is when the server last gave a sign of a pull's life.
	heard time.Time
	// pulled is when the last pull was sent. probing says that a probe was sent
	// since, settled that its answer has come: all pulls found the queue empty.
	pulled           time.Time
	probing, settled bool
}

const (
	// pullExpires is how long a pull waits at the server.
	pullExpires = 30 * time.Second
	// pullHeartbeat is how often the server says that a pull still waits.
	pullHeartbeat = 2 * time.Second
	// pullLost is how long the server may say nothing before the pulls count as
	// lost with it.
	pullLost = 2*pullHeartbeat + pullHeartbeat/2
	// settleTime is after how long a pull that has brought nothing counts as one
	// of an empty queue, if no probe is to tell. It is also how often it is looked
	// whether that is so.
	settleTime = 5 * time.Millisecond
	// probeLost is after how long that counts although a probe has no answer: it
	// may be lost with the consumer's leader. A busy server takes its time.
	probeLost = time.Second
)

// newPuller subscribes; messages go to ch.
func newPuller(nc *nats.Conn, consumer string, ch chan *nats.Msg, probed bool) (*puller, error) {
	p := &puller{
		nc:      nc,
		subject: "$JS.API.CONSUMER.MSG.NEXT." + protocol.JobsStream + "." + consumer,
		inbox:   nats.NewInbox(),
	}
	var err error
	if p.sub, err = nc.ChanSubscribe(p.inbox, ch); err != nil {
		return nil, fmt.Errorf("subscribe to pulled jobs: %w", err)
	}
	if probed {
		if p.probes, err = nc.ChanSubscribe(nats.NewInbox(), ch); err != nil {
			return nil, fmt.Errorf("subscribe to probes: %w", err)
		}
	}
	return p, nil
}

// want sees to it that n messages are asked for, no less; what was asked for
// can't be taken back.
func (p *puller) want(n int, now time.Time) error {
	n -= p.asked
	if n <= 0 {
		return nil
	}
	if err := p.pull(p.inbox, pullRequest{Batch: n, Expires: pullExpires, Heartbeat: pullHeartbeat}); err != nil {
		return err
	}
	p.asked += n
	p.heard, p.pulled, p.probing, p.settled = now, now, false, false
	return nil
}

// pullRequest is JetStream's.
type pullRequest struct {
	Batch     int           `json:"batch"`
	Expires   time.Duration `json:"expires,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
}

func (p *puller) pull(inbox string, r pullRequest) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode pull: %w", err)
	}
	if err := p.nc.PublishRequest(p.subject, inbox, body); err != nil {
		return fmt.Errorf("pull jobs: %w", err)
	}
	return nil
}

// quiet reports whether the queue is known to be empty: pulls wait for messages
// and nothing has come. If that isn't known yet it asks: the server answers
// pulls of a consumer in their order, and a pull that doesn't wait at once.
func (p *puller) quiet(now time.Time) (bool, error) {
	waited := now.Sub(p.pulled)
	switch {
	case p.asked == 0:
		return false, nil
	case p.settled:
		return true, nil
	case p.probing:
		return waited > probeLost, nil
	case waited > settleTime:
		return true, nil
	}
	p.probing = true
	return false, p.pull(p.probes.Subject, pullRequest{Batch: 1, NoWait: true})
}

// take accounts for a message. It returns true for a job and false for one of
// the server's own messages.
func (p *puller) take(m *nats.Msg, now time.Time) bool {
	p.heard = now
	status := m.Header.Get("Status")
	if p.probes != nil && m.Sub == p.probes {
		p.settled = p.settled || p.probing && status != ""
		return status == ""
	}
	switch status {
	case "":
		p.asked = max(p.asked-1, 0)
		return true
	case "100": // idle heartbeat
		return false
	}
	// 404, 408, 409 and the like: a pull is over. It says how much of it was
	// still open; where it doesn't, the consumer is gone or has moved.
	if open, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil {
		p.asked = max(p.asked-open, 0)
	} else {
		p.asked = 0
	}
	return false
}

// check forgets pulls that the server gave no sign of for too long.
func (p *puller) check(now time.Time) {
	if p.asked > 0 && now.Sub(p.heard) > pullLost {
		p.asked = 0
	}
}
