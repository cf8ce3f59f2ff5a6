package server_test

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestStopLetsRequestsFinish(t *testing.T) {
	c := newCluster(t, 1, nil)
	g, w := c.gateways[0], c.worker("w1", mute)
	answers, _ := g.async("/evaluate_code", evaluate("s"))
	job := within(t, "job", w.jobs)
	g.stop()
	eventually(t, "not ready any more", func() bool { return g.Ready() != nil && g.Ready().Error() == "stopping" })
	eventually(t, "no new connections", func() bool {
		conn, err := net.Dial("tcp", g.Addrs()[0])
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	w.reply(job, *success(map[string]any{"passed": true, "case_results": []any{}, "error": nil}))
	within(t, "answer", answers).want(t, 200, `"passed":true`)
	if err := g.end(); err != nil {
		t.Errorf("Run returned %v after a requested stop", err)
	}
}

func TestStopCutsShortWhatTakesTooLong(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.DrainTimeout = 50 * time.Millisecond })
	g, w := c.gateways[0], c.worker("w1", mute)
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")
	evaluated, _ := g.async("/evaluate_code", evaluate("other"))
	ran, _ := g.async("/run", run("s"))
	for range 2 {
		within(t, "job", w.jobs)
	}
	if err := g.end(); err != nil {
		t.Errorf("Run returned %v after a requested stop", err)
	}
	within(t, "answer", evaluated).want(t, 503, "safe to ask again")
	cut := within(t, "answer", ran)
	cut.want(t, 502, "may have run")
	if at := cut.header.Get("Retry-After"); at != "" {
		t.Errorf("Retry-After %q, which asks for a second run", at)
	}
	for range 2 {
		within(t, "cancellation", w.cancels)
	}
	c.queued(protocol.EvaluateQueue, 0)
}

func TestTakenAddress(t *testing.T) {
	c := newCluster(t, 1, nil)
	taken := c.gateways[0].Addrs()[0]
	s, err := server.New(server.Config{Listen: []string{"127.0.0.1:0", taken}}, server.Deps{
		Bus: c.bus, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("Run on a taken address: %v, want an error that names %s", err, taken)
	}
	if s.Ready() == nil || len(s.Addrs()) != 0 {
		t.Errorf("ready %v, addresses %v; want neither", s.Ready(), s.Addrs())
	}
}

func TestAllAddressesServeTheSame(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"} })
	g := c.gateways[0]
	if len(g.Addrs()) != 2 || g.Addrs()[0] == g.Addrs()[1] {
		t.Fatalf("addresses %v, want two", g.Addrs())
	}
	for _, addr := range g.Addrs() {
		g.url = "http://" + addr
		g.get("/").want(t, 200, "ping")
		g.get("/workers").want(t, 200, "workers")
	}
}

func TestNewRefuses(t *testing.T) {
	c := newCluster(t, 0, nil)
	reg := prometheus.NewRegistry()
	deps := server.Deps{Bus: c.bus, Registerer: reg, Log: slog.New(slog.DiscardHandler)}
	if _, err := server.New(server.Config{ID: "a.b"}, deps); err == nil || !strings.Contains(err.Error(), "gateway-id") {
		t.Errorf("New with a bad id: %v", err)
	}
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "gradefleet_http_in_flight", Help: "Taken."}))
	if _, err := server.New(server.Config{}, deps); err == nil || !strings.Contains(err.Error(), "register metrics") {
		t.Errorf("New with a metric that is taken: %v", err)
	}
}

