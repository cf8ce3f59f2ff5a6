package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/gateway/internal/admit"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/shape"
	"github.com/gradefleet/gradefleet/gateway/internal/spectest"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet answers every request with do.
type fleet struct {
	do func(context.Context, routing.Request) (protocol.Result, error)
}

func (f *fleet) Evaluate(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Run(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Read(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Write(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Delete(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Rename(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}
func (f *fleet) Fork(ctx context.Context, r routing.Request) (protocol.Result, error) {
	return f.do(ctx, r)
}

const limit = 64 << 10

func newAPI(t *testing.T, do func(context.Context, routing.Request) (protocol.Result, error)) (http.Handler, *prometheus.Registry, *bytes.Buffer) {
	t.Helper()
	reg, log := prometheus.NewRegistry(), new(bytes.Buffer)
	h, err := New(Config{
		Fleet: &fleet{do}, Workers: func() []protocol.Heartbeat { return nil }, Gate: admit.New(admit.Config{}),
		Queues: func(context.Context) []Queue { return nil }, MaxBody: func() int64 { return limit },
		Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, reg, log
}

func post(h http.Handler, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w
}

const forkBody = `{"id":"s1"}`

func TestAnswersOfTheFleet(t *testing.T) {
	for _, c := range []struct {
		name       string
		result     protocol.Result
		err        error
		status     int
		body       string
		retryAfter string
		logged     string
	}{
		{"success", protocol.Result{Status: 200, Body: []byte(`{"new_id":"x"}`)}, nil, 200, `{"new_id":"x"}`, "", `"session":"s1"`},
		{"refusal of the worker", protocol.Result{Status: 409, Body: []byte(`{"detail":"in use"}`)}, nil, 409, `{"detail":"in use"}`, "", ""},
		{"fault", protocol.Result{}, fault.Unavailable("not now", errors.New("the reason")), 503, `{"detail":"not now"}`, "1", "the reason"},
		{"fault without a retry", protocol.Result{}, fault.Timeout("too late"), 504, `{"detail":"too late"}`, "", "too late"},
		{"error that nobody expected", protocol.Result{}, errors.New("secret of the inside"), 500, `{"detail":"Internal Server Error"}`, "", "secret of the inside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, log := newAPI(t, func(context.Context, routing.Request) (protocol.Result, error) { return c.result, c.err })
			w := post(h, "/fork_session", forkBody)
			if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Retry-After") != c.retryAfter {
				t.Errorf("answer %d %s (Retry-After %q), want %d %s (%q)", w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.body, c.retryAfter)
			}
			if !strings.Contains(log.String(), c.logged) || !strings.Contains(log.String(), w.Header().Get("X-Request-ID")) {
				t.Errorf("log %s, want %q and the request id in it", log, c.logged)
			}
		})
	}
}

func TestPanic(t *testing.T) {
	h, reg, log := newAPI(t, func(context.Context, routing.Request) (protocol.Result, error) { panic("oh no") })
	w := post(h, "/fork_session", forkBody)
	if w.Code != 500 || w.Body.String() != `{"detail":"Internal Server Error"}` {
		t.Errorf("answer %d %s, want a 500 that tells nothing", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "oh no") || !strings.Contains(log.String(), "api_test.go") {
		t.Errorf("log without the panic and its stack: %s", log)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP gradefleet_http_in_flight Requests that are being answered.
# TYPE gradefleet_http_in_flight gauge
gradefleet_http_in_flight 0
# HELP gradefleet_http_requests_total Requests answered, by route (unknown paths are one), method and status; 499 is a caller that went away.
# TYPE gradefleet_http_requests_total counter
gradefleet_http_requests_total{method="POST",route="/fork_session",status="500"} 1
`), "gradefleet_http_in_flight", "gradefleet_http_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestAbortHandlerIsNotSwallowed(t *testing.T) {
	h, _, _ := newAPI(t, func(context.Context, routing.Request) (protocol.Result, error) { panic(http.ErrAbortHandler) })
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("recovered %v, want net/http's own panic", p)
		}
	}()
	post(h, "/fork_session", forkBody)
}

func TestLabelsAreBounded(t *testing.T) {
	h, reg, _ := newAPI(t, nil)
	for _, path := range []string{"/a", "/b", "/run/", "/run/x"} {
		for _, method := range []string{"GET", "BREW", "BAKE"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
		}
	}
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP gradefleet_http_requests_total Requests answered, by route (unknown paths are one), method and status; 499 is a caller that went away.
# TYPE gradefleet_http_requests_total counter
gradefleet_http_requests_total{method="GET",route="unknown",status="404"} 4
gradefleet_http_requests_total{method="other",route="unknown",status="404"} 8
`), "gradefleet_http_requests_total")
	if err != nil {
		t.Error(err)
	}
}

func TestWantsJSON(t *testing.T) {
	for _, c := range []struct {
		accept string
		want   bool
	}{
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"text/html,application/xhtml+xml,*/*;q=0.8", false},
		{"application/json", true},
		{"application/json, text/plain, */*", true},
		{"application/json;q=0.5, text/plain", false},
		{"application/json; q=0.9, */*; q=0.1", true},
		{"application/json;q=0", false},
		{"application/json;q=x", false},
		{"application/*", false},
		{";;;, application/json", true},
	} {
		if got := wantsJSON([]string{c.accept}); got != c.want {
			t.Errorf("Accept %q: %v, want %v", c.accept, got, c.want)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	h, _, _ := newAPI(t, nil)
	for _, c := range []struct {
		name, id string
		taken    bool
	}{
		{"plain", "abc-123", true},
		{"printable", "~!@#$%^&*()_+", true},
		{"longest", strings.Repeat("x", 128), true},
		{"too long", strings.Repeat("x", 129), false},
		{"none", "", false},
		{"a space", "a b", false},
		{"a control character", "a\tb", false},
		{"not ASCII", "ünï", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if c.id != "" {
				r.Header.Set("X-Request-ID", c.id)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Header().Get("X-Request-ID")
			if (got == c.id) != c.taken || got == "" {
				t.Errorf("sent %q, got %q; want it taken: %v", c.id, got, c.taken)
			}
		})
	}
}

// chunked hides a reader's length.
type chunked struct{ io.Reader }

func TestBodies(t *testing.T) {
	fill := func(n int) string { return `{"id":"s1","x":"` + strings.Repeat("a", n-18) + `"}` }
	for _, c := range []struct {
		name   string
		size   int
		status int
	}{{"at the limit", limit, 200}, {"above it", limit + 1, 413}, {"small", 64, 200}} {
		for _, declared := range []bool{true, false} {
			name := c.name + ", chunked"
			if declared {
				name = c.name + ", declared"
			}
			t.Run(name, func(t *testing.T) {
				var seen string
				h, _, _ := newAPI(t, func(_ context.Context, r routing.Request) (protocol.Result, error) {
					seen = string(r.Body)
					return protocol.Result{Status: 200, Body: []byte("{}")}, nil
				})
				body := fill(c.size)
				var from io.Reader = strings.NewReader(body)
				if !declared {
					from = chunked{from}
				}
				r := httptest.NewRequest(http.MethodPost, "/fork_session", from)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != c.status {
					t.Fatalf("status %d %s, want %d", w.Code, w.Body, c.status)
				}
				if c.status == 200 && seen != body {
					t.Errorf("the fleet got %d bytes, want the caller's %d", len(seen), len(body))
				}
				if c.status == 413 && !(strings.Contains(w.Body.String(), "65537") && strings.Contains(w.Body.String(), "65536")) {
					t.Errorf("413 %s, want the size and the limit in it", w.Body)
				}
			})
		}
	}
}

// A body that declares itself too large is refused unread.
func TestDeclaredSizeIsRefusedUnread(t *testing.T) {
	h, _, _ := newAPI(t, nil)
	r := httptest.NewRequest(http.MethodPost, "/run", unreadable{t})
	r.ContentLength = limit + 1
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 413 {
		t.Errorf("status %d, want 413", w.Code)
	}
}

type unreadable struct{ t *testing.T }

func (r unreadable) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, io.EOF
}

func TestBodiesThatEndEarly(t *testing.T) {
	h, reg, _ := newAPI(t, nil)
	r := httptest.NewRequest(http.MethodPost, "/run", chunked{strings.NewReader(`{"id":`)})
	r.ContentLength = 100
	h.ServeHTTP(httptest.NewRecorder(), r)
	if n, err := testutil.GatherAndCount(reg, "gradefleet_http_requests_total"); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP gradefleet_http_requests_total Requests answered, by route (unknown paths are one), method and status; 499 is a caller that went away.
# TYPE gradefleet_http_requests_total counter
gradefleet_http_requests_total{method="POST",route="/run",status="499"} 1
`), "gradefleet_http_requests_total")
	if err != nil {
		t.Error(err)
	}
}

func TestDescription(t *testing.T) {
	spec, err := spectest.Parse(Spec)
	if err != nil {
		t.Fatal(err)
	}
	n, err := spec.Examples()
	if err != nil {
		t.Error(err)
	}
	if n < 30 {
		t.Errorf("%d examples were checked, want them all", n)
	}
	h, _, _ := newAPI(t, nil)
	described := strings.Join(spec.Operations(), "\n")
	var routes []string
	for _, r := range h.(*gin.Engine).Routes() {
		path := strings.Replace(r.Path, ":id", "{id}", 1)
		routes = append(routes, r.Method+" "+path)
		if !strings.Contains("\n"+described+"\n", "\n"+r.Method+" "+path+"\n") {
			t.Errorf("%s %s is served and not described", r.Method, r.Path)
		}
	}
	if len(routes) != len(spec.Operations()) {
		t.Errorf("served: %q; described: %q", routes, spec.Operations())
	}
}

// The description and the check of shapes must agree about bodies.
func TestDescriptionAgreesWithShapes(t *testing.T) {
	spec, err := spectest.Parse(Spec)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string]*shape.Form{
		"POST /evaluate_code": shape.Evaluate, "POST /run": shape.Run, "POST /write_file": shape.WriteFile,
		"POST /delete_file": shape.DeleteFile, "POST /rename_file": shape.RenameFile, "POST /fork_session": shape.ForkSession,
	}
	bodies := []string{
		`{"id":"s"}`, `{"id":5}`, `{}`, `[]`, `null`,
		`{"id":"s","cmd":"ls"}`, `{"id":"s","cmd":null}`, `{"id":"s","cmd":"ls","limits":{"wall_s":1}}`,
		`{"id":"s","cmd":"ls","limits":{"wall_s":0}}`, `{"id":"s","cmd":"ls","limits":{"cpu_s":null}}`,
		`{"id":"s","cmd":"ls","limits":null}`, `{"id":"s","cmd":"ls","limits":[]}`, `{"id":"s","cmd":"ls","limits":{"memory_mb":"x"}}`,
		`{"id":"s","rel_path":"a"}`, `{"id":"s","rel_path":"a","content":"x"}`, `{"id":"s","rel_path":"a","content":5}`,
		`{"id":"s","rel_path":"a","content":"x","encoding":"base64"}`, `{"id":"s","rel_path":"a","content":"x","encoding":null}`,
		`{"id":"s","rel_path":"a","content":"x","encoding":"hex"}`,
		`{"id":"s","old_path":"a","new_path":"b"}`, `{"id":"s","old_path":"a"}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":[]}`, `{"id":"s","code":"","entry_point":"f","io_cases":[{"output":3}],"more":1}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":["x"]}`, `{"id":"s","code":"","entry_point":"f","io_cases":{}}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":[],"isolation":"process","stop_on_failure":false}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":[],"isolation":"none"}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":[],"isolation":null,"stop_on_failure":null}`,
		`{"id":"s","code":"","entry_point":"f","io_cases":[],"stop_on_failure":1}`,
	}
	for operation, form := range forms {
		for _, body := range bodies {
			_, byForm := form.Check([]byte(body))
			bySpec := spec.Request(operation, []byte(body))
			if (byForm == nil) != (bySpec == nil) {
				t.Errorf("%s %s: the check says %v, the description %v", operation, body, byForm, bySpec)
			}
		}
	}
}

// What can't be stored is said once, of the whole job, as the worker puts it there.
func TestNotStoredIsDescribed(t *testing.T) {
	spec, err := spectest.Parse(Spec)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"r"}}
	for path, body := range map[string]string{
		"/evaluate_code": `{"passed":true,"case_results":[],"error":null,"not_stored":%s}`,
		"/run":           `{"id":"s","stdout":"","stderr":"","not_stored":%s}`,
	} {
		if err := spec.Answer("POST", path, 200, header, fmt.Appendf(nil, body, `"why"`)); err != nil {
			t.Error(err)
		}
		if err := spec.Answer("POST", path, 200, header, fmt.Appendf(nil, body, "5")); err == nil {
			t.Errorf("the description of %s has no not_stored", path)
		}
	}
}

func TestDocsPage(t *testing.T) {
	h, _, _ := newAPI(t, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/docs", nil))
	page := w.Body.String()
	for _, want := range []string{
		`href="#evaluateCode"`, `id="evaluateCode"`, "<code>io_cases[].input</code>", "<code>limits.wall_s</code>",
		"submission | process", "<code>case_results[].status</code>", "Session does not exist", "curl -s http://",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, bad := range []string{"<script", "http://cdn", "https://", "<no value>", "%!"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q lets the page load things", csp)
	}
}

func TestSpecErrors(t *testing.T) {
	for _, text := range []string{"a: [", "tags: []\npaths: {/x: {get: {tags: [nowhere]}}}"} {
		if _, err := renderDocs([]byte(text)); err == nil {
			t.Errorf("a page was made of %q", text)
		}
	}
}
