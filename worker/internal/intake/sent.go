package intake

import (
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Results are plain messages: one that is sent while the worker, its gateway or
// a NATS server between them loses a connection does not arrive, and a command
// can't be run again for another. So a worker remembers what it sent of late, and
// sends it again when its connection was made anew, or when a gateway says that
// its was. Gateways drop what they have.
const (
	// sentAge, sentCount and sentBytes bound that memory; the newest result is
	// remembered in any case.
	sentAge   = 30 * time.Second
	sentCount = 512
	sentBytes = 8 << 20
	// resendAfter is when results are sent once more after a new connection: a
	// gateway may be connecting too, and who listens to what spreads in a cluster
	// of NATS servers only after that.
	resendAfter = time.Second
)

// sent remembers results. Its methods may be called from any goroutine.
type sent struct {
	mu      sync.Mutex
	results []sentResult // oldest first
	bytes   int
}

type sentResult struct {
	msg *nats.Msg
	at  time.Time
}

func (s *sent) add(m *nats.Msg, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, sentResult{m, now})
	s.bytes += len(m.Data)
	s.forget(now)
}

// forget drops what is over the bounds; it needs the lock.
func (s *sent) forget(now time.Time) {
	drop := 0
	for left := len(s.results); left > 1; left-- {
		oldest := s.results[drop]
		if left <= sentCount && s.bytes <= sentBytes && now.Sub(oldest.at) <= sentAge {
			break
		}
		s.bytes -= len(oldest.msg.Data)
		s.results[drop] = sentResult{} // not kept alive by the array
		drop++
	}
	s.results = s.results[drop:]
}

// under returns the results whose subjects begin with prefix.
func (s *sent) under(prefix string, now time.Time) (msgs []*nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	for _, r := range s.results {
		if strings.HasPrefix(r.msg.Subject, prefix) && now.Sub(r.at) <= sentAge {
			msgs = append(msgs, r.msg)
		}
	}
	return msgs
}

// resend sends again what was sent of late to subjects under a prefix.
func (in *Intake) resend(prefix string) {
	msgs := in.sent.under(prefix, time.Now())
	for _, m := range msgs {
		if err := in.bus.NC.PublishMsg(m); err != nil {
			in.cfg.Log.Warn("send results again", "error", err)
			return // it is cut off again: the next connection does it
		}
	}
	if len(msgs) > 0 {
		in.cfg.Log.Info("results sent again", "results", len(msgs), "to", prefix)
	}
}
