package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/intake"
	"github.com/gradefleet/gradefleet/worker/internal/interpreter"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/sessionapi"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// Deps is what a worker is given: it opens no connection and no port itself.
type Deps struct {
	Bus        *bus.Bus
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Build is the version string of the program.
	Build string
}

// Node is a worker.
type Node struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	id      string
	started time.Time
	lock    *os.File
	python  *interpreter.Interpreter
	policy  *sandbox.Policy
	store   *session.Store
	copies  *workcopy.Manager
	slots   []*slot
	intake  *intake.Intake
	api     *sessionapi.Service
	metrics *metrics
	ready   bool
	mu      sync.Mutex // guards ready and draining
	drain   bool
	sizing  sync.WaitGroup // measurements of sessions under way
}

// slot is one fork server and the scratch session it uses for jobs of none.
type slot struct {
	*execute.Slot
	scratch  *session.Scratch
	restarts int
}

// New prepares a worker: the data directory, the interpreter, the sandbox, warm
// slots, and the sessions found on disk. It takes no job before Run.
func New(ctx context.Context, cfg Config, deps Deps) (_ *Node, err error) {
	cfg = cfg.WithDefaults()
	n := &Node{cfg: cfg, deps: deps, log: deps.Log, started: time.Now()}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := n.prepare(ctx, bus.MaxPayload(deps.Bus.NC)); err != nil {
		return nil, err
	}
	if err := n.openCopies(); err != nil {
		return nil, err
	}
	n.intake, err = intake.New(ctx, deps.Bus, intake.Config{
		Worker: n.id, Slots: cfg.Slots, Handle: n.handle, Idle: n.idle, Keeper: kept.New(deps.Bus),
		Metrics: intake.NewMetrics(deps.Registerer, cfg.Slots), Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	n.log.Info("worker ready", "slots", cfg.Slots, "python", n.python.String(), "isolation", n.policy.Report(), "data", cfg.Data, "sessions", len(n.store.List()), "durability", cfg.durability())
	return n, nil
}

// prepare makes all of a worker that needs no queue. What it opened on the way
// to an error is for close. payload is the largest message, in bytes, that will
// carry an answer.
func (n *Node) prepare(ctx context.Context, payload int64) error {
	cfg := n.cfg
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := n.openData(); err != nil {
		return err
	}
	n.log = n.deps.Log.With("worker", n.id)
	var user *syscall.Credential
	var err error
	users := os.Getuid() == 0 && cfg.UIDCount > 0 && !slices.Contains(cfg.without(), sandbox.Users)
	if users {
		user = &syscall.Credential{Uid: uint32(cfg.UIDBase), Gid: uint32(cfg.UIDBase)}
	}
	sessions := session.Config{
		Root: filepath.Join(cfg.Data, "sessions"), Log: n.log,
		QuotaBytes: cfg.SessionBytes, QuotaFiles: cfg.SessionFiles,
	}
	if users {
		sessions.UIDBase, sessions.UIDCount = cfg.UIDBase, cfg.UIDCount
	}
	if n.store, err = session.Open(sessions); err != nil {
		return fmt.Errorf("open sessions: %w", err)
	}
	if n.python, err = interpreter.Find(ctx, cfg.Python, user); err != nil {
		return err
	}
	if err := n.linkPython(); err != nil {
		return err
	}
	if n.policy, err = sandbox.NewPolicy(sandbox.Config{
		Name: n.id, Users: users, Bin: n.binDir(), Without: cfg.without(), Log: n.log,
		Runtime: slices.Concat(n.python.Prefixes, n.python.SysPath), Writable: n.store.JobDirs(),
		Processes: cfg.Processes, OpenFiles: cfg.OpenFiles, FileBytes: cfg.FileBytes,
	}); err != nil {
		return err
	}
	n.metrics = newMetrics(n.deps.Registerer, n)
	if err := n.warmSlots(payload); err != nil {
		return err
	}
	return n.selfTest(ctx)
}

// openCopies prepares what sessions are stored in.
func (n *Node) openCopies() error {
	store, err := durable.New(durable.Config{
		Bus: n.deps.Bus, Worker: n.id, Grace: n.cfg.BlobGrace, Durable: n.cfg.durable(), Metrics: durable.NewMetrics(n.deps.Registerer),
	})
	if err != nil {
		return err
	}
	n.copies = workcopy.New(workcopy.Config{
		Sessions: n.store, Store: store, Durable: n.cfg.durable(), Worker: n.id,
		Metrics: workcopy.NewMetrics(n.deps.Registerer), Log: n.log,
	})
	return nil
}

// ID is the worker's name in the fleet.
func (n *Node) ID() string { return n.id }

// Isolation says in one line what is in force.
func (n *Node) Isolation() string { return n.policy.Report() }

// Python names the interpreter of submissions.
func (n *Node) Python() string { return n.python.String() }

// MakeData makes a data directory. As root it lets others pass through, as the
// sessions' users must, without letting them see what is in it.
func MakeData(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make data directory: %w; choose another with --data or DATA", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if os.Getuid() == 0 && info.Mode()&0o001 == 0 {
		if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
			return fmt.Errorf("let the sessions' users pass through the data directory: %w", err)
		}
	}
	return nil
}

