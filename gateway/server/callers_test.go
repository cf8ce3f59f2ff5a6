package server_test

import (
	"strconv"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The gateway's turns: a flood of one caller's does not delay another's request.
func TestTurns(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	step := make(chan struct{})
	c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-step
			return success(map[string]any{"passed": true, "case_results": []any{}, "error": nil})
		}
	})
	const flood, published = 90, 3*4 + 8
	answered := make(chan string, flood+1)
	ask := func(session, caller string) {
		g.with("/evaluate_code", evaluate(session), "X-API-Key", caller).want(t, 200, "passed")
		answered <- session
	}
	for range flood {
		go ask("flood", "flooder")
	}
	eventually(t, "the flood waits", func() bool { return g.value("gradefleet_jobs_waiting") == flood-published })
	go ask("polite", "polite")
	eventually(t, "all are in line", func() bool { return g.value("gradefleet_jobs_waiting") == flood-published+1 })
	// One is answered, and another published in its place, before the next is done.
	for first := 0; ; first++ {
		c.queued(protocol.EvaluateQueue, published)
		step <- struct{}{}
		polite := within(t, "answer", answered) == "polite"
		if !polite && first < 40 {
			continue
		}
		if !polite {
			t.Errorf("more than %d of the flood's %d requests were answered first", first, flood)
		}
		close(step)
		for range flood - first {
			within(t, "answer", answered)
		}
		return
	}
}

func TestCallerLimits(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.CallerInflight, cfg.CallerRate, cfg.CallerBurst = 2, 0.01, 3 })
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
	tooFast.want(t, 429, "more than 0.01 requests a second")
	if got, err := strconv.Atoi(tooFast.header.Get("Retry-After")); err != nil || got < 1 || got > 100 {
		t.Errorf("Retry-After %q, want when there is a token again, within 100 s", tooFast.header.Get("Retry-After"))
	}
	g.with("/write_file", write("s", "a", "x"), "X-API-Key", "two").want(t, 200, "success")
}
