package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
)

// Engine is a worker without its queue: the same slots, sandbox and sessions,
// driven by calls. It is what the benchmark holds a fleet against, to tell what
// HTTP and NATS cost.
type Engine struct {
	node *Node
	free chan int // slots without a job
}

// NewEngine prepares slots as a worker of this configuration has them, and
// tries them as a worker does. Close gives back what it takes.
func NewEngine(ctx context.Context, cfg Config, log *slog.Logger) (*Engine, error) {
	cfg = cfg.WithDefaults()
	n := &Node{cfg: cfg, deps: Deps{Registerer: prometheus.NewRegistry(), Log: log}, log: log, started: time.Now()}
	if err := n.prepare(ctx, protocol.MaxMessageBytes); err != nil {
		n.close()
		return nil, err
	}
	e := &Engine{node: n, free: make(chan int, cfg.Slots)}
	for slot := range cfg.Slots {
		e.free <- slot
	}
	return e, nil
}

// Do carries a job out on the next slot that is free, as a worker would, and
// returns its result. What a slot does between two jobs is done after that, as
// in a worker. A job with an epoch is of a session, see Create.
func (e *Engine) Do(ctx context.Context, job protocol.Job) (protocol.Result, error) {
	select {
	case slot := <-e.free:
		defer func() {
			go func() {
				e.node.idle(slot)
				e.free <- slot
			}()
		}()
		return e.node.handle(ctx, slot, job)
	case <-ctx.Done():
		return protocol.Result{}, ctx.Err()
	}
}

// EngineEpoch is the epoch of an engine's sessions, which never move.
const EngineEpoch = 1

// Create makes an empty session, whose jobs have the epoch EngineEpoch.
func (e *Engine) Create(session string) error {
	if _, err := e.node.store.Create(session, EngineEpoch); err != nil {
		return fmt.Errorf("create session %s: %w", session, err)
	}
	return nil
}

// Python is the path of the interpreter of submissions.
func (e *Engine) Python() string { return e.node.python.Path }

// Preload names the modules that a fork server imports at its start.
func (e *Engine) Preload() []string { return slices.Clone(pyrunner.Preload) }

// Level is the isolation level in force.
func (e *Engine) Level() string { return string(e.node.policy.Level()) }

// Close waits for the jobs under way and ends the slots.
func (e *Engine) Close() {
	for range cap(e.free) {
		<-e.free
	}
	e.node.close()
}
