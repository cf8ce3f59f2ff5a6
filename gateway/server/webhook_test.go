package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/webhook"
	"github.com/gradefleet/gradefleet/gateway/server"
)

func TestWebhook(t *testing.T) {
	type call struct {
		signature, body, sum string
	}
	calls := make(chan call, 10)
	var failures atomic.Int64
	failures.Store(1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failures.Add(-1) >= 0 {
			w.WriteHeader(500)
			return
		}
		body, _ := io.ReadAll(r.Body)
		calls <- call{r.Header.Get("X-Gradefleet-Signature"), string(body), r.Header.Get("X-Gradefleet-Job")}
	}))
	defer receiver.Close()
	set := func(cfg *server.Config) {
		cfg.WebhookHosts, cfg.WebhookSecret, cfg.WebhookPrivate = []string{"127.0.0.1"}, "shh", true
	}
	c := newCluster(t, 2, set)
	w := c.worker("w1", func(w *fakeWorker) { w.noQueue = true })
	g := c.gateways[0]
	g.with("/evaluate_code", evaluate("s"), "Prefer", "respond-async", "X-Webhook-URL", "http://example.org/").want(t, 400, "example.org")
	a := g.with("/evaluate_code", evaluate("s"), "Prefer", "respond-async", "X-Webhook-URL", receiver.URL+"/hook")
	a.want(t, 202, "queued")
	// The gateway that took it is gone when the job ends.
	if err := g.end(); err != nil {
		t.Error(err)
	}
	c.gateways = c.gateways[1:]
	w.leave()
	c.worker("w2", nil)
	got := within(t, "webhook", calls)
	var j job
	if err := json.Unmarshal([]byte(got.body), &j); err != nil || j.State != "done" || j.Status != 200 || "/jobs/"+j.ID != a.header.Get("Location") || got.sum != j.ID {
		t.Errorf("webhook %+v: %v", got, err)
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(got.signature, "t="), ",")
	var seconds int64
	if err := json.Unmarshal([]byte(stamp), &seconds); err != nil || got.signature != webhook.Sign("shh", time.Unix(seconds, 0), []byte(got.body)) {
		t.Errorf("signature %q does not fit: %v", got.signature, err)
	}
	eventually(t, "it is off the stream, told once", func() bool {
		s, err := c.bus.JS.Stream(t.Context(), "HOOKS")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	if len(calls) != 0 || c.gateways[0].value("gradefleet_webhooks_total", "outcome", "failed") != 1 {
		t.Errorf("%d more webhooks, %v failed; want none, 1", len(calls), c.gateways[0].value("gradefleet_webhooks_total", "outcome", "failed"))
	}
}
