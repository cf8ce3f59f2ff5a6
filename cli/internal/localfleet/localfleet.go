// Package localfleet starts fleets of ours as processes on this machine, on
// free ports of the loopback, for measurements: the all-in-one command, or NATS,
// gateway and worker each by itself. It knows their process ids and ends them.
package localfleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/freeport"
	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

// Config of a fleet.
type Config struct {
	// Binaries is the directory of gradefleet, gateway, worker and nats-server.
	Binaries string
	// Slots of the worker.
	Slots int
	// Number tells the fleets of one measurement apart: as root, each gives its
	// sessions users of its own.
	Number int
	// Env is more environment of its programs.
	Env []string
}

// Fleet is a running fleet.
type Fleet struct {
	// URL of its API.
	URL string
	// NATS lists the URLs of its NATS servers, separated by commas, and
	// NATSMonitors those of their own monitoring; empty if it is embedded.
	NATS         string
	NATSMonitors []string

	replicas int

	dir       string
	processes []*Process
}

// Users that fleets of measurements give their sessions, as root: out of the way
// of the defaults of a fleet that may run beside.
const (
	firstUID     = 400_000
	uidsPerFleet = 2000
)

// startTimeout is how long a process may take to be ready: as long as a gateway waits
// for a new cluster of NATS servers to have its leaders, and some more.
const startTimeout = 150 * time.Second

// Users returns settings that give the sessions of fleet number n their own users.
func Users(n int) (base, count int) { return firstUID + n*uidsPerFleet, uidsPerFleet }

// AllInOne starts `gradefleet up`.
func AllInOne(ctx context.Context, cfg Config) (*Fleet, error) {
	return start(func(f *Fleet) error {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		p, err := f.run(cfg.Binaries, "gradefleet", append(cfg.worker(f.dir), "LISTEN="+addr), "up")
		if err != nil {
			return err
		}
		f.URL = "http://" + addr
		return f.awaitWorkers(ctx, p)
	})
}

// Separate starts a NATS server, a gateway and a worker.
func Separate(ctx context.Context, cfg Config) (*Fleet, error) {
	return start(func(f *Fleet) error {
		if err := f.startControl(ctx, ControlConfig{Binaries: cfg.Binaries, Env: cfg.Env}); err != nil {
			return err
		}
		p, err := f.run(cfg.Binaries, "worker", append(f.natsEnv(), cfg.worker(f.dir)...))
		if err != nil {
			return err
		}
		return f.awaitWorkers(ctx, p)
	})
}

// ControlConfig is of a fleet without workers.
type ControlConfig struct {
	// Binaries is the directory of gateway and nats-server.
	Binaries string
	// QueueLimit is how many jobs a queue takes; 0: the default.
	QueueLimit int
	// Env is more environment of the gateway.
	Env []string
	// Servers is how many NATS servers there are: 1, or a cluster of 3 that
	// keeps three copies of everything. 0: 1.
	Servers int
}

// Control starts NATS and a gateway, and no worker.
func Control(ctx context.Context, cfg ControlConfig) (*Fleet, error) {
	return start(func(f *Fleet) error {
		if err := f.startControl(ctx, cfg); err != nil {
			return err
		}
		gateway := f.processes[len(f.processes)-1]
		return f.await(ctx, gateway, "the gateway answers", func() bool { return get(ctx, f.URL+"/") != "" })
	})
}

// Join starts another program of ours, which finds NATS as workers do.
func (f *Fleet) Join(binaries, name string, args ...string) (*Process, error) {
	return f.run(binaries, name, f.natsEnv(), args...)
}

// worker is the environment of a program that has a worker in it.
func (c Config) worker(dir string) []string {
	base, count := Users(c.Number)
	env := []string{"DATA=" + filepath.Join(dir, "state"), "GRADEFLEET_SLOTS=" + strconv.Itoa(c.Slots)}
	env = append(env, c.Env...)
	if os.Getuid() == 0 {
		env = append(env, fmt.Sprint("GRADEFLEET_UID_BASE=", base), fmt.Sprint("GRADEFLEET_UID_COUNT=", count))
	}
	return env
}

