package execute

import (
	"context"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// Slot runs one job at a time, on a warm fork server: on its usual one, on one
// that has loaded the large packages that the job imports, or, a command, on a
// spawner.
type Slot struct {
	cfg   Config
	name  string
	usual Place
	base  *engine
	// more holds the engines that are started when first needed and closed when
	// unused: for large packages, by the package, and for commands.
	more map[string]*engine
	now  *engine // of the job that runs, or ran last
	// noSpawner is until when none is tried, after one couldn't be started.
	noSpawner time.Time
}

const (
	// forCommands is the spawner's key among a slot's engines.
	forCommands = "run"
	// spawnerAgain is how long after a failure a slot tries to start a spawner again.
	spawnerAgain = time.Minute
	// engineIdle is how long an engine that isn't the usual one is kept unused.
	engineIdle = 10 * time.Minute
)

// NewSlot returns a slot whose fork server is warm. The name is unique in the
// worker; usual is where most of its jobs will run.
func NewSlot(cfg Config, name string, usual Place) (*Slot, error) {
	base, err := newEngine(cfg, name, usual, pyrunner.Preload)
	if err != nil {
		return nil, err
	}
	return &Slot{cfg: cfg, name: name, usual: usual, base: base, now: base, more: map[string]*engine{}}, nil
}

// choose decides which engine runs the next job, by the code's imports; "" for
// code that isn't Python. An engine that can't be started is done without.
func (s *Slot) choose(code string) {
	s.now = s.base
	name := largePackage(code, s.cfg.Python.Has)
	if name == "" {
		return
	}
	e := s.more[name]
	if e == nil {
		var err error
		e, err = newEngine(s.cfg, s.name+"-"+name, s.usual, append([]string{name}, pyrunner.Preload...))
		if err != nil {
			s.cfg.Log.Warn("start fork server", "package", name, "error", err)
			return
		}
		s.more[name] = e
	}
	s.now = e
}

// chooseSpawner has the next job, a command, run by the spawner; by the fork
// server if there can't be one.
func (s *Slot) chooseSpawner() {
	s.now = s.base
	e := s.more[forCommands]
	if e == nil {
		if time.Now().Before(s.noSpawner) {
			return
		}
		var err error
		e, err = newSpawner(s.cfg, s.name+"-"+forCommands, s.usual)
		if err != nil {
			s.cfg.Log.Warn("start spawner; commands are forked from Python meanwhile", "error", err)
			s.noSpawner = time.Now().Add(spawnerAgain)
			return
		}
		s.more[forCommands] = e
	}
	s.now = e
}

// Ready forks a child ahead of need; to be called when the slot is idle.
func (s *Slot) Ready() {
	s.now.ready()
	for name, e := range s.more {
		if e != s.now && e.unused() > engineIdle {
			e.close()
			delete(s.more, name)
		}
	}
}

// Restarts counts the fork servers that were started in place of a lost one.
func (s *Slot) Restarts() int {
	sum := s.base.restarts
	for _, e := range s.more {
		sum += e.restarts
	}
	return sum
}

// Close ends the fork servers and everything they forked.
func (s *Slot) Close() {
	s.base.close()
	for _, e := range s.more {
		e.close()
	}
}

// open prepares a place for a job.
func (s *Slot) open(at Place) (*sandbox.Room, error) { return s.now.open(at) }

// run has one process do a job; see [engine.run].
func (s *Slot) run(ctx context.Context, room *sandbox.Room, job pyrunner.Job) (exit pyrunner.Exit, lost bool, err error) {
	return s.now.run(ctx, room, job)
}
