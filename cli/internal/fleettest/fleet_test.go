package fleettest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/node"
)

// fleet is a running fleet in this process.
type fleet struct {
	urls []string // one a gateway
	// stopGateways end them, as SIGTERM would; more than once does no harm.
	stopGateways []func()

	client  *http.Client
	workers []*runningWorker
	// registries hold the metrics, one of each process that there would be.
	registries []*prometheus.Registry
	// startWorker starts one more.
	startWorker func() *runningWorker
}

type runningWorker struct {
	node *node.Node
	stop func()
}

// newFleet starts a fleet and waits until every gateway knows every worker;
// settings are flags of the workers.
func newFleet(t *testing.T, gateways, workers int, settings ...string) *fleet {
	t.Helper()
	f := &fleet{client: &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(f.client.CloseIdleConnections)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ns, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Stop)
	connect := func(name string) *bus.Bus {
		nc, err := bus.Connect(bus.Config{}, name, log, ns.Option())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		b, err := bus.Ensure(context.Background(), nc, bus.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	f.startWorker = func() *runningWorker {
		r := prometheus.NewRegistry()
		f.registries = append(f.registries, r)
		f.workers = append(f.workers, startWorker(t, connect(fmt.Sprint("worker", len(f.workers))), r, log, settings...))
		return f.workers[len(f.workers)-1]
	}
	for range workers {
		f.startWorker()
	}
	for i := range gateways {
		r := prometheus.NewRegistry()
		f.registries = append(f.registries, r)
		g, err := server.New(server.Config{Listen: []string{"127.0.0.1:0"}, ID: fmt.Sprint("gateway", i)},
			server.Deps{Bus: connect(fmt.Sprint("gateway", i)), Registerer: r, Log: log, Build: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("gateway ended with %v", err)
			}
		})
		t.Cleanup(stop)
		f.stopGateways = append(f.stopGateways, stop)
		f.urls = append(f.urls, "http://"+g.Addrs()[0])
	}
	for _, u := range f.urls {
		waitForWorkers(t, f.client, u, workers)
	}
	return f
}

func startWorker(t *testing.T, b *bus.Bus, r prometheus.Registerer, log *slog.Logger, settings ...string) *runningWorker {
	t.Helper()
	dir, err := os.MkdirTemp("", "gradefleet-fleet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var cfg node.Config
	parser, err := kong.New(&cfg)
	if err == nil {
		_, err = parser.Parse(append([]string{"--data", dir, "--slots", "1"}, settings...))
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.New(context.Background(), cfg, node.Deps{Bus: b, Registerer: r, Log: log, Build: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	w := &runningWorker{node: n, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("worker ended with %v", err)
		}
	})}
	t.Cleanup(w.stop)
	return w
}

// waitLimit is how long anything that must happen may take, on a machine that may
// stand still for seconds.
const waitLimit = time.Minute

// waitForWorkers asks a gateway until it knows n workers.
func waitForWorkers(t *testing.T, client *http.Client, url string, n int) {
	t.Helper()
	known := -1
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(url + "/workers")
		if err != nil {
			continue
		}
		var answer struct {
			Workers []protocol.Heartbeat `json:"workers"`
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err == nil {
			if known = len(answer.Workers); known == n {
				return
			}
		}
	}
	t.Fatalf("%s knows %d workers after %v, want %d", url, known, waitLimit, n)
}

func post(client *http.Client, url string, body any) (int, []byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Post(url, "application/json", bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Every scenario must be answered as pinned, whichever gateway is asked.
func TestScenarios(t *testing.T) {
	scenarios, err := loadScenarios()
	if err != nil {
		t.Fatal(err)
	}
	if len(scenarios) != 138 {
		t.Fatalf("%d scenarios, want 138", len(scenarios))
	}
	f := newFleet(t, 2, 3)
	var wg sync.WaitGroup
	work := make(chan scenario)
	for range 4 {
		wg.Go(func() {
			for s := range work {
				if err := s.play(f.client, f.urls); err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
			}
		})
	}
	for _, s := range scenarios {
		work <- s
	}
	close(work)
	wg.Wait()
}

// A fleet that runs somewhere must answer the same.
func TestDeployedScenarios(t *testing.T) {
	urls := os.Getenv("GRADEFLEET_URL")
	if urls == "" {
		t.Skip("set GRADEFLEET_URL to a running fleet, or to several gateways of one, comma separated")
	}
	scenarios, err := loadScenarios()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 90 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	for _, s := range scenarios {
		if err := s.play(client, strings.Split(urls, ",")); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// Every evaluate job must be answered right while workers come and go.
func TestWorkersComeAndGo(t *testing.T) {
	f := newFleet(t, 2, 3)
	const jobs = 120
	errs := make(chan error, jobs)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range jobs {
		wg.Go(func() {
			if i > 10 {
				<-begin
			}
			status, answer, err := post(f.client, f.urls[i%2]+"/evaluate_code", map[string]any{
				"id": protocol.NewUUID(), "code": "import time\ndef f(x):\n    time.sleep(0.02)\n    return x", "entry_point": "f",
				"io_cases": []map[string]string{{"input": fmt.Sprint("x=", i), "output": fmt.Sprint(i)}},
			})
			if err != nil || status != 200 || !strings.HasPrefix(string(answer), `{"passed":true`) {
				errs <- fmt.Errorf("job %d: %d %s %v", i, status, answer, err)
			}
		})
	}
	close(begin)
	f.workers[0].stop()
	f.workers[1].stop()
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, u := range f.urls {
		waitForWorkers(t, f.client, u, 1)
	}
}

// A session stays with its worker, and every gateway finds it.
func TestSessionsAcrossGateways(t *testing.T) {
	f := newFleet(t, 2, 3)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			id := protocol.NewUUID()
			for n := range 4 {
				a, b := f.urls[n%2], f.urls[(n+1)%2]
				text := fmt.Sprint("text ", n)
				if status, answer, err := post(f.client, a+"/write_file", map[string]string{"id": id, "rel_path": "f", "content": text}); status != 200 {
					t.Errorf("write: %d %s %v", status, answer, err)
				}
				status, answer, err := post(f.client, b+"/run", map[string]string{"id": id, "cmd": "cat f"})
				if status != 200 || !strings.Contains(string(answer), `"stdout":"`+text+`"`) {
					t.Errorf("run: %d %s %v", status, answer, err)
				}
			}
		})
	}
	wg.Wait()
}

// An evaluate job in a session sees its files.
func TestEvaluateInSession(t *testing.T) {
	f := newFleet(t, 1, 1)
	if status, answer, _ := post(f.client, f.urls[0]+"/write_file", map[string]string{"id": "s", "rel_path": "helper.py", "content": "def twice(x): return 2 * x"}); status != 200 {
		t.Fatalf("write: %d %s", status, answer)
	}
	_, answer, _ := post(f.client, f.urls[0]+"/evaluate_code", map[string]any{"id": "s", "code": "from helper import twice as f", "entry_point": "f",
		"io_cases": []map[string]string{{"input": "x=2", "output": "4"}}})
	if !strings.HasPrefix(string(answer), `{"passed":true`) {
		t.Errorf("answer %s", answer)
	}
}