func start(do func(*Fleet) error) (*Fleet, error) {
	dir, err := os.MkdirTemp("", "gradefleet-local-")
	if err != nil {
		return nil, fmt.Errorf("start fleet: %w", err)
	}
	f := &Fleet{dir: dir}
	// Sessions' users may pass through, not look.
	err = os.Chmod(dir, 0o711)
	if err == nil {
		err = do(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start fleet: %w", err), f.Stop())
	}
	return f, nil
}

// startControl starts NATS and a gateway.
func (f *Fleet) startControl(ctx context.Context, cfg ControlConfig) error {
	if err := f.startNATS(ctx, cfg.Binaries, max(cfg.Servers, 1)); err != nil {
		return err
	}
	api, err := freeAddress()
	if err != nil {
		return err
	}
	env := append(append(f.natsEnv(), "LISTEN="+api), cfg.Env...)
	if cfg.QueueLimit > 0 {
		env = append(env, fmt.Sprint("GRADEFLEET_QUEUE_LIMIT=", cfg.QueueLimit))
	}
	if _, err := f.run(cfg.Binaries, "gateway", env); err != nil {
		return err
	}
	f.URL = "http://" + api
	return nil
}

// User and Password are the login of a fleet's NATS server, which only this
// machine reaches and which lives as long as the measurement.
const User, Password = "fleet", "local"

func (f *Fleet) natsEnv() []string {
	return []string{"NATS_URL=" + f.NATS, "NATS_USER=" + User, "NATS_PASSWORD=" + Password, fmt.Sprint("NATS_REPLICAS=", f.replicas)}
}

func (f *Fleet) awaitWorkers(ctx context.Context, p *Process) error {
	return f.await(ctx, p, "the gateway sees the worker", func() bool {
		return strings.Contains(get(ctx, f.URL+"/workers"), `"worker":`)
	})
}

// await looks until something is so, or p has ended.
func (f *Fleet) await(ctx context.Context, p *Process, what string, so func() bool) error {
	for deadline := time.Now().Add(startTimeout); ; {
		if so() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("await that %s: not within %v\n%s", what, startTimeout, p.Log())
		}
		select {
		case <-p.ended:
			return fmt.Errorf("await that %s: %s ended by itself\n%s", what, p.Name, p.Log())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// get returns the body of a page, or "" if there is none.
func get(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	req.Close = true // no connection is left behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return string(body)
}

// Pids are those of its processes, without what they started.
func (f *Fleet) Pids() []int {
	pids := make([]int, len(f.processes))
	for i, p := range f.processes {
		pids[i] = p.Pid()
	}
	return pids
}

// Processes are all of them, in the order of their start.
func (f *Fleet) Processes() []*Process { return f.processes }

// PidsOf are those of its processes of a name.
func (f *Fleet) PidsOf(name string) []int {
	var pids []int
	for _, p := range f.processes {
		if p.Name == name {
			pids = append(pids, p.Pid())
		}
	}
	return pids
}

// Slots returns the processes beneath the one that has the worker in it: the
// fork servers and what belongs to them.
func (f *Fleet) Slots() ([]proctable.Process, error) {
	t, err := proctable.Read()
	if err != nil {
		return nil, err
	}
	return t.Below(f.processes[len(f.processes)-1].Pid()), nil
}

// Stop ends its processes, the last first, and removes its files.
func (f *Fleet) Stop() error {
	var errs []error
	for i := len(f.processes) - 1; i >= 0; i-- {
		errs = append(errs, f.processes[i].stop())
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

func freeAddress() (string, error) {
	ports, err := freeport.Find(1)
	if err != nil {
		return "", err
	}
	return freeport.Address(ports[0]), nil
}
