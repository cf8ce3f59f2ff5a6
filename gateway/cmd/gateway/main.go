// Command gateway is one gateway of a fleet: it serves the HTTP API and passes
// requests on to workers by way of NATS. See gradefleet up for everything in
// one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/buildinfo"
	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/lifecycle"
	"github.com/gradefleet/gradefleet/shared/logging"
	"github.com/gradefleet/gradefleet/shared/monitor"
)

// options of the command; each package documents its own part.
type options struct {
	Gateway server.Config    `embed:"" group:"Gateway"`
	NATS    bus.Config       `embed:"" group:"NATS"`
	Log     logging.Config   `embed:"" group:"Log"`
	Monitor string           `name:"monitor" env:"MONITOR" default:"127.0.0.1:9464" help:"Address of /metrics, /healthz, /readyz and pprof; never public. Empty: none."`
	Check   bool             `name:"healthcheck" help:"Start nothing: ask the process that runs here, at the monitor's address, whether it is ready, and exit with 1 if not. For health checks of containers."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, logTo io.Writer) error {
	var o options
	parser, err := kong.New(&o, kong.Name("gateway"),
		kong.Description("One gradefleet gateway: serves the HTTP API and passes requests on to workers."),
		kong.Vars{"version": buildinfo.Version()})
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
	if err := o.Gateway.Validate(); err != nil {
		return err
	}
	log, err := logging.New(o.Log, logTo)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	nc, err := bus.Connect(o.NATS, "gradefleet-gateway", log)
	if err != nil {
		return err
	}
	defer nc.Close()
	settings := o.Gateway.BusSettings(o.NATS.Replicas)
	settings.StoreBytes = o.NATS.Store
	b, err := bus.Ensure(ctx, nc, settings)
	if err != nil {
		return err
	}
	s, err := server.New(o.Gateway, server.Deps{Bus: b, Registerer: registry, Log: log, Build: buildinfo.Version()})
	if err != nil {
		return err
	}
	m := monitor.New(o.Monitor, registry, log)
	m.Register("gateway", func(context.Context) error { return s.Ready() })
	return lifecycle.Run(ctx,
		lifecycle.Part{Name: "monitor", Run: m.Run},
		lifecycle.Part{Name: "gateway", Run: s.Run},
	)
}
