// Package embeddednats runs a NATS server with JetStream inside this process.
// It is the only importer of nats-server. The server has no TCP port unless it
// is asked for one: the fleet talks to it through in-memory pipes, which a
// submission has no way to reach.
package embeddednats

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/shared/secret"
)

// Config of the embedded server.
type Config struct {
	// Dir is where JetStream keeps its files.
	Dir string
	// Listen is an address (host:port) to open for other processes; empty for
	// none. User and Password are then required.
	Listen   string
	User     string
	Password secret.String
}

// Server is a running embedded server.
type Server struct{ s *server.Server }

// startTimeout is how long the server may take to recover its files and be ready.
const startTimeout = 30 * time.Second

// Start starts a server and waits until it is ready for connections.
func Start(cfg Config, log *slog.Logger) (*Server, error) {
	opts := &server.Options{
		ServerName:   "gradefleet-embedded",
		JetStream:    true,
		StoreDir:     cfg.Dir,
		MaxPayload:   protocol.MaxMessageBytes,
		MaxPending:   8 * protocol.MaxMessageBytes,
		NoSigs:       true,
		NoLog:        true,
		DontListen:   cfg.Listen == "",
		SyncInterval: syncInterval,
		// Else it asks after two seconds whether a client is there, and one that is
		// connecting still, on a busy machine, takes that for a wrong answer and gives up.
		DisableShortFirstPing: true,
	}
	if cfg.Listen != "" {
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("nats-listen %q: want host:port: %w", cfg.Listen, err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("nats-listen %q: port: %w", cfg.Listen, err)
		}
		if opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
		opts.Host = host
		if cfg.User == "" || cfg.Password == "" {
			return nil, errors.New("nats-listen opens NATS to other processes: set nats-user and nats-password too")
		}
		opts.Username, opts.Password = cfg.User, cfg.Password.Reveal()
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("configure embedded NATS: %w", err)
	}
	l := &logger{log: log}
	s.SetLoggerV2(l, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		return nil, fmt.Errorf("start embedded NATS in %s: not ready within %v", cfg.Dir, startTimeout)
	}
	l.started.Store(true)
	return &Server{s}, nil
}

// Option makes nats.Connect talk to this server without a socket. A server in the
// same process is there: who waits for it longer than two seconds, the client's
// default, waits for a busy machine.
func (s *Server) Option() nats.Option {
	return func(o *nats.Options) error {
		o.Timeout = startTimeout
		return nats.InProcessServer(s.s)(o)
	}
}

// Addr is the address it listens on, or "" if it doesn't.
func (s *Server) Addr() string {
	if a := s.s.Addr(); a != nil {
		return a.String()
	}
	return ""
}

// Stop flushes JetStream's files and waits for the server to end.
func (s *Server) Stop() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

// logger passes the server's warnings and errors on to slog. What it warns of
// while it starts is our own choice of settings.
type logger struct {
	log     *slog.Logger
	started atomic.Bool
}

func (l *logger) Noticef(f string, a ...any) { l.log.Debug("nats", "message", fmt.Sprintf(f, a...)) }
func (l *logger) Warnf(f string, a ...any) {
	if !l.started.Load() {
		l.Noticef(f, a...)
		return
	}
	l.log.Warn("nats", "message", fmt.Sprintf(f, a...))
}
func (l *logger) Fatalf(f string, a ...any) { l.log.Error("nats", "message", fmt.Sprintf(f, a...)) }
func (l *logger) Errorf(f string, a ...any) { l.log.Error("nats", "message", fmt.Sprintf(f, a...)) }
func (l *logger) Debugf(string, ...any)     {}
func (l *logger) Tracef(string, ...any)     {}
