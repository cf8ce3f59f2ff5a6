// Package monitor is the operators' HTTP server: metrics, liveness, readiness
// and profiles, on an address of its own and never on a public one. What is
// measured and what counts as ready is registered by the components.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// checkTimeout bounds all checks of one GET /readyz together.
	checkTimeout = 2 * time.Second
	// stopTimeout is how long a scrape under way may take once Run is to stop.
	stopTimeout = 2 * time.Second
	// A profile of 30 s, the default of go tool pprof, must fit.
	writeTimeout = 5 * time.Minute
)

// Check returns nil when a component is ready for work, or why it is not. It
// must return when its context ends.
type Check func(context.Context) error

// Server is the monitor server. Its methods may be called from any goroutine.
type Server struct {
	addr     string
	gatherer prometheus.Gatherer
	log      *slog.Logger

	mu       sync.Mutex
	checks   map[string]Check
	listener net.Listener
}

// New returns a server for addr (host:port; empty: no socket is opened and Run
// only waits) that shows what g gathers.
func New(addr string, g prometheus.Gatherer, log *slog.Logger) *Server {
	return &Server{addr: addr, gatherer: g, log: log, checks: map[string]Check{}}
}

// Register adds a readiness check under a name that GET /readyz shows, and
// returns a function that takes it away again. A name that is taken is a fault
// of the program: it panics.
func (s *Server) Register(name string, check Check) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.checks[name]; taken {
		panic(fmt.Sprintf("monitor: readiness check %q is registered twice", name))
	}
	s.checks[name] = check
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.checks, name)
	}
}

// Listen opens the socket, so that Addr is known before Run. Run does it
// otherwise.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == "" || s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen for the monitor: %w", err)
	}
	s.listener = l
	return nil
}

// Addr is the address listened on (with the port the system chose, if it was
// asked to), or "" when there is none.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves until ctx ends, then returns nil. It runs once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		<-ctx.Done()
		return nil
	}
	s.log.Info("monitor serves", "monitor", l.Addr())
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve monitor: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close() // a scrape or profile that is still under way
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve monitor: %w", err)
	}
	return nil
}

// Report is what GET /readyz answers.
type Report struct {
	Ready bool `json:"ready"`
	// Checks maps each check's name to "ok" or to what is wrong.
	Checks map[string]string `json:"checks"`
}

// Ready runs every check, one after the other in the order of their names.
func (s *Server) Ready(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s.mu.Lock()
	names := make([]string, 0, len(s.checks))
	checks := make(map[string]Check, len(s.checks))
	for name, check := range s.checks {
		names = append(names, name)
		checks[name] = check
	}
	s.mu.Unlock()
	slices.Sort(names)
	report := Report{Ready: true, Checks: make(map[string]string, len(names))}
	for _, name := range names {
		report.Checks[name] = "ok"
		if err := checks[name](ctx); err != nil {
			report.Ready = false
			report.Checks[name] = err.Error()
		}
	}
	return report
}
