package procs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/freeport"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Config of a fleet.
type Config struct {
	// Bin has the programs nats-server, gateway and worker.
	Bin string
	// Dir gets data and logs; it must be empty and reachable for every user.
	Dir string
	// Gateways and Workers are how many; NATS servers are always three.
	Gateways, Workers int
	// Env is added to every gateway's and worker's environment.
	Env []string
}

// servers is how many NATS servers there are: the fewest of which one may fail.
const servers = 3

const (
	user     = "fleet"
	password = "chaos"
	// drainTimeout is what gateways and workers get to drain, and stopTimeout
	// what they get to end.
	drainTimeout = 10 * time.Second
	stopTimeout  = 20 * time.Second
)

// Fleet is all processes.
type Fleet struct {
	NATS, Gateways, Workers []*Process
	cfg                     Config
	natsURL                 string
	client                  *http.Client
}

// Start starts a fleet and waits until every gateway sees every worker.
func Start(ctx context.Context, cfg Config) (*Fleet, error) {
	f := &Fleet{cfg: cfg, client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if err := f.start(ctx); err != nil {
		return nil, errors.Join(err, f.End())
	}
	return f, nil
}

func (f *Fleet) start(ctx context.Context) error {
	// Sessions' users reach the workers' data through it.
	if err := os.Chmod(f.cfg.Dir, 0o711); err != nil {
		return err
	}
	ports, err := freeport.Find(3*servers + 2*f.cfg.Gateways + f.cfg.Workers)
	if err != nil {
		return err
	}
	next := func() string {
		port := ports[0]
		ports = ports[1:]
		return freeport.Address(port)
	}
	var clients, routes []string
	for range servers {
		clients, routes = append(clients, next()), append(routes, next())
	}
	f.natsURL = "nats://" + strings.Join(clients, ",nats://")
	ways, err := routeLinks(routes)
	if err != nil {
		return err
	}
	for i := range servers {
		name := fmt.Sprint("nats", i+1)
		data := filepath.Join(f.cfg.Dir, name)
		conf := filepath.Join(f.cfg.Dir, name+".conf")
		p, err := f.process(NATS, name, "nats-server", nil, "-c", conf)
		if err != nil {
			return err
		}
		var others []string
		for j := range servers {
			if i != j {
				others = append(others, ways[i][j].addr())
				p.links = append(p.links, ways[i][j], ways[j][i])
			}
		}
		p.Data, p.Monitor = data, next()
		p.health = "http://" + p.Monitor + "/healthz"
		if err := os.WriteFile(conf, []byte(natsConfig(name, data, clients[i], p.Monitor, routes[i], others)), 0o600); err != nil {
			return err
		}
		f.NATS = append(f.NATS, p)
		if err := p.Start(); err != nil {
			return err
		}
	}
	for i := range f.cfg.Gateways {
		addr, monitor := next(), next()
		p, err := f.member(Gateway, fmt.Sprint("gateway", i+1), monitor, clients,
			"LISTEN="+addr, "MONITOR="+monitor, fmt.Sprint("GRADEFLEET_GATEWAY_ID=g", i+1), "GRADEFLEET_DRAIN_TIMEOUT="+drainTimeout.String())
		if err != nil {
			return err
		}
		p.URL = "http://" + addr
		f.Gateways = append(f.Gateways, p)
	}
	for i := range f.cfg.Workers {
		name, monitor := fmt.Sprint("worker", i+1), next()
		data := filepath.Join(f.cfg.Dir, name)
		// No id: it keeps the one it makes in its data directory, and who lost
		// that is another worker.
		p, err := f.member(Worker, name, monitor, clients,
			"DATA="+data, "MONITOR="+monitor, "GRADEFLEET_SLOTS=1", "GRADEFLEET_WORKER_DRAIN_TIMEOUT="+drainTimeout.String())
		if err != nil {
			return err
		}
		p.Data = data
		f.Workers = append(f.Workers, p)
	}
	for _, p := range append(append([]*Process(nil), f.Gateways...), f.Workers...) {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return f.AwaitWhole(ctx)
}

// routeLinks opens the links by which each NATS server reaches each other one.
func routeLinks(routes []string) (ways [servers][servers]*Link, err error) {
	for i := range servers {
		for j := range servers {
			if i != j && err == nil {
				ways[i][j], err = newLink(routes[j])
			}
		}
	}
	return ways, err
}

// nowhere is told to other NATS servers as a server's address, so that they know
// no way around the links.
const nowhere = "127.0.0.1:1"

func natsConfig(name, data, client, monitor, route string, others []string) string {
	var list strings.Builder
	for _, r := range others {
		fmt.Fprintf(&list, "    nats://route:%s@%s\n", password, r)
	}
	// As deploy/nats/cluster.conf.
	return fmt.Sprintf(`server_name: %s
listen: %q
http: %q
max_payload: 16MB
max_pending: 128MB
jetstream { store_dir: %q, max_memory_store: 64MB, max_file_store: 2GB }
cluster {
  name: gradefleet
  listen: %q
  authorization { user: route, password: %s, timeout: 5 }
  routes: [
%s  ]
  no_advertise: true
  advertise: %q
}
authorization { user: %s, password: %s }
`, name, client, monitor, data, route, password, list.String(), nowhere, user, password)
}

// member prepares a gateway or worker that reaches NATS by links of its own.
func (f *Fleet) member(class Class, name, monitor string, clients []string, env ...string) (*Process, error) {
	p, err := f.process(class, name, string(class), env)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, to := range clients {
		l, err := newLink(to)
		if err != nil {
			return nil, err
		}
		p.links = append(p.links, l)
		urls = append(urls, "nats://"+l.addr())
	}
	p.env = append(p.env, "NATS_URL="+strings.Join(urls, ","), "NATS_USER="+user, "NATS_PASSWORD="+password, fmt.Sprint("NATS_REPLICAS=", servers))
	p.env = append(p.env, f.cfg.Env...)
	p.Monitor = monitor
	p.health = "http://" + monitor + "/readyz"
	return p, nil
}

func (f *Fleet) process(class Class, name, program string, env []string, args ...string) (*Process, error) {
	log, err := openLog(f.cfg.Dir, name)
	if err != nil {
		return nil, err
	}
	return &Process{Class: class, Name: name, path: filepath.Join(f.cfg.Bin, program), args: args, env: env, log: log}, nil
}

// NATSLogin is how to reach the NATS servers without a proxy.
func (f *Fleet) NATSLogin() (url, name, secret string) { return f.natsURL, user, password }

// All returns every process, NATS first.
func (f *Fleet) All() []*Process {
	return append(append(append([]*Process(nil), f.NATS...), f.Gateways...), f.Workers...)
}

// wholeTimeout is how long a fleet may take to be whole again.
const wholeTimeout = 2 * time.Minute

// AwaitWhole waits until every gateway sees every worker that this fleet has.
func (f *Fleet) AwaitWhole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for {
		err := f.whole()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the fleet is not whole after %v: %w", wholeTimeout, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (f *Fleet) whole() error {
	for _, p := range f.All() {
		if err := f.ready(p); err != nil {
			return err
		}
	}
	for _, g := range f.Gateways {
		beats, err := f.Beats(g)
		if err != nil {
			return err
		}
		n := 0
		for _, b := range beats {
			if !b.Draining {
				n++
			}
		}
		if n < len(f.Workers) {
			return fmt.Errorf("%s sees %d workers of %d", g.Name, n, len(f.Workers))
		}
	}
	return nil
}

// Ready waits until one process says that it is ready.
func (f *Fleet) Ready(ctx context.Context, p *Process) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	for {
		err := f.ready(p)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w", p.Name, wholeTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *Fleet) ready(p *Process) error {
	body, err := f.get(p.health)
	if err != nil {
		return fmt.Errorf("%s: %w %.200s", p.Name, err, body)
	}
	return nil
}

// Beats is what a gateway says of the live workers.
func (f *Fleet) Beats(gateway *Process) ([]protocol.Heartbeat, error) {
	body, err := f.get(gateway.URL + "/workers")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", gateway.Name, err)
	}
	var list struct{ Workers []protocol.Heartbeat }
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%s: read workers: %w", gateway.Name, err)
	}
	return list.Workers, nil
}

// metricsLimit bounds what is read of an answer, bytes.
const metricsLimit = 8 << 20

func (f *Fleet) get(url string) ([]byte, error) {
	resp, err := f.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, metricsLimit))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return body, err
}

// Heal lets every process go on, mends every link and starts what doesn't run.
func (f *Fleet) Heal() error {
	var errs []error
	for _, p := range f.All() {
		p.Continue()
		p.Heal(false)
		if !p.Running() {
			errs = append(errs, p.Start())
		}
	}
	return errors.Join(errs...)
}

// End ends every process, gateways first and NATS last.
func (f *Fleet) End() error {
	var errs []error
	for _, group := range [][]*Process{f.Gateways, f.Workers, f.NATS} {
		results := make(chan error)
		for _, p := range group {
			p.Continue()
			p.Heal(false)
			go func() { results <- p.Terminate(stopTimeout) }()
		}
		for range group {
			errs = append(errs, <-results)
		}
	}
	for _, p := range f.All() {
		for _, l := range p.links {
			l.close()
		}
		p.log.Close()
	}
	f.client.CloseIdleConnections()
	return errors.Join(errs...)
}
