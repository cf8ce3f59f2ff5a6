package server_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The gateway's turns: a flood of one caller's does not delay another's request.
func TestTurns(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	var answered atomic.Int64
	step := make(chan struct{})
	c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-step
			return success(map[string]any{"passed": true, "case_results": []any{}, "error": nil})
		}
	})
	const flood = 90
	done := make(chan struct{}, flood)
	for i := range flood {
		go func() {
			g.with("/evaluate_code", evaluate(fmt.Sprint("flood", i)), "X-API-Key", "flooder")
			answered.Add(1)
			done <- struct{}{}
		}()
	}
	eventually(t, "the flood waits", func() bool { return g.value("gradefleet_jobs_waiting") >= flood-3*4-8 })
	polite := make(chan answer, 1)
	go func() { polite <- g.with("/evaluate_code", evaluate("polite"), "X-API-Key", "polite") }()
	eventually(t, "all are in line", func() bool { return g.value("gradefleet_jobs_waiting") == flood-3*4-8+1 })
	for {
		select {
		case step <- struct{}{}:
			continue
		case a := <-polite:
			a.want(t, 200, "passed")
		case <-time.After(waitLimit):
			t.Fatal("no answer")
		}
		break
	}
	if n := answered.Load(); n > 40 {
		t.Errorf("%d of the flood's %d requests were answered first", n, flood)
	}
	close(step)
	for range flood {
		<-done
	}
}

func TestCallerLimits(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.CallerInflight, cfg.CallerRate, cfg.CallerBurst = 2, 0.5, 3 })
	g := c.gateways[0]
	w := c.worker("w1", mute)
	a, _ := g.asyncWith("/evaluate_code", evaluate("a"), "X-API-Key", "one")
	b, _ := g.asyncWith("/evaluate_code", evaluate("b"), "X-API-Key", "one")
	jobs := []protocol.Job{within(t, "job", w.jobs), within(t, "job", w.jobs)}
	refused := g.with("/evaluate_code", evaluate("c"), "X-API-Key", "one")
	refused.want(t, 429, "2 requests under way")
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for _, j := range jobs {
		w.reply(j, *success(map[string]any{"passed": true, "case_results": []any{}, "error": nil}))
	}
	within(t, "answer", a).want(t, 200, "passed")
	within(t, "answer", b).want(t, 200, "passed")
	g.with("/write_file", write("s", "a", "x"), "X-API-Key", "one").want(t, 200, "success")
	tooFast := g.with("/write_file", write("s", "a", "x"), "X-API-Key", "one")
	tooFast.want(t, 429, "more than 0.5 requests a second")
	if got := tooFast.header.Get("Retry-After"); got != "2" && got != "1" {
		t.Errorf("Retry-After %s, want when there is a token again", got)
	}
	g.with("/write_file", write("s", "a", "x"), "X-API-Key", "two").want(t, 200, "success")
}