// openData makes the data directory, takes its lock and reads the worker's id.
func (n *Node) openData() error {
	dir := n.cfg.Data
	if err := MakeData(dir); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "worker.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	n.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock data directory %s: another worker uses it; give each worker a --data of its own: %w", dir, err)
	}
	file := filepath.Join(dir, "worker-id")
	if n.id = n.cfg.ID; n.id != "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		n.id = "worker-" + protocol.NewID()[:8]
		return os.WriteFile(file, []byte(n.id+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("read worker id: %w", err)
	}
	n.id = strings.TrimSpace(string(data))
	if err := protocol.CheckWorkerID(n.id); err != nil {
		return fmt.Errorf("%s: %w; delete the file to get a new id", file, err)
	}
	return nil
}

func (n *Node) binDir() string { return filepath.Join(n.cfg.Data, "bin") }

// linkPython puts the interpreter of submissions first on the PATH of commands,
// as python and python3.
func (n *Node) linkPython() error {
	if err := os.MkdirAll(n.binDir(), 0o755); err != nil {
		return fmt.Errorf("make bin directory: %w", err)
	}
	for _, name := range []string{"python", "python3"} {
		link := filepath.Join(n.binDir(), name)
		if old, err := os.Readlink(link); err == nil && old == n.python.Path {
			continue
		}
		os.Remove(link)
		if err := os.Symlink(n.python.Path, link); err != nil {
			return fmt.Errorf("link interpreter: %w", err)
		}
	}
	return nil
}

// warmSlots starts the fork servers, side by side.
func (n *Node) warmSlots(payload int64) error {
	limits := n.cfg.limits()
	carried := int(payload) - protocol.MessageOverheadBytes
	limits.Answer = min(limits.Answer, carried)
	// A byte of output can take six in JSON, and there are two streams.
	limits.Output = min(limits.Output, limits.Answer/14)
	cfg := execute.Config{Python: n.python, Policy: n.policy, Limits: limits, Log: n.log}
	n.slots = make([]*slot, n.cfg.Slots)
	errs := make([]error, n.cfg.Slots)
	var wg sync.WaitGroup
	for i := range n.slots {
		wg.Go(func() {
			s := &slot{}
			n.slots[i] = s
			if s.scratch, errs[i] = n.store.NewScratch(fmt.Sprintf("slot-%d", i)); errs[i] != nil {
				return
			}
			s.Slot, errs[i] = execute.NewSlot(cfg, fmt.Sprintf("slot-%d", i), execute.Place{Place: n.placeOf(s.scratch)})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Run takes jobs and serves sessions until ctx is done; then it drains. It
// returns nil for a requested stop.
//
// Order of the end: the heartbeat says draining, intake stops pulling and waits
// for running jobs (DrainTimeout, then they are handed back), session
// operations stop, the heartbeat's key goes, the fork servers end.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	work, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	var err error
	if n.api, err = sessionapi.Serve(n.deps.Bus.NC, n.id, (&protocol.Heartbeat{Started: n.started}).Instance(), n.deps.Build, n.copies, n.log); err != nil {
		return err
	}
	beating := make(chan struct{})
	beatCtx, stopBeat := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(beating)
		n.heartbeats(beatCtx)
	}()
	defer func() {
		// Operations under way are answered, and no more are taken, before
		// anybody is told that this worker's sessions may be taken over.
		n.api.Stop()
		stopBeat()
		<-beating
		n.api.Close()
	}()
	go n.watchConnection(beatCtx)
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		n.copies.RunSweeps(ctx, workcopy.SweepConfig{Interval: n.cfg.CollectInterval, TTL: n.cfg.SessionTTL})
	})
	defer sweeping.Wait()
	stop := context.AfterFunc(ctx, func() {
		n.setDraining()
		time.AfterFunc(n.cfg.DrainTimeout, kill)
	})
	defer stop()
	return n.intake.Run(ctx, work)
}

// Close gives back what New took, for a worker that is not Run.
func (n *Node) Close() error {
	n.close()
	return nil
}

// watchConnection tells the intake when the connection was made anew.
func (n *Node) watchConnection(ctx context.Context) {
	connected := n.deps.Bus.NC.StatusChanged(nats.CONNECTED)
	defer n.deps.Bus.NC.RemoveStatusListener(connected)
	for {
		select {
		case <-connected:
			n.intake.Reconnected()
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) setDraining() {
	n.mu.Lock()
	n.drain = true
	n.mu.Unlock()
	n.log.Info("worker draining", "timeout", n.cfg.DrainTimeout)
}

// Ready reports whether the worker takes jobs, for a readiness check.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.drain:
		return errors.New("draining")
	case !n.ready:
		return errors.New("no heartbeat written yet")
	case !n.deps.Bus.NC.IsConnected():
		return errors.New("not connected to NATS")
	}
	return nil
}

// close ends the fork servers and gives the data directory free.
func (n *Node) close() {
	n.sizing.Wait()
	if n.copies != nil {
		n.copies.Close()
	}
	for _, s := range n.slots {
		if s == nil {
			continue
		}
		if s.Slot != nil {
			s.Slot.Close()
		}
		if s.scratch != nil {
			s.scratch.Close()
		}
	}
	if n.store != nil {
		n.store.Close()
	}
	if n.lock != nil {
		n.lock.Close()
	}
}
