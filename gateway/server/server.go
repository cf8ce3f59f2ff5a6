package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/admit"
	"github.com/gradefleet/gradefleet/gateway/internal/api"
	"github.com/gradefleet/gradefleet/gateway/internal/backlog"
	"github.com/gradefleet/gradefleet/gateway/internal/batch"
	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/jobs"
	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/gateway/internal/queues"
	"github.com/gradefleet/gradefleet/gateway/internal/rate"
	"github.com/gradefleet/gradefleet/gateway/internal/roster"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/webhook"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// maxHeaderBytes is the most that a request's headers may be.
	maxHeaderBytes = 64 << 10
	// syncTimeout is how long Run waits to know the workers before it serves.
	syncTimeout = 10 * time.Second
	// lastWords is how long answers may take to be written that were given
	// because the drain timeout was over.
	lastWords = 2 * time.Second
)

// Deps is what a gateway is given by the process around it.
type Deps struct {
	// Bus is connected; the process closes it after Run has returned.
	Bus *bus.Bus
	// Registerer takes the gateway's metrics.
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Build names the build, for the log and the metrics.
	Build string
}

// Server is one gateway.
type Server struct {
	cfg        Config
	deps       Deps
	roster     *roster.Roster
	dispatcher *dispatch.Dispatcher
	jobs       *jobs.Service
	backlog    *backlog.Feeder
	webhooks   *webhook.Sender // nil if there are none
	stopped    chan struct{}   // closed when the server stops
	http       *http.Server
	state      atomic.Int32
	limited    atomic.Bool // the queue limit was set once
	replicas   int
	reopened   chan struct{} // gets a value when the streams are to be looked after

	mu        sync.Mutex
	listeners []net.Listener
}

// States of a server, in their order.
const (
	starting int32 = iota
	serving
	stopping
)

// New makes a gateway, which listens for results from then on. Run must be
// called, and ends that.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure gateway: %w", err)
	}
	cfg = cfg.WithDefaults()
	keys, err := cfg.keys()
	if err != nil {
		return nil, fmt.Errorf("configure gateway: %w", err)
	}
	s := &Server{cfg: cfg, deps: deps, stopped: make(chan struct{}), reopened: make(chan struct{}, 1)}
	if err := registerInfo(deps.Registerer, deps.Build); err != nil {
		return nil, err
	}
	s.replicas = max(deps.Bus.Jobs.CachedInfo().Config.Replicas, 1)
	replicas := s.replicas
	s.roster, err = roster.New(roster.Config{
		NC:   deps.Bus.NC,
		Open: func(ctx context.Context) (jetstream.KeyValue, error) { return s.openWorkers(ctx, replicas) },
		OnLost: func(l roster.Lost) {
			s.dispatcher.WorkerLost(l.Worker, l.Restarted)
			s.jobs.WorkerLost()
		},
		Log:        deps.Log,
		Registerer: deps.Registerer,
	})
	if err != nil {
		return nil, err
	}
	records := kept.New(deps.Bus)
	s.dispatcher, err = dispatch.New(dispatch.Config{
		NC: deps.Bus.NC, Jobs: deps.Bus.Jobs, Backlog: deps.Bus.Backlog, Gateway: cfg.ID, QueueLimit: cfg.QueueLimit,
		BacklogLimit: cfg.backlogLimit(), BacklogBytes: deps.Bus.Backlog.CachedInfo().Config.MaxBytes, // NATS may have had less room
		Finish: func(ctx context.Context, job string, result protocol.Result) error {
			return records.Finish(ctx, kept.Record{Kept: protocol.Kept{Job: job}}, result, true)
		},
		Requeue: records.Requeue,
		Log:     deps.Log, Registerer: deps.Registerer,
	})
	if err != nil {
		return nil, err
	}
	gate := admit.New(admit.Config{
		PerCaller: max(cfg.CallerInflight, 0), Rate: cfg.CallerRate, Burst: cfg.burst(),
		Waiting: cfg.WaitingLimit, Bytes: cfg.BufferBytes, Window: newWindows(s.roster.Heartbeats).of,
	})
	if err := registerWaiting(deps.Registerer, gate); err != nil {
		return nil, errors.Join(err, s.dispatcher.Close())
	}
	router := routing.New(routing.Config{
		Dispatcher: admit.Dispatcher{Dispatcher: s.dispatcher, Gate: gate}, Sessions: ownership.New(deps.Bus, replicas), Workers: s.roster,
		JobDeadline: cfg.JobDeadline, FileDeadline: cfg.FileDeadline,
		Metrics: routing.NewMetrics(deps.Registerer), Log: deps.Log,
	})
	s.jobs = jobs.New(jobs.Config{
		NC: deps.Bus.NC, Records: records, Router: router, Dispatcher: s.dispatcher, Workers: s.roster.Heartbeats,
		Deadline: cfg.AsyncDeadline, JobDeadline: cfg.JobDeadline, Stopping: s.stopped, Log: deps.Log,
	})
	windows := newWindows(s.roster.Heartbeats) // the gate has its own
	s.backlog, err = backlog.New(backlog.Config{
		Bus: deps.Bus, Gateway: cfg.ID, Records: records, Window: func() int { return windows.of(protocol.BulkQueue) },
		Meter: new(rate.Meter), Log: deps.Log, Registerer: deps.Registerer,
	})
	if err != nil {
		return nil, errors.Join(err, s.dispatcher.Close())
	}
	var checkWebhook func(string) error
	if len(cfg.WebhookHosts) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
		defer cancel()
		s.webhooks, err = webhook.New(ctx, webhook.Config{
			JS: deps.Bus.JS, Records: records, Encode: api.JobJSON, Hosts: cfg.WebhookHosts, Private: cfg.WebhookPrivate,
			Secret: cfg.WebhookSecret, Retry: cfg.WebhookRetry, Log: deps.Log, Registerer: deps.Registerer,
		})
		if err != nil {
			return nil, errors.Join(err, s.dispatcher.Close())
		}
		checkWebhook = s.webhooks.Check
	}
	handler, err := api.New(api.Config{
		Fleet: router, Jobs: s.jobs, Workers: s.roster.Heartbeats, Queues: queueList(queues.New(deps.Bus.Jobs, deps.Bus.Backlog, deps.Log)), Gate: gate,
		Batch: batch.Config{
			Evaluate: router.Evaluate, Enter: gate.Line, Window: cfg.BatchWindow, WindowBytes: cfg.BatchBytes,
			Deadline: cfg.JobDeadline, MaxLine: s.maxBody,
		},
		CheckWebhook: checkWebhook,
		Keys:         keys, Stopping: s.stopped, IdleTimeout: cfg.IdleTimeout, MaxBody: s.maxBody, WriteTimeout: cfg.WriteTimeout,
		TrustedProxies: cfg.TrustedProxies,
		Log:            deps.Log, Registerer: deps.Registerer,
	})
	if err != nil {
		return nil, errors.Join(err, s.dispatcher.Close())
	}
	s.http = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		ReadTimeout:       cfg.ReadTimeout, // until the body is there, see package api
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(deps.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// maxBody is the body limit with the NATS server that is connected now.
func (s *Server) maxBody() int64 {
	return min(s.cfg.MaxBody, bus.MaxPayload(s.deps.Bus.NC)-protocol.MessageOverheadBytes)
}

// Listen opens the sockets, so that Addrs is known before Run. Run does it
// otherwise.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners != nil {
		return nil
	}
	var all []net.Listener
	for _, addr := range s.cfg.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return fmt.Errorf("listen for the API: %w", err)
		}
		all = append(all, l)
	}
	s.listeners = all
	return nil
}

