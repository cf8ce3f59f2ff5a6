package bus_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func connect(t *testing.T, cfg embeddednats.Config) (*embeddednats.Server, *nats.Conn) {
	t.Helper()
	cfg.Dir = t.TempDir()
	s, err := embeddednats.Start(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := bus.Connect(bus.Config{User: cfg.User, Password: cfg.Password}, "test", slog.New(slog.DiscardHandler), s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return s, nc
}

func TestQueueLimitIsPerQueue(t *testing.T) {
	_, nc := connect(t, embeddednats.Config{})
	ctx := context.Background()
	b, err := bus.Ensure(ctx, nc, bus.Settings{QueueLimit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		_, err = b.JS.Publish(ctx, protocol.EvaluateQueue, nil)
		if full := bus.QueueFull(err); full != (i == 2) || (err != nil) != (i == 2) {
			t.Errorf("publish %d: %v, full %v", i, err, full)
		}
	}
	if _, err := b.JS.Publish(ctx, protocol.WorkerQueue("w"), nil); err != nil {
		t.Errorf("another queue: %v", err)
	}
	// A worker, which has no limit of its own, must not change the gateway's.
	if b, err = bus.Ensure(ctx, nc, bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	if got := b.Jobs.CachedInfo().Config.MaxMsgsPerSubject; got != 2 {
		t.Errorf("queue limit %d after a worker came, want 2", got)
	}
	if got := bus.MaxPayload(nc); got != protocol.MaxMessageBytes {
		t.Errorf("messages of %d bytes, want %d", got, protocol.MaxMessageBytes)
	}
}

func TestEmbeddedServerHasNoPortUnlessAsked(t *testing.T) {
	s, nc := connect(t, embeddednats.Config{})
	if nc.Opts.Timeout <= nats.DefaultTimeout {
		t.Errorf("a busy machine has %v to answer", nc.Opts.Timeout)
	}
	if s.Addr() != "" {
		t.Errorf("listens on %s", s.Addr())
	}
	if _, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "nats-password") {
		t.Errorf("a port without a password: %v", err)
	}
	open, _ := connect(t, embeddednats.Config{Listen: "127.0.0.1:0", User: "u", Password: "p"})
	if _, err := bus.Connect(bus.Config{URL: "nats://" + open.Addr()}, "test", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("connected without a password")
	}
	nc, err := bus.Connect(bus.Config{URL: "nats://" + open.Addr(), User: "u", Password: "p"}, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

// A client that was kept from its turn for seconds while it connects is answered all
// the same, and not asked something before.
func TestSlowClientConnects(t *testing.T) {
	s, _ := connect(t, embeddednats.Config{Listen: "127.0.0.1:0", User: "u", Password: "p"})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		return lines.Text()
	}
	if info := next(); !strings.HasPrefix(info, "INFO ") {
		t.Fatalf("greeted by %q", info)
	}
	fmt.Fprint(conn, `CONNECT {"verbose":false,"user":"u","pass":"p"}`+"\r\n")
	time.Sleep(3 * time.Second) // the server would ask after two, and a fifth at random
	fmt.Fprint(conn, "PING\r\n")
	if said := next(); said != "PONG" {
		t.Errorf("answered %q", said)
	}
}

func TestSettingsThatDontFit(t *testing.T) {
	tests := []struct {
		name, want string
		cfg        bus.Config
	}{
		{"two logins", "one of", bus.Config{User: "u", Token: "t"}},
		{"password alone", "nats-user", bus.Config{Password: "p"}},
		{"certificate alone", "nats-key", bus.Config{CertFile: "c"}},
		{"two replicas", "1, 3 or 5", bus.Config{Replicas: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// A NATS server lets a stream have 1,000 consumers unless the stream says
// otherwise, and each worker has one of its own. (Making 1,001 would take a test
// twelve seconds.) A stream of before is brought up to it.
func TestMoreThanAThousandWorkers(t *testing.T) {
	_, nc := connect(t, embeddednats.Config{})
	ctx := context.Background()
	b, err := bus.Ensure(ctx, nc, bus.Settings{QueueLimit: 10})
	if err != nil {
		t.Fatal(err)
	}
	old := b.Jobs.CachedInfo().Config
	old.MaxConsumers = -1
	if err := b.JS.DeleteStream(ctx, old.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.CreateStream(ctx, old); err != nil {
		t.Fatal(err)
	}
	if b, err = bus.Ensure(ctx, nc, bus.Settings{QueueLimit: 10}); err != nil {
		t.Fatal(err)
	}
	if got := b.Jobs.CachedInfo().Config.MaxConsumers; got < 10_000 {
		t.Errorf("the stream takes %d consumers", got)
	}
}
