package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/cli/internal/freeport"
)

func TestOutcome(t *testing.T) {
	lost := errors.New("EOF")
	for _, c := range []struct {
		kind   history.Kind
		status int
		detail string
		err    error
		sent   bool
		want   history.Outcome
	}{
		{kind: history.Write, status: 200, want: history.OK},
		{kind: history.Read, status: 404, want: history.Missing},
		{kind: history.Write, status: 404, want: history.Fault},
		{kind: history.Run, status: 400, detail: "Session does not exist", want: history.Missing},
		{kind: history.Run, status: 400, detail: "something else", want: history.Fault},
		{kind: history.Run, status: 429, want: history.Refused},
		{kind: history.Write, status: 409, want: history.Refused},
		{kind: history.Run, status: 503, detail: "it was not run", want: history.Refused},
		{kind: history.Run, status: 503, detail: "the command may have run", want: history.Unknown},
		{kind: history.Run, status: 502, want: history.Unknown},
		{kind: history.Evaluate, status: 502, want: history.Fault},
		{kind: history.Write, status: 504, want: history.Unknown},
		{kind: history.Import, status: 504, want: history.Unanswered},
		{kind: history.Run, status: 500, detail: "it may have run in part", want: history.Unknown},
		{kind: history.Evaluate, status: 500, detail: "it may have run in part", want: history.Fault},
		{kind: history.Evaluate, status: 500, detail: "The job was given up: it was delivered 3 times", want: history.GivenUp},
		{kind: history.Run, status: 500, detail: "The job was given up: it was delivered 3 times", want: history.Fault},
		{kind: history.Write, status: 500, want: history.Fault},
		{kind: history.Write, err: lost, want: history.Refused},
		{kind: history.Write, err: lost, sent: true, want: history.Unknown},
		{kind: history.Write, err: fmt.Errorf("wait: %w", context.DeadlineExceeded), sent: true, want: history.Unanswered},
	} {
		a := answer{status: c.status, err: c.err, sent: c.sent, body: []byte(`{"detail":"` + c.detail + `"}`)}
		if got := outcome(c.kind, &a); got != c.want {
			t.Errorf("%s %d %q %v (sent %v): %s, want %s", c.kind, c.status, c.detail, c.err, c.sent, got, c.want)
		}
	}
}

// nobody is where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + freeport.Address(ports[0])
}

// Whether a request was sent decides between refused and unknown.
func TestSent(t *testing.T) {
	dropper := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}))
	defer dropper.Close()
	g := NewGateways([]string{nobody(t), dropper.URL})
	defer g.Close()
	r := request{path: "/write_file", body: map[string]any{"id": "s"}}
	if a := g.send(t.Context(), 0, r); a.err == nil || outcome(history.Write, &a) != history.Refused {
		t.Errorf("nobody listens: %+v, want it refused", a)
	}
	if a := g.send(t.Context(), 1, r); a.err == nil || outcome(history.Write, &a) != history.Unknown {
		t.Errorf("dropped after it was sent: %+v, want its fate unknown", a)
	}
}

// A client goes to the other gateway where there is no connection, and only then.
func TestOtherGateway(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return
		}
		fmt.Fprint(w, `{"content":"VERSION = 'v1'\n"}`)
	}))
	defer server.Close()
	g := NewGateways([]string{nobody(t), server.URL})
	defer g.Close()
	h := history.New()
	load := New(Config{Gateways: g, History: h, Retry: time.Minute})
	c := &client{Load: load, rand: rand.New(rand.NewPCG(1, 2))}
	begun := time.Now()
	op, out := c.must(history.Op{Kind: history.Read, Session: "s", Path: "a"}, readRequest("s", "a"), fillRead)
	if out != history.OK || op.Value != "v1" || op.Gateway != 1 {
		t.Errorf("outcome %s of %v", out, op)
	}
	if took := time.Since(begun); took < time.Second {
		t.Errorf("asked again after %v, the server said 1 s", took)
	}
	if failed, retried := load.Failed(); len(failed) != 0 || retried != 1 || asked != 2 {
		t.Errorf("%d failed, %d retried, asked %d times; want 0, 1 and 2", len(failed), retried, asked)
	}
}

func TestVerdicts(t *testing.T) {
	for body, want := range map[string]string{
		`{"passed":true,"case_results":[{"passed":true,"status":"passed"}]}`:                                                "passed",
		`{"passed":false,"case_results":[{"passed":true,"status":"passed"},{"passed":false,"status":"error","error":"x"}]}`: "passed error",
		`{"passed":true,"case_results":[{"passed":false,"status":"failed"}]}`:                                               "contradictory",
		`{"passed":true,"case_results":[{"passed":false,"status":"passed"}]}`:                                               "contradictory",
		`{"passed":true,"case_results":[]}`:                                                                                 "contradictory",
	} {
		g, err := readGraded([]byte(body))
		if err != nil || g.verdicts() != want {
			t.Errorf("%s: %q, %v; want %q", body, g.verdicts(), err, want)
		}
	}
}
