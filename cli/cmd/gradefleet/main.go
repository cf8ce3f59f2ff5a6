// Command gradefleet runs a whole fleet in one process, and drives fleets.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/gradefleet/gradefleet/cli/internal/bench"
	"github.com/gradefleet/gradefleet/cli/internal/grade"
	"github.com/gradefleet/gradefleet/cli/internal/growth"
	"github.com/gradefleet/gradefleet/cli/internal/overload"
	"github.com/gradefleet/gradefleet/cli/internal/show"
	"github.com/gradefleet/gradefleet/cli/internal/up"
	"github.com/gradefleet/gradefleet/shared/buildinfo"
)

// commands of the program; each package documents its own options.
type commands struct {
	Up       up.Config       `cmd:"" help:"Run the whole fleet in this process: NATS with JetStream, a gateway, a worker."`
	Grade    grade.Config    `cmd:"" help:"Grade the rows of workload files and compare with recorded verdicts."`
	Bench    bench.Config    `cmd:"" help:"Drive one or two servers and print throughput and latency."`
	Growth   growth.Config   `cmd:"" hidden:"" help:"Measure what a fleet costs as it grows, with simulated workers."`
	Overload overload.Config `cmd:"" help:"Send a fleet of its own several times what it can answer, and check that it holds."`
	Workers  show.Workers    `cmd:"" help:"Show who is alive, their slots and isolation, and how long the queues are."`
	Jobs     show.Jobs       `cmd:"" help:"Show asynchronous jobs and the queues, fetch a job's result, cancel a job."`
	Version  struct{}        `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gradefleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var c commands
	parser, err := kong.New(&c, kong.Name("gradefleet"), kong.UsageOnError(),
		kong.Description("Runs and grades untrusted code at high volume."))
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(command.Command(), " ")
	switch name {
	case "up":
		return up.Run(ctx, c.Up, os.Stdout, os.Stderr)
	case "grade":
		return grade.Run(ctx, c.Grade, os.Stdout, os.Stderr)
	case "bench":
		return bench.Run(ctx, c.Bench, os.Stdout)
	case "overload":
		return overload.Run(ctx, c.Overload, os.Stdout)
	case "growth":
		return growth.Run(ctx, c.Growth, os.Stdout, os.Stderr)
	case "workers":
		return c.Workers.Run(ctx, os.Stdout)
	case "jobs":
		return c.Jobs.Run(ctx, command.Command(), os.Stdout)
	}
	fmt.Println(buildinfo.Version())
	return nil
}
