package monitor

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestProbe(t *testing.T) {
	s := New("127.0.0.1:0", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	_, port, _ := strings.Cut(s.Addr(), ":")

	for _, addr := range []string{s.Addr(), ":" + port, "0.0.0.0:" + port} {
		if err := Probe(ctx, addr); err != nil {
			t.Errorf("Probe(%q) of a ready process: %v", addr, err)
		}
	}
	s.Register("nats", func(context.Context) error { return errors.New("not connected") })
	if err := Probe(ctx, s.Addr()); err == nil || !strings.Contains(err.Error(), `"nats": "not connected"`) {
		t.Errorf("Probe of a process that is not ready: %v, want what is missing", err)
	}
	for addr, want := range map[string]string{"": "MONITOR", "nonsense": "host:port", "127.0.0.1:1": "refused"} {
		if err := Probe(ctx, addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Probe(%q): %v, want an error with %q", addr, err, want)
		}
	}
}
