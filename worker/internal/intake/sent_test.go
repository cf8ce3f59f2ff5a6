package intake

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestSentIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	msg := func(subject string, bytes int) *nats.Msg {
		return &nats.Msg{Subject: subject, Data: make([]byte, bytes)}
	}
	for _, c := range []struct {
		name  string
		fill  func(*sent)
		later time.Duration
		want  int
		jobs  map[string]bool
	}{
		{"all", func(s *sent) { s.add(msg("r.a.1", 1), now); s.add(msg("r.a.2", 1), now) }, sentAge, 2, nil},
		{"of one job", func(s *sent) { s.add(msg("r.a.1", 1), now); s.add(msg("r.a.2", 1), now) }, 0, 1, map[string]bool{"2": true, "3": true}},
		{"too old", func(s *sent) { s.add(msg("r.a.1", 1), now); s.add(msg("r.a.2", 1), now) }, sentAge + 1, 0, nil},
		{"another gateway's", func(s *sent) { s.add(msg("r.b.1", 1), now); s.add(msg("r.a.2", 1), now) }, 0, 1, nil},
		{"too many", func(s *sent) {
			for i := range sentCount + 10 {
				s.add(msg(fmt.Sprint("r.a.", i), 1), now)
			}
		}, 0, sentCount, nil},
		{"too large", func(s *sent) {
			for i := range 10 {
				s.add(msg(fmt.Sprint("r.a.", i), sentBytes/4), now)
			}
		}, 0, 4, nil},
		{"one that is too large", func(s *sent) { s.add(msg("r.a.1", 1), now); s.add(msg("r.a.2", 2*sentBytes), now) }, 0, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s sent
			c.fill(&s)
			if got := s.under("r.a.", c.jobs, now.Add(c.later)); len(got) != c.want {
				t.Errorf("%d remembered, want %d", len(got), c.want)
			}
			bytes := 0
			for _, r := range s.results {
				bytes += len(r.msg.Data)
			}
			if bytes != s.bytes {
				t.Errorf("%d bytes counted, there are %d", s.bytes, bytes)
			}
		})
	}
}
