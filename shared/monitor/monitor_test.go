package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestRoutes(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "gradefleet_answer", Help: "A known value."}, func() float64 { return 42 }))
	h := New("", reg, slog.New(slog.DiscardHandler)).Handler()
	for _, c := range []struct {
		name, path string
		status     int
		contains   string
	}{
		{"index", "/", 200, "/metrics"},
		{"metrics", "/metrics", 200, "gradefleet_answer 42"},
		{"alive", "/healthz", 200, "ok"},
		{"ready without checks", "/readyz", 200, `"ready": true`},
		{"pprof index", "/debug/pprof/", 200, "goroutine"},
		{"pprof profile", "/debug/pprof/heap?debug=1", 200, "heap profile"},
		{"unknown", "/nope", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := get(t, h, c.path)
			if status != c.status || !strings.Contains(body, c.contains) {
				t.Errorf("GET %s: %d %.200q, want %d with %q", c.path, status, body, c.status, c.contains)
			}
		})
	}
}

func TestReadyNamesWhatIsMissing(t *testing.T) {
	s := New("", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	var broken error
	s.Register("nats", func(context.Context) error { return broken })
	remove := s.Register("gateway", func(context.Context) error { return errors.New("draining") })

	status, body := get(t, s.Handler(), "/readyz")
	var report Report
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		t.Fatal(err)
	}
	if status != 503 || report.Ready || report.Checks["nats"] != "ok" || report.Checks["gateway"] != "draining" {
		t.Errorf("readyz: %d %+v, want 503 for the gateway that is draining", status, report)
	}

	remove()
	if status, body := get(t, s.Handler(), "/readyz"); status != 200 {
		t.Errorf("readyz without the failing check: %d %s, want 200", status, body)
	}
	broken = errors.New("not connected")
	if status, body := get(t, s.Handler(), "/readyz"); status != 503 || !strings.Contains(body, "not connected") {
		t.Errorf("readyz: %d %s, want 503 with the reason", status, body)
	}
}

func TestReadyBoundsASlowCheck(t *testing.T) {
	s := New("", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	s.Register("slow", func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			return errors.New("no deadline")
		}
		return nil
	})
	if report := s.Ready(t.Context()); !report.Ready {
		t.Errorf("checks run without a deadline: %+v", report)
	}
}

func TestRegisterTwicePanics(t *testing.T) {
	s := New("", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	s.Register("nats", func(context.Context) error { return nil })
	defer func() {
		if recover() == nil {
			t.Error("the second registration under one name went through")
		}
	}()
	s.Register("nats", func(context.Context) error { return nil })
}

func TestRun(t *testing.T) {
	for _, c := range []struct{ name, addr string }{{"with a socket", "127.0.0.1:0"}, {"without one", ""}} {
		t.Run(c.name, func(t *testing.T) {
			s := New(c.addr, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err := s.Listen(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			if c.addr != "" {
				resp, err := http.Get("http://" + s.Addr() + "/healthz")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "ok\n" {
					t.Errorf("healthz over the socket: %q", body)
				}
				http.DefaultClient.CloseIdleConnections()
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run after a requested stop: %v", err)
			}
		})
	}
}

func TestRunNamesATakenAddress(t *testing.T) {
	first := New("127.0.0.1:0", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	defer first.listener.Close()
	err := New(first.Addr(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler)).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), first.Addr()) {
		t.Errorf("Run on a taken address: %v, want an error that names %s", err, first.Addr())
	}
}
