package bench

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

// api is what requests are sent to: a server, or what stands in for one.
type api interface {
	Evaluate(ctx context.Context, body []byte) (fleetclient.Evaluation, error)
	Run(ctx context.Context, session, command string) (fleetclient.RunResult, error)
	WriteFile(ctx context.Context, session, path, content string) error
	ReadFile(ctx context.Context, session, path string) (string, error)
}

// opener is an api that makes sessions otherwise than by writing a file.
type opener interface {
	open(session string) error
}

// looper answers a kind of request by itself until a time, where being asked for
// each would cost more than the answer.
type looper func(k *kind, until time.Time) ([]*observation, error)

// target is one of those under load.
type target struct {
	name string // short, as tables have it
	what string // for the head of the report
	api  api
	// loop is set for what goes through requests by itself; api is nil then.
	loop looper
	// classes are the kinds of requests it can be asked; nil: all but forks.
	classes []class
	// usage is the CPU time that its processes used up to now; nil: unknown.
	usage func(proctable.Table) time.Duration
	// inside says that usage is this process's too, load and all.
	inside bool
	close  func() error
}

// does reports whether the target can be asked requests of a class.
func (t *target) does(c class) bool {
	if t.classes == nil {
		return c != forks
	}
	for _, own := range t.classes {
		if own == c {
			return true
		}
	}
	return false
}

// spent is CPU time at a moment.
type spent struct{ target, driver time.Duration }

func (s spent) minus(o spent) spent { return spent{s.target - o.target, s.driver - o.driver} }
func (s spent) plus(o spent) spent  { return spent{s.target + o.target, s.driver + o.driver} }

// spent reads the CPU time that the target and the load, which is this process,
// used up to now.
func (t *target) spent() (spent, error) {
	var s spent
	var err error
	if s.driver, err = ownCPU(); err != nil || t.usage == nil {
		return s, err
	}
	table, err := proctable.Read()
	if err != nil {
		return s, err
	}
	s.target = t.usage(table)
	if t.inside {
		s.target, s.driver = s.target+s.driver, 0
	}
	return s, nil
}

// ownCPU is what this process used, without its children.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// server returns a target that is reached over HTTP.
func server(cfg Config, name, url string) (*target, error) {
	client, err := fleetclient.New(fleetclient.Config{
		URL: url, AllowRemote: cfg.AllowRemote, Connections: cfg.Clients, Timeout: cfg.Timeout,
	})
	if err != nil {
		return nil, err
	}
	return &target{name: name, what: client.URL(), api: client, close: func() error { client.Close(); return nil }}, nil
}

// ping sees that a server is there.
func ping(ctx context.Context, t *target) error {
	if c, ok := t.api.(*fleetclient.Client); ok {
		if err := c.Ping(ctx); err != nil {
			return fmt.Errorf("reach server %s, is it running? %w", t.name, err)
		}
	}
	return nil
}

// connect makes a client for each server and sees that each is there.
func connect(ctx context.Context, cfg Config) (all []*target, err error) {
	for i, url := range cfg.URL {
		t, err := server(cfg, string(rune('A'+i)), url)
		if err != nil {
			return all, err
		}
		all = append(all, t)
	}
	for _, t := range all {
		if err := ping(ctx, t); err != nil {
			return all, err
		}
	}
	return all, nil
}
