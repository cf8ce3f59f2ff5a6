// Command chaos kills parts of a fleet that it starts, under load, and proves
// that nothing was lost. See docs/chaos.md; make chaos runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/gradefleet/gradefleet/cli/internal/chaos"
)

type commands struct {
	chaos.Config `embed:""`
	Run          struct{} `cmd:"" default:"1" help:"Faults at random from a seed under a mixed load, and a check of every answer and every acknowledged write."`
	Roll         struct{} `cmd:"" help:"Every process restarted in turn under load, without a failed request."`
	Batch        struct{} `cmd:"" help:"10,000 submissions through /evaluate_batch on one connection while workers are killed 20 times: every result once."`
	Figures      struct{} `cmd:"" help:"How long it takes until a killed worker's jobs are answered and its sessions are there again."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var c commands
	parser, err := kong.New(&c, kong.Name("chaos"), kong.UsageOnError(),
		kong.Description("Kills, stops, cuts off and restarts the parts of a fleet under load and checks that it keeps its promises."))
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return err
	}
	switch command.Selected().Name {
	case "roll":
		return chaos.Roll(ctx, c.Config, os.Stdout)
	case "batch":
		return chaos.Batch(ctx, c.Config, os.Stdout)
	case "figures":
		return chaos.Figures(ctx, c.Config, os.Stdout)
	}
	return chaos.Run(ctx, c.Config, os.Stdout)
}