// Addrs are the addresses listened on, with the ports the system chose where it
// was asked to.
func (s *Server) Addrs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, l := range s.listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

// Ready returns nil if the gateway takes requests and can pass them on, or why
// not. Whether there are workers is not its question: without any, callers are
// told so.
func (s *Server) Ready() error {
	switch {
	case s.state.Load() == starting:
		return errors.New("starting")
	case s.state.Load() == stopping:
		return errors.New("stopping")
	case !s.deps.Bus.NC.IsConnected():
		return errors.New("not connected to NATS")
	}
	return nil
}

// Run serves until ctx ends, lets requests under way finish, and returns nil;
// an error means that it could not go on. It runs once.
//
// The order of the end: not ready any more; no new connections; requests under
// way, for as long as the drain timeout; jobs still awaited, answered 503; the
// subscription to results; the watch of the workers.
func (s *Server) Run(ctx context.Context) error {
	log := s.deps.Log
	closed := s.deps.Bus.NC.StatusChanged(nats.CLOSED)
	defer s.deps.Bus.NC.RemoveStatusListener(closed)
	reconnected := s.deps.Bus.NC.StatusChanged(nats.CONNECTED)
	defer s.deps.Bus.NC.RemoveStatusListener(reconnected)

	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan error, 1)
	defer func() {
		stopWatching()
		<-watched
	}()
	go func() { watched <- s.roster.Run(watching) }()
	var minding sync.WaitGroup
	defer minding.Wait()
	defer stopWatching()
	minding.Go(func() { s.jobs.Run(watching) })
	minding.Go(func() { s.mendStreams(watching, s.replicas) })
	feeding, stopFeeding := context.WithCancel(watching)
	defer stopFeeding()
	minding.Go(func() { s.backlog.Run(feeding) })
	if s.webhooks != nil {
		minding.Go(func() { s.webhooks.Run(watching) })
	}
	defer func() {
		if err := s.dispatcher.Close(); err != nil {
			log.Warn("dispatcher did not close cleanly", "error", err)
		}
	}()
	if err := s.Listen(); err != nil {
		return err
	}
	select {
	case <-s.roster.Synced():
	case <-time.After(syncTimeout):
		log.Warn("serving before the workers are known: NATS does not answer", "waited", syncTimeout)
	case <-ctx.Done():
	}

	served := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { served <- s.http.Serve(l) }()
	}
	s.state.Store(serving)
	log.Info("gateway serves", "addresses", s.Addrs(), "gateway", s.cfg.ID, "build", s.deps.Build, "max_body_bytes", s.maxBody())
	var failure error
	running := len(s.listeners)
	for failure == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-reconnected:
			s.dispatcher.Reconnected()
		case <-closed:
			failure = errors.New("the connection to NATS was closed for good")
		case err := <-served:
			running--
			failure = fmt.Errorf("serve the API: %w", err)
		}
	}

	s.state.Store(stopping)
	close(s.stopped)
	stopFeeding() // another gateway goes on at once
	log.Info("gateway stops", "jobs", s.dispatcher.Pending(), "drain_timeout", s.cfg.DrainTimeout)
	s.drain()
	for range running {
		<-served
	}
	return failure
}

// drain ends the HTTP side; see Run.
func (s *Server) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) == nil {
		return
	}
	s.jobs.Close()
	s.deps.Log.Warn("requests under way are cut short: the drain timeout is over", "jobs", s.dispatcher.Pending())
	if err := s.dispatcher.Close(); err != nil {
		s.deps.Log.Warn("dispatcher did not close cleanly", "error", err)
	}
	last, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if s.http.Shutdown(last) != nil {
		s.http.Close()
	}
}
