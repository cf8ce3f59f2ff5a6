package execute

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// Slot runs one job at a time on a fork server of its own. It starts the
// server when it is first needed and again when it was lost.
type Slot struct {
	cfg      Config
	server   *pyrunner.Server
	restarts int
}

// NewSlot returns a slot whose fork server is warm.
func NewSlot(cfg Config) (*Slot, error) {
	s := &Slot{cfg: cfg}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Slot) start() error {
	server, err := pyrunner.StartServer(pyrunner.Config{
		Command: func(args ...string) *exec.Cmd {
			return s.cfg.Policy.Command(s.cfg.Python.Path, args...)
		},
		Path:          s.cfg.Python.SysPath,
		Preload:       pyrunner.Preload,
		SandboxSource: sandbox.EnterSource,
		Limits:        s.cfg.Limits.reported(),
	})
	if err != nil {
		return err
	}
	s.server = server
	s.Ready()
	return nil
}

// Ready forks a child ahead of need; to be called when the slot is idle.
func (s *Slot) Ready() {
	if s.server != nil {
		s.server.Prefork() // a failure shows at the next job, which starts a new server
	}
}

// Restarts counts the fork servers that were started after the first.
func (s *Slot) Restarts() int { return s.restarts }

// Close ends the fork server and everything it forked.
func (s *Slot) Close() {
	if s.server != nil {
		s.server.Close()
		s.server = nil
	}
}

// run has one process do a job. If the fork server is lost on the way, lost is
// true, and the slot gets a new one with its next job: the caller decides
// whether the submission is to blame. An error means that the platform can't
// run jobs, or that ctx is done.
func (s *Slot) run(ctx context.Context, job pyrunner.Job) (exit pyrunner.Exit, lost bool, err error) {
	if s.server == nil {
		s.restarts++
		if err := s.start(); err != nil {
			return exit, false, fmt.Errorf("restart fork server: %w", err)
		}
	}
	exit, err = s.server.Run(ctx, job)
	if err != nil {
		s.cfg.Log.Warn("fork server lost", "error", err)
		s.Close()
		if ctx.Err() != nil {
			return exit, false, ctx.Err()
		}
		return exit, true, nil
	}
	if exit.Ending == pyrunner.EndedCancelled {
		return exit, false, ctx.Err()
	}
	return exit, false, nil
}