// outage is a cluster whose NATS can go and come back. Its address is the door's: no
// other process can take it meanwhile.
func outage(t *testing.T) (c *cluster, back func()) {
	t.Helper()
	dir, d := t.TempDir(), openDoor(t)
	start := func() *embeddednats.Server {
		t.Helper()
		s, err := embeddednats.Start(embeddednats.Config{Dir: dir, Listen: "127.0.0.1:0", User: "fleet", Password: "pw"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d.leadTo(s.Addr())
		return s
	}
	c = &cluster{t: t, nats: start()}
	t.Cleanup(func() { c.nats.Stop() })
	dial := func(opts ...nats.Option) (*nats.Conn, error) {
		return nats.Connect("nats://"+d.Addr().String(), append(opts, nats.UserInfo("fleet", "pw"))...)
	}
	c.prepare(dial)
	c.start(nil, dial)
	return c, func() { c.nats = start() }
}

// door is an address that leads to another, which may change.
type door struct {
	net.Listener
	to      atomic.Value
	running sync.WaitGroup
}

func openDoor(t *testing.T) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	t.Cleanup(func() {
		l.Close()
		d.running.Wait()
	})
	d.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", d.to.Load().(string))
			if err != nil {
				near.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
				from.Close()
			}
			d.running.Go(func() { pass(near, far) })
			d.running.Go(func() { pass(far, near) })
		}
	})
	return d
}

func (d *door) leadTo(addr string) { d.to.Store(addr) }

func TestNATSGoesAndComesBack(t *testing.T) {
	c, back := outage(t)
	g := c.gateways[0]
	w := c.worker("w1", nil)
	g.post("/write_file", write("s", "a", "x")).want(t, 200, "success")

	c.nats.Stop()
	eventually(t, "the gateway notices", func() bool { return g.Ready() != nil })
	if err := g.Ready(); !strings.Contains(err.Error(), "NATS") {
		t.Errorf("not ready for %q, want NATS named", err)
	}
	for _, a := range []answer{
		g.post("/evaluate_code", evaluate("s")),
		g.post("/run", run("s")),
		g.post("/write_file", write("s", "a", "x")),
		g.get("/read_file?id=s&rel_path=a"),
		g.post("/write_file", write("new", "a", "x")),
	} {
		a.want(t, 503, "")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s without a Retry-After", a.body)
		}
	}
	g.get("/").want(t, 200, "ping")

	back()
	eventually(t, "both are connected", func() bool { return g.Ready() == nil && c.bus.NC.IsConnected() })
	w.leave() // its consumers went with the server's memory of them
	c.worker("w2", nil)
	eventually(t, "jobs run again", func() bool { return g.post("/evaluate_code", evaluate("other")).status == 200 })
	if r := c.owner("s"); r.Worker != "w1" {
		t.Errorf("the session's record came back as %+v", r)
	}
}

// The results of what ran while the gateway was cut off never arrive.
func TestResultLostInAnOutage(t *testing.T) {
	c, back := outage(t)
	g, w := c.gateways[0], c.worker("w1", mute)
	answers, _ := g.async("/evaluate_code", evaluate("s"))
	within(t, "job", w.jobs)
	c.queued(protocol.EvaluateQueue, 1)
	c.nats.Stop()
	eventually(t, "the gateway notices", func() bool { return g.Ready() != nil })
	back()
	eventually(t, "the test is connected", func() bool { return c.bus.NC.IsConnected() })
	// The worker's result was sent to nobody, and the job acked.
	if err := c.bus.Jobs.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, "answer", answers).want(t, 503, "result was lost")
}

func TestConnectionClosedForGood(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	g.nc.Close()
	err := within(t, "Run returns", g.ended)
	if err == nil || !strings.Contains(err.Error(), "closed for good") {
		t.Errorf("Run returned %v, want an error that says why", err)
	}
	g.ended <- nil // for the clean-up
}

// A gateway that starts later brings a new queue limit; one that reconnects
// does not bring back its old one.
func TestQueueLimitOfTheLastStarted(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.QueueLimit = 7 })
	limit := func() int64 {
		info, err := c.bus.Jobs.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.Config.MaxMsgsPerSubject
	}
	if n := limit(); n != 7 {
		t.Errorf("queue limit %d, want 7", n)
	}
	if _, err := bus.Ensure(t.Context(), c.bus.NC, bus.Settings{QueueLimit: 9}); err != nil {
		t.Fatal(err)
	}
	g := c.gateways[0]
	if err := g.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reconnected", func() bool { return g.nc.Stats().Reconnects == 1 && g.Ready() == nil })
	c.worker("w1", nil) // seen by the new watch, which comes after the bucket was made sure of
	if n := limit(); n != 9 {
		t.Errorf("queue limit %d after a reconnect, want 9", n)
	}
}
