package fleetclient_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
	"github.com/gradefleet/gradefleet/cli/internal/freeport"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, url string) *fleetclient.Client {
	t.Helper()
	c, err := fleetclient.New(fleetclient.Config{URL: url, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const twoAdditions = `{"id":"s","code":"","entry_point":"add","io_cases":[{"input":"a=1, b=2","output":"3"},{"input":"a=1, b=2","output":"4"}]}`

func TestRightAnswers(t *testing.T) {
	c := newClient(t, apitest.New(t, nil).URL+"/")
	ctx := t.Context()
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	e, err := c.Evaluate(ctx, []byte(twoAdditions))
	if err != nil {
		t.Fatal(err)
	}
	if e.Passed == nil || *e.Passed || len(e.Cases) != 2 || !*e.Verdicts()[0] || *e.Verdicts()[1] {
		t.Errorf("got %+v", e)
	}
	if err := c.WriteFile(ctx, "s", "a b/ü&.txt", "naïve\n"); err != nil {
		t.Fatal(err)
	}
	if content, err := c.ReadFile(ctx, "s", "a b/ü&.txt"); err != nil || content != "naïve\n" {
		t.Errorf("read %q, %v", content, err)
	}
	if r, err := c.Run(ctx, "s", "echo hi"); err != nil || r.Stdout != "hi\n" {
		t.Errorf("ran %+v, %v", r, err)
	}
}

func TestEvaluateFaults(t *testing.T) {
	text := func(status int, body string, header ...string) apitest.Fault {
		return func(w http.ResponseWriter, _ apitest.Request) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
			return true
		}
	}
	for name, test := range map[string]struct {
		fault      apitest.Fault
		reason     string
		transient  bool
		unreached  bool
		busy       bool
		retryAfter time.Duration
		says       string
	}{
		"busy":                  {text(429, `{"detail":"queue full"}`, "Retry-After", "3"), "429", true, false, true, 3 * time.Second, "queue full"},
		"busy, no time":         {text(429, ``), "429", true, false, true, 0, "429"},
		"busy for a year":       {text(429, ``, "Retry-After", "31536000"), "429", true, false, true, time.Minute, "429"},
		"not ready":             {text(503, `{"detail":"no workers"}`, "Retry-After", "1"), "503", true, false, false, time.Second, "no workers"},
		"a fault":               {text(500, "Internal Server Error"), "500", false, false, false, 0, "Internal Server Error"},
		"a fault, at length":    {text(500, strings.Repeat("é", 5000)), "500", false, false, false, 0, "é…"},
		"bad request of a list": {text(422, `{"detail":[{"loc":["body"]}]}`), "422", false, false, false, 0, `"loc"`},
		"elsewhere":             {text(307, "", "Location", "http://192.0.2.1/"), "307", false, false, false, 0, "307"},
		"no JSON":               {text(200, "<html>"), "bad answer", false, false, false, 0, "decode evaluate answer"},
		"another shape":         {text(200, `{"passed":"yes"}`), "bad answer", false, false, false, 0, "passed"},
		"reset": {func(w http.ResponseWriter, _ apitest.Request) bool {
			apitest.Reset(w)
			return true
		}, "reset", true, true, false, 0, "evaluate at http://127.0.0.1"},
		"cut short": {text(200, `{"passed":`, "Content-Length", "1000"), "closed", true, true, false, 0, "read evaluate answer"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, apitest.New(t, test.fault).URL)
			_, err := c.Evaluate(t.Context(), []byte(twoAdditions))
			if err == nil {
				t.Fatal("no error")
			}
			if got := fleetclient.Reason(err); got != test.reason {
				t.Errorf("reason %q, want %q (%v)", got, test.reason, err)
			}
			if got := fleetclient.Transient(err); got != test.transient {
				t.Errorf("transient %v, want %v", got, test.transient)
			}
			if got := fleetclient.Unreached(err); got != test.unreached {
				t.Errorf("unreached %v, want %v", got, test.unreached)
			}
			if got := fleetclient.Busy(err); got != test.busy {
				t.Errorf("busy %v, want %v", got, test.busy)
			}
			if got := fleetclient.RetryAfter(err); got != test.retryAfter {
				t.Errorf("retry after %v, want %v", got, test.retryAfter)
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %q says nothing of %q", err, test.says)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	err = newClient(t, "http://"+freeport.Address(ports[0])).Ping(t.Context())
	if !errors.Is(err, syscall.ECONNREFUSED) || fleetclient.Reason(err) != "refused" || !fleetclient.Transient(err) {
		t.Errorf("got %v, reason %q", err, fleetclient.Reason(err))
	}
}

func TestPingTakesAnyStatus(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if err := newClient(t, server.URL).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whoever mistyped an address is told that no gateway is there.
func TestAnotherServersAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, "<html>\n  nothing\n  here</html>")
	}))
	defer server.Close()
	_, err := newClient(t, server.URL).Evaluate(t.Context(), []byte(twoAdditions))
	if want := "evaluate: status 404, which is no answer of a gateway; is the address right? <html> nothing here</html>"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// never answers until the client goes away.
func never(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server
}

func TestTimeout(t *testing.T) {
	c, err := fleetclient.New(fleetclient.Config{URL: never(t).URL, Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Evaluate(t.Context(), []byte(twoAdditions))
	if !errors.Is(err, context.DeadlineExceeded) || fleetclient.Reason(err) != "timeout" || fleetclient.Transient(err) || !fleetclient.Unreached(err) {
		t.Errorf("got %v, reason %q", err, fleetclient.Reason(err))
	}
	if !strings.Contains(err.Error(), "evaluate at") || !strings.Contains(err.Error(), "no answer in 20ms") {
		t.Errorf("the timeout doesn't say of what: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newClient(t, never(t).URL).Evaluate(ctx, []byte(twoAdditions))
	if !errors.Is(err, context.Canceled) || fleetclient.Reason(err) != "cancelled" {
		t.Errorf("got %v", err)
	}
}

func TestIncompleteAnswers(t *testing.T) {
	c := newClient(t, apitest.New(t, func(w http.ResponseWriter, r apitest.Request) bool {
		apitest.Answer(w, 200, map[string]any{"success": false})
		return true
	}).URL)
	if err := c.WriteFile(t.Context(), "s", "a", "x"); fleetclient.Reason(err) != "bad answer" {
		t.Errorf("a write without success: %v", err)
	}
	if _, err := c.ReadFile(t.Context(), "s", "a"); fleetclient.Reason(err) != "bad answer" {
		t.Errorf("a read without content: %v", err)
	}
	e, err := c.Evaluate(t.Context(), []byte(twoAdditions))
	if err != nil || e.Passed != nil || e.Cases != nil {
		t.Errorf("an evaluation without verdicts: %+v, %v", e, err)
	}
}

// What a submission returned is echoed in the answer, whatever it is.
func TestOddEchoesDontMatter(t *testing.T) {
	c := newClient(t, apitest.New(t, func(w http.ResponseWriter, _ apitest.Request) bool {
		io.WriteString(w, `{"passed":true,"case_results":[{"passed":true,"got":{"a":1,"a":"\ud800"},"error":null,"extra":"`+"\xff"+`"}],"later":[1e999]}`)
		return true
	}).URL)
	e, err := c.Evaluate(t.Context(), []byte(twoAdditions))
	if err != nil || len(e.Cases) != 1 || e.Cases[0].Status() != protocol.Passed {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestCaseStatus(t *testing.T) {
	for name, test := range map[string]struct {
		result fleetclient.CaseResult
		want   protocol.CaseStatus
	}{
		"named":        {fleetclient.CaseResult{Passed: new(false), Named: protocol.TimedOut, Error: new("late")}, protocol.TimedOut},
		"passed":       {fleetclient.CaseResult{Passed: new(true)}, protocol.Passed},
		"wrong":        {fleetclient.CaseResult{Passed: new(false)}, protocol.Failed},
		"an exception": {fleetclient.CaseResult{Passed: new(false), Error: new("KeyError")}, protocol.Errored},
		"nothing":      {fleetclient.CaseResult{}, protocol.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.result.Status(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		url    string
		remote bool
		want   string // of the client; empty: refused
		isFar  bool
	}{
		"loopback":               {"http://127.0.0.1:6000", false, "http://127.0.0.1:6000", false},
		"all of 127/8":           {"http://127.1.2.3:6000/", false, "http://127.1.2.3:6000", false},
		"version 6":              {"http://[::1]:6000/api/", false, "http://[::1]:6000/api", false},
		"mapped into version 6":  {"http://[::ffff:127.0.0.1]:6000", false, "http://[::ffff:127.0.0.1]:6000", false},
		"by name":                {"https://LocalHost", false, "https://LocalHost", false},
		"another machine":        {"http://192.0.2.1:6000", false, "", true},
		"another name":           {"http://fleet.example:6000", false, "", true},
		"a name that looks near": {"http://localhost.example", false, "", true},
		"a number that looks so": {"http://127.0.0.1.example", false, "", true},
		"any address":            {"http://0.0.0.0:6000", false, "", true},
		"another, allowed":       {"http://fleet.example:6000/", true, "http://fleet.example:6000", false},
		"no scheme":              {"127.0.0.1:6000", false, "", false},
		"another scheme":         {"ftp://127.0.0.1", false, "", false},
		"no host":                {"http://:6000", false, "", false},
		"empty":                  {"", false, "", false},
		"a user":                 {"http://a:b@127.0.0.1", false, "", false},
		"a query":                {"http://127.0.0.1/?a=1", false, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := fleetclient.New(fleetclient.Config{URL: test.url, AllowRemote: test.remote})
			if got := errors.Is(err, fleetclient.ErrRemote); got != test.isFar {
				t.Errorf("refused as remote: %v (%v)", got, err)
			}
			if (err == nil) != (test.want != "") {
				t.Fatalf("error %v", err)
			}
			if err == nil && c.URL() != test.want {
				t.Errorf("got %q, want %q", c.URL(), test.want)
			}
			if err != nil && strings.Contains(err.Error(), "a:b@") {
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

func TestKeepsConnections(t *testing.T) {
	connections := make(chan net.Conn, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		apitest.Answer(w, 200, apitest.Verdicts(true))
	}))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections <- c
		}
	}
	server.Start()
	defer server.Close()
	c := newClient(t, server.URL)
	for range 20 {
		if _, err := c.Evaluate(t.Context(), []byte(twoAdditions)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(connections); n != 1 {
		t.Errorf("%d connections for one request after the other, want 1", n)
	}
}
