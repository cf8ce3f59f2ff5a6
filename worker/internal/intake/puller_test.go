package intake

import (
	"testing"
	"time"
)

// A queue is empty when a probe says so, however long that takes; without a probe
// a while without a message will do, and a lost probe is not waited for for ever.
func TestQuiet(t *testing.T) {
	pulled := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		p     puller
		after time.Duration
		want  bool
	}{
		"nothing asked":          {puller{settled: true}, time.Hour, false},
		"a pull that waits":      {puller{asked: 1}, settleTime + 1, true},
		"a probe under way":      {puller{asked: 1, probing: true}, settleTime + 1, false},
		"a probe of a slow one":  {puller{asked: 1, probing: true}, probeLost, false},
		"a probe that is lost":   {puller{asked: 1, probing: true}, probeLost + 1, true},
		"a probe that has found": {puller{asked: 1, probing: true, settled: true}, 0, true},
	} {
		c.p.pulled = pulled
		if got, err := c.p.quiet(pulled.Add(c.after)); got != c.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}
