// Package up runs a whole fleet in one process: an embedded NATS server with
// JetStream (or an external one), a gateway and a worker, through the same
// composition roots as the separate binaries.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/buildinfo"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/lifecycle"
	"github.com/gradefleet/gradefleet/shared/logging"
	"github.com/gradefleet/gradefleet/shared/monitor"
	"github.com/gradefleet/gradefleet/worker/node"
)

// Config of the command; each package documents its own part.
type Config struct {
	Gateway    server.Config  `embed:"" group:"Gateway"`
	Worker     node.Config    `embed:"" group:"Worker"`
	NATS       bus.Config     `embed:"" group:"NATS"`
	Log        logging.Config `embed:"" group:"Log"`
	Monitor    string         `name:"monitor" env:"MONITOR" default:"127.0.0.1:9464" help:"Address of /metrics, /healthz, /readyz and pprof; never public. Empty: none."`
	NATSListen string         `name:"nats-listen" env:"NATS_LISTEN" help:"Address (host:port) on which the embedded NATS also serves other processes; needs nats-user and nats-password. Empty: no port at all."`
}

// Run runs the fleet until ctx is done. It prints where it listens and what is
// in force to out, and logs to logTo.
//
// Order of the end: the gateway stops accepting and answers what is under way,
// the worker drains, the monitor goes, the connection closes, NATS stops.
func Run(ctx context.Context, cfg Config, out, logTo io.Writer) error {
	log, err := logging.New(cfg.Log, logTo)
	if err != nil {
		return err
	}
	cfg.Worker = cfg.Worker.WithDefaults()
	if err := node.MakeData(cfg.Worker.Data); err != nil { // before NATS makes it, for itself only
		return err
	}
	var options []nats.Option
	if cfg.NATS.URL == "" {
		embedded, err := embeddednats.Start(embeddednats.Config{
			Dir: filepath.Join(cfg.Worker.Data, "nats"), Listen: cfg.NATSListen, User: cfg.NATS.User, Password: cfg.NATS.Password,
		}, log)
		if err != nil {
			return err
		}
		defer embedded.Stop()
		options = append(options, embedded.Option())
	}
	nc, err := bus.Connect(cfg.NATS, "gradefleet-up", log, options...)
	if err != nil {
		return err
	}
	defer nc.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	settings := cfg.Gateway.BusSettings(cfg.NATS.Replicas)
	settings.StoreBytes = cfg.NATS.Store
	b, err := bus.Ensure(ctx, nc, settings)
	if err != nil {
		return err
	}
	worker, err := node.New(ctx, cfg.Worker, node.Deps{Bus: b, Registerer: registry, Log: log, Build: buildinfo.Version()})
	if err != nil {
		return err
	}
	gateway, err := server.New(cfg.Gateway, server.Deps{Bus: b, Registerer: registry, Log: log, Build: buildinfo.Version()})
	if err != nil {
		return errors.Join(err, worker.Close())
	}
	m := monitor.New(cfg.Monitor, registry, log)
	m.Register("worker", func(context.Context) error { return worker.Ready() })
	m.Register("gateway", func(context.Context) error { return gateway.Ready() })
	if err := errors.Join(gateway.Listen(), m.Listen()); err != nil {
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		_ = gateway.Run(stopped) // closes it; if it can't listen, it says so again
		return errors.Join(err, worker.Close())
	}
	announce(out, cfg, gateway.Addrs(), m.Addr(), worker)
	return lifecycle.Run(ctx,
		lifecycle.Part{Name: "monitor", Run: m.Run},
		lifecycle.Part{Name: "worker", Run: worker.Run},
		lifecycle.Part{Name: "gateway", Run: gateway.Run},
	)
}

// announce tells a person what runs, where, and how to try it.
func announce(out io.Writer, cfg Config, addresses []string, monitor string, worker *node.Node) {
	fmt.Fprintf(out, "gradefleet %s\n", buildinfo.Version())
	for _, a := range addresses {
		fmt.Fprintf(out, "  API        http://%s\n", a)
	}
	last := addresses[len(addresses)-1]
	fmt.Fprintf(out, "  docs       http://%s/docs\n", last)
	if monitor != "" {
		fmt.Fprintf(out, "  metrics    http://%s/metrics\n", monitor)
	}
	fmt.Fprintf(out, "  data       %s\n", cfg.Worker.Data)
	fmt.Fprintf(out, "  python     %s\n", worker.Python())
	fmt.Fprintf(out, "  isolation  %s\n", worker.Isolation())
	fmt.Fprintf(out, "Try it:\n  curl -s http://%s/evaluate_code -H 'Content-Type: application/json' -d '%s'\n", addresses[0], strings.TrimSpace(tryIt))
}

const tryIt = `{"id": "demo", "code": "def add(a, b):\n    return a + b", "entry_point": "add", "io_cases": [{"input": "a=1, b=2", "output": "3"}]}`
