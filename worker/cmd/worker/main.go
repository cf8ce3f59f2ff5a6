// Command worker is one worker of a fleet: it owns session directories and
// runs submissions. See gradefleet up for everything in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gradefleet/gradefleet/shared/buildinfo"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/lifecycle"
	"github.com/gradefleet/gradefleet/shared/logging"
	"github.com/gradefleet/gradefleet/shared/monitor"
	"github.com/gradefleet/gradefleet/worker/node"
)

// options of the command; each package documents its own part.
type options struct {
	Worker  node.Config      `embed:"" group:"Worker"`
	NATS    bus.Config       `embed:"" group:"NATS"`
	Log     logging.Config   `embed:"" group:"Log"`
	Monitor string           `name:"monitor" env:"MONITOR" default:"127.0.0.1:9465" help:"Address of /metrics, /healthz, /readyz and pprof; never public. Empty: none."`
	Check   bool             `name:"healthcheck" help:"Start nothing: ask the process that runs here, at the monitor's address, whether it is ready, and exit with 1 if not. For health checks of containers."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	parser, err := kong.New(&o, kong.Name("worker"), kong.Description("One gradefleet worker: owns session directories, runs submissions."), kong.Vars{"version": buildinfo.Version()})
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil {
		return err
	}
	if o.Check {
		return monitor.Probe(ctx, o.Monitor)
	}
	if o.NATS.URL == "" {
		return errors.New("set NATS_URL (or --nats-url) to the fleet's NATS servers; 'gradefleet up' runs everything in one process")
	}
	log, err := logging.New(o.Log, os.Stderr)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	nc, err := bus.Connect(o.NATS, "gradefleet-worker", log)
	if err != nil {
		return err
	}
	defer nc.Close()
	b, err := bus.Ensure(ctx, nc, bus.Settings{Replicas: o.NATS.Replicas, StoreBytes: o.NATS.Store})
	if err != nil {
		return err
	}
	n, err := node.New(ctx, o.Worker, node.Deps{Bus: b, Registerer: registry, Log: log, Build: buildinfo.Version()})
	if err != nil {
		return err
	}
	m := monitor.New(o.Monitor, registry, log)
	m.Register("worker", func(context.Context) error { return n.Ready() })
	return lifecycle.Run(ctx,
		lifecycle.Part{Name: "monitor", Run: m.Run},
		lifecycle.Part{Name: "worker", Run: n.Run},
	)
}
