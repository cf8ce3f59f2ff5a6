package execute

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/spawner"
)

// engine is a fork server with what it is confined by. It starts the server
// when it is first needed and again when it was lost. It runs one job at a time.
type engine struct {
	cfg     Config
	cell    *sandbox.Cell
	preload []string
	// spawner says that the server is one for commands, without Python.
	spawner  bool
	server   *pyrunner.Server
	restarts int
	used     time.Time
}

// newEngine returns an engine whose fork server is warm.
func newEngine(cfg Config, name string, usual Place, preload []string) (*engine, error) {
	return (&engine{cfg: cfg, preload: preload}).begin(name, usual)
}

// newSpawner returns an engine for commands.
func newSpawner(cfg Config, name string, usual Place) (*engine, error) {
	return (&engine{cfg: cfg, spawner: true}).begin(name, usual)
}

func (e *engine) begin(name string, usual Place) (*engine, error) {
	cell, err := e.cfg.Policy.NewCell(name)
	if err != nil {
		return nil, err
	}
	cell.Usual(usual.Place)
	e.cell, e.used = cell, time.Now()
	if err := e.start(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *engine) start() error {
	server, err := pyrunner.StartServer(e.config())
	if err != nil {
		return err
	}
	e.server = server
	if err := e.cell.Started(server.Pid()); err != nil {
		return err
	}
	e.ready()
	return nil
}

func (e *engine) config() pyrunner.Config {
	c := pyrunner.Config{
		Command: func(args ...string) *exec.Cmd {
			return e.cell.Command(e.cfg.Python.Path, args...)
		},
		Confined:      e.cell.Confined(),
		End:           e.cell.End,
		Blocked:       sandbox.Blocked,
		Delay:         sandbox.Delay,
		Path:          e.cfg.Python.SysPath,
		Preload:       e.preload,
		SandboxSource: sandbox.EnterSource,
		Limits:        e.cfg.Limits.reported(),
		KillTimeout:   e.cfg.KillTimeout,
	}
	if e.spawner {
		c.Native = true
		c.Command = func(...string) *exec.Cmd {
			cmd := e.cell.Command(spawner.Program, spawner.Args(e.cell.Confined())...)
			cmd.Env = append(cmd.Env, spawner.Environment...)
			return cmd
		}
	}
	return c
}

func (e *engine) restart() error {
	e.stop()
	e.restarts++
	if err := e.start(); err != nil {
		return fmt.Errorf("restart fork server: %w", err)
	}
	return nil
}

// open prepares a place for a job, if need be with another fork server: what
// prepares it may have been lost with the last.
func (e *engine) open(at Place) (*sandbox.Room, error) {
	e.used = time.Now()
	if e.server != nil {
		room, err := e.cell.Open(at.Place)
		if err == nil {
			return room, nil
		}
		e.cfg.Log.Warn("prepare place", "error", err)
	}
	if err := e.restart(); err != nil {
		return nil, err
	}
	return e.cell.Open(at.Place)
}

// ready forks a child ahead of need. A spawner makes none: it needs no time.
func (e *engine) ready() {
	if e.server != nil && !e.spawner {
		e.server.Prefork() // a failure shows at the next job, which starts a new server
	}
}

// unused is how long ago the engine's last job began.
func (e *engine) unused() time.Duration { return time.Since(e.used) }

// close ends the fork server and everything it forked.
func (e *engine) close() {
	e.stop()
	if err := e.cell.Close(); err != nil {
		e.cfg.Log.Warn("close slot", "error", err)
	}
}

// stop ends the fork server; the next job starts another.
func (e *engine) stop() {
	if e.server == nil {
		return
	}
	if err := e.server.Close(); err != nil {
		e.cfg.Log.Warn("end fork server", "error", err)
	}
	e.server = nil
}

// run has one process do a job. If the fork server is lost on the way, lost is
// true, and the slot gets a new one with its next job: the caller decides
// whether the submission is to blame. An error means that the platform can't
// run jobs, or that ctx is done.
func (e *engine) run(ctx context.Context, room *sandbox.Room, job pyrunner.Job) (exit pyrunner.Exit, lost bool, err error) {
	if e.server == nil {
		if err := e.restart(); err != nil {
			return exit, false, err
		}
		if err := room.Renew(); err != nil {
			return exit, false, err
		}
	}
	job.Ruleset = room.Ruleset
	exit, err = e.server.Run(ctx, job)
	if gone := e.server.Lost(); gone != nil {
		e.cfg.Log.Warn("fork server lost", "error", gone)
		e.stop()
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
