package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapeTimeout bounds one GET /metrics.
const scrapeTimeout = 10 * time.Second

// index is what GET / shows: the way to the rest.
const index = `<!doctype html><meta charset="utf-8"><title>gradefleet monitor</title>
<style>body{font:16px/1.6 system-ui,sans-serif;margin:3rem auto;max-width:32rem}</style>
<h1>gradefleet monitor</h1>
<ul>
<li><a href="/metrics">/metrics</a> for Prometheus</li>
<li><a href="/healthz">/healthz</a> the process is alive</li>
<li><a href="/readyz">/readyz</a> it can take work, and what is missing if not</li>
<li><a href="/debug/pprof/">/debug/pprof/</a> profiles of the running process</li>
</ul>
`

// Handler returns the routes: GET /, /metrics, /healthz, /readyz and
// /debug/pprof/. Run serves it; tests may call it without a socket.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{
		ErrorLog:      scrapeLog{s.log},
		ErrorHandling: promhttp.ContinueOnError, // one broken collector hides no other
		Timeout:       scrapeTimeout,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(index))
	})
	// pprof's own registration is on http.DefaultServeMux, which nobody serves.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	report := s.Ready(r.Context())
	body, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	w.Write(append(body, '\n'))
}

// scrapeLog logs what goes wrong with a scrape. That the scraper has hung up is
// said of each of hundreds of metrics, and no news.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	level := slog.LevelWarn
	if err, ok := v[len(v)-1].(error); ok && errors.Is(err, context.Canceled) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintln(v...)))
}
