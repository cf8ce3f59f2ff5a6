package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/gateway/internal/api"
	"github.com/gradefleet/gradefleet/gateway/internal/spectest"
	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitLimit is how long anything that must happen may take, on a machine that may
// stand still for seconds.
const waitLimit = time.Minute

// cluster is a NATS server and gateways on it, each with its own connection.
type cluster struct {
	t        *testing.T
	nats     *embeddednats.Server
	bus      *bus.Bus // of the tests and the fake workers
	gateways []*gateway
	spec     *spectest.Spec
	client   *http.Client
}

type gateway struct {
	*server.Server
	c        *cluster
	url      string
	registry *prometheus.Registry
	nc       *nats.Conn
	stop     context.CancelFunc
	ended    chan error // what Run returned
}

// newCluster starts as many gateways; change may alter their configuration.
func newCluster(t *testing.T, gateways int, change func(*server.Config)) *cluster {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := &cluster{t: t, nats: s}
	c.prepare(func(opts ...nats.Option) (*nats.Conn, error) { return nats.Connect("", append(opts, s.Option())...) })
	for range gateways {
		c.start(change, func(opts ...nats.Option) (*nats.Conn, error) { return nats.Connect("", append(opts, s.Option())...) })
	}
	return c
}

type dialer func(...nats.Option) (*nats.Conn, error)

// prepare makes what tests use besides the gateways.
func (c *cluster) prepare(dial dialer) {
	c.t.Helper()
	nc, err := dial(nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	if c.bus, err = bus.Ensure(c.t.Context(), nc, bus.Settings{QueueLimit: 100}); err != nil {
		c.t.Fatal(err)
	}
	if c.spec, err = spectest.Parse(api.Spec); err != nil {
		c.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	c.client = &http.Client{Transport: transport}
	c.t.Cleanup(transport.CloseIdleConnections)
}

// start starts one gateway and waits until it serves.
func (c *cluster) start(change func(*server.Config), dial dialer) *gateway {
	c.t.Helper()
	cfg := server.Config{Listen: []string{"127.0.0.1:0"}, ID: fmt.Sprint("g", len(c.gateways)+1), QueueLimit: 100, DrainTimeout: waitLimit}
	if change != nil {
		change(&cfg)
	}
	g := &gateway{c: c, registry: prometheus.NewPedanticRegistry(), ended: make(chan error, 1)}
	var err error
	// As bus.Connect: a publish while cut off is an error, not a surprise later.
	if g.nc, err = dial(nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1)); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(g.nc.Close)
	b, err := bus.Ensure(c.t.Context(), g.nc, cfg.BusSettings(1))
	if err != nil {
		c.t.Fatal(err)
	}
	g.Server, err = server.New(cfg, server.Deps{Bus: b, Registerer: g.registry, Log: slog.New(slog.DiscardHandler), Build: "test"})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := g.Listen(); err != nil {
		c.t.Fatal(err)
	}
	g.url = "http://" + g.Addrs()[0]
	var ctx context.Context
	ctx, g.stop = context.WithCancel(context.Background())
	go func() { g.ended <- g.Run(ctx) }()
	c.t.Cleanup(func() {
		c.client.CloseIdleConnections()
		if err := g.end(); err != nil {
			c.t.Errorf("gateway ended with %v", err)
		}
	})
	eventually(c.t, "the gateway serves", func() bool { return g.Ready() == nil })
	c.gateways = append(c.gateways, g)
	return g
}

// end stops the gateway and returns what Run returned.
func (g *gateway) end() error {
	g.stop()
	err := <-g.ended
	g.ended <- err // for the next who asks
	return err
}

// answer is what a caller gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request and holds the answer against openapi.yaml.
func (g *gateway) do(r *http.Request) (answer, error) {
	resp, err := g.c.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	if err := g.c.spec.Answer(r.Method, r.URL.Path, resp.StatusCode, resp.Header, body); err != nil {
		g.c.t.Errorf("not as described: %v", err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}, nil
}

func (g *gateway) call(ctx context.Context, method, path, body string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, g.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	return g.do(r)
}

func (g *gateway) get(path string) answer {
	g.c.t.Helper()
	return g.must(g.call(g.c.t.Context(), http.MethodGet, path, ""))
}

func (g *gateway) must(a answer, err error) answer {
	g.c.t.Helper()
	if err != nil {
		g.c.t.Fatal(err)
	}
	return a
}

// post posts a body given as JSON text or as a value to encode.
func (g *gateway) post(path string, body any) answer {
	g.c.t.Helper()
	return g.must(g.call(g.c.t.Context(), http.MethodPost, path, encode(body)))
}

func encode(body any) string {
	if text, ok := body.(string); ok {
		return text
	}
	var b bytes.Buffer
	json.NewEncoder(&b).Encode(body)
	return b.String()
}

// async posts in the background; cancel hangs up.
func (g *gateway) async(path string, body any) (answers <-chan answer, cancel context.CancelFunc) {
	ctx, cancel := context.WithCancel(g.c.t.Context())
	out := make(chan answer, 1)
	go func() {
		defer close(out)
		if a, err := g.call(ctx, http.MethodPost, path, encode(body)); err == nil {
			out <- a
		}
	}()
	return out, cancel
}

func (a answer) want(t *testing.T, status int, contains string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, contains) {
		t.Errorf("answer %d %.300s, want %d with %q", a.status, a.body, status, contains)
	}
}

func evaluate(session string) map[string]any {
	return map[string]any{"id": session, "code": "def f(x): return x", "entry_point": "f", "io_cases": []any{map[string]any{"input": "x=1", "output": "1"}}}
}

func run(session string) map[string]any { return map[string]any{"id": session, "cmd": "ls"} }

func write(session, path, content string) map[string]any {
	return map[string]any{"id": session, "rel_path": path, "content": content}
}

// queued waits until a queue holds n jobs.
func (c *cluster) queued(queue string, n uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%s holds %d jobs", queue, n), func() bool {
		info, err := c.bus.Jobs.Info(c.t.Context(), jetstream.WithSubjectFilter(queue))
		return err == nil && info.State.Subjects[queue] == n
	})
}

// owner returns the session's record.
func (c *cluster) owner(session string) (r protocol.SessionRecord) {
	c.t.Helper()
	e, err := c.bus.Sessions.Get(c.t.Context(), protocol.SessionKey(session))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(e.Value(), &r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// setOwner writes the session's record, as a takeover would.
func (c *cluster) setOwner(session, worker string, epoch uint64) {
	c.t.Helper()
	value, err := json.Marshal(protocol.SessionRecord{Worker: worker, Epoch: epoch, Created: time.Now()})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.bus.Sessions.Put(c.t.Context(), protocol.SessionKey(session), value); err != nil {
		c.t.Fatal(err)
	}
}

// value is a metric of the gateway, summed over what labels leave open.
func (g *gateway) value(name string, labels ...string) float64 {
	g.c.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.c.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			fits := true
			for i := 0; i < len(labels); i += 2 {
				fits = fits && have[labels[i]] == labels[i+1]
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually waits for what another goroutine or process brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// within takes a value from a channel, or fails.
func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(waitLimit):
		t.Fatalf("never happened: %s", what)
		panic("unreachable")
	}
}
