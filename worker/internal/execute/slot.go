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
	cell     *sandbox.Cell
	server   *pyrunner.Server
	restarts int
}

// NewSlot returns a slot whose fork server is warm. The name is unique in the
// worker; usual is where most of its jobs will run.
func NewSlot(cfg Config, name string, usual Place) (*Slot, error) {
	cell, err := cfg.Policy.NewCell(name)
	if err != nil {
		return nil, err
	}
	cell.Usual(usual.Place)
	s := &Slot{cfg: cfg, cell: cell}
	if err := s.start(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Slot) start() error {
	server, err := pyrunner.StartServer(pyrunner.Config{
		Command: func(args ...string) *exec.Cmd {
			return s.cell.Command(s.cfg.Python.Path, args...)
		},
		Confined:      s.cell.Confined(),
		End:           s.cell.End,
		Blocked:       sandbox.Blocked,
		Path:          s.cfg.Python.SysPath,
		Preload:       pyrunner.Preload,
		SandboxSource: sandbox.EnterSource,
		Limits:        s.cfg.Limits.reported(),
	})
	if err != nil {
		return err
	}
	s.server = server
	if err := s.cell.Started(server.Pid()); err != nil {
		return err
	}
	s.Ready()
	return nil
}

func (s *Slot) restart() error {
	s.stop()
	s.restarts++
	if err := s.start(); err != nil {
		return fmt.Errorf("restart fork server: %w", err)
	}
	return nil
}

// open prepares a place for a job, if need be with another fork server: what
// prepares it may have been lost with the last.
func (s *Slot) open(at Place) (*sandbox.Room, error) {
	if s.server != nil {
		room, err := s.cell.Open(at.Place)
		if err == nil {
			return room, nil
		}
		s.cfg.Log.Warn("prepare place", "error", err)
	}
	if err := s.restart(); err != nil {
		return nil, err
	}
	return s.cell.Open(at.Place)
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
	s.stop()
	if err := s.cell.Close(); err != nil {
		s.cfg.Log.Warn("close slot", "error", err)
	}
}

// stop ends the fork server; the next job starts another.
func (s *Slot) stop() {
	if s.server == nil {
		return
	}
	if err := s.server.Close(); err != nil {
		s.cfg.Log.Warn("end fork server", "error", err)
	}
	s.server = nil
}

// run has one process do a job. If the fork server is lost on the way, lost is
// true, and the slot gets a new one with its next job: the caller decides
// whether the submission is to blame. An error means that the platform can't
// run jobs, or that ctx is done.
func (s *Slot) run(ctx context.Context, room *sandbox.Room, job pyrunner.Job) (exit pyrunner.Exit, lost bool, err error) {
	if s.server == nil {
		if err := s.restart(); err != nil {
			return exit, false, err
		}
		if err := room.Renew(); err != nil {
			return exit, false, err
		}
	}
	job.Ruleset = room.Ruleset
	exit, err = s.server.Run(ctx, job)
	if gone := s.server.Lost(); gone != nil {
		s.cfg.Log.Warn("fork server lost", "error", gone)
		s.stop()
		room.EndUser()
	}
	if err != nil {
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
