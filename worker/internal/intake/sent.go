package intake

import (
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Results are plain messages: one that is sent while the worker, its gateway or
// a NATS server between them loses a connection does not arrive, and a command
// can't be run again for another. So a worker remembers what it sent of late, and
// sends it again when its connection was made anew, or when a gateway asks for it.
// Gateways drop what they have.
const (
	// sentAge, sentCount and sentBytes bound that memory; the newest result is
	// remembered in any case.
	sentAge   = 30 * time.Second
	sentCount = 4096
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

// under returns the results whose subjects begin with prefix, of all jobs or of
// those given.
func (s *sent) under(prefix string, jobs map[string]bool, now time.Time) (msgs []*nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	for _, r := range s.results {
		if strings.HasPrefix(r.msg.Subject, prefix) && (jobs == nil || jobs[protocol.LastToken(r.msg.Subject)]) && now.Sub(r.at) <= sentAge {
			msgs = append(msgs, r.msg)
		}
	}
	return msgs
}

// onResend sends a gateway again what it asks for.
func (in *Intake) onResend(m *nats.Msg) {
	var jobs map[string]bool // nil: all
	if len(m.Data) > 0 {
		jobs = map[string]bool{}
		for id := range strings.Lines(string(m.Data)) {
			jobs[strings.TrimSuffix(id, "\n")] = true
		}
	}
	in.resend(protocol.ReplyPrefix(protocol.LastToken(m.Subject)), jobs)
}

// resend sends again what was sent of late to subjects under a prefix, of all jobs
// or of those given.
func (in *Intake) resend(prefix string, jobs map[string]bool) {
	msgs := in.sent.under(prefix, jobs, time.Now())
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
