package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/shared/embeddednats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no NATS", nil, "NATS_URL"},
		{"unknown flag", []string{"--frobnicate"}, "frobnicate"},
		{"bad setting", []string{"--nats-url=nats://127.0.0.1:1", "--gateway-id=a.b"}, "gateway-id"},
		{"bad level", []string{"--nats-url=nats://127.0.0.1:1", "--log-level=loud"}, "log-level"},
		{"healthcheck without a process", []string{"--healthcheck", "--monitor=127.0.0.1:1"}, "refused"},
		{"healthcheck without a monitor", []string{"--healthcheck", "--monitor="}, "MONITOR"},
		{"trusted proxy", []string{"--nats-url=nats://127.0.0.1:1", "--trusted-proxies=10.0.0.0/8,proxy"}, "trusted-proxies"},
		{"NATS that is not there", []string{"--nats-url=nats://127.0.0.1:1", "--nats-wait=1ms"}, "connect to NATS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NATS_URL", "")
			err := run(t.Context(), c.args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("run: %v, want an error with %q", err, c.want)
			}
		})
	}
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRunServesUntilStopped(t *testing.T) {
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", User: "fleet", Password: "open-sesame"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	t.Setenv("NATS_URL", "nats://"+s.Addr())
	t.Setenv("NATS_USER", "fleet")
	t.Setenv("NATS_PASSWORD", "open-sesame")
	t.Setenv("LISTEN", "127.0.0.1:0")
	t.Setenv("MONITOR", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	log := new(lockedBuffer)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"--gateway-id=gw1"}, log) }()

	says := func(pattern string) string {
		t.Helper()
		expression := regexp.MustCompile(pattern)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if found := expression.FindStringSubmatch(log.String()); found != nil {
				return found[1]
			}
		}
		t.Fatalf("never said %s: %s", pattern, log)
		return ""
	}
	resp, err := http.Get("http://" + says(`addresses=\[(\S+)\]`) + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if string(body) != "ping" {
		t.Errorf("GET /: %q", body)
	}
	t.Setenv("MONITOR", says(`monitor=(\S+)`))
	// It serves before it has heard who is live.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := run(t.Context(), []string{"--healthcheck"}, io.Discard)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("healthcheck of a gateway that serves: %v", err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("run returned %v after a requested stop", err)
	}
	if strings.Contains(log.String(), "open-sesame") {
		t.Errorf("the password is in the log: %s", log)
	}
}
