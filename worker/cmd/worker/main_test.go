package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/monitor"
)

// The health check of a container asks what the worker's monitor says, and
// needs no NATS for it.
func TestHealthcheck(t *testing.T) {
	t.Setenv("NATS_URL", "")
	m := monitor.New("127.0.0.1:0", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Setenv("MONITOR", m.Addr())
	check := func() error {
		for { // asked again where the machine is too busy to answer in time
			if err := run(t.Context(), []string{"--healthcheck"}); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
	}
	if err := check(); err != nil {
		t.Errorf("healthcheck of a ready worker: %v", err)
	}
	m.Register("worker", func(context.Context) error { return errors.New("draining") })
	if err := check(); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("healthcheck of a worker that drains: %v, want an error that says so", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := check(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("healthcheck without a worker: %v, want an error that says so", err)
	}
}
