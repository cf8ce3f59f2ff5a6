package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/load"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

const (
	// figureJob is how long the job of a round runs, and figureKill when its
	// worker is killed.
	figureJob, figureKill = 600 * time.Millisecond, 300 * time.Millisecond
	// figureWait is how long a session may take to be there again without its
	// worker; then the worker is started.
	figureWait = 20 * time.Second
)

// Figures kills the worker that owns a session and runs a job, CHAOS_KILLS times
// over, and measures how long after the kill the job is answered and the session
// read. The worker is started again when both are done.
func Figures(ctx context.Context, cfg Config, out io.Writer) error {
	s, err := open(ctx, cfg, out)
	if err != nil {
		return err
	}
	return s.close(s.figures(ctx))
}

func (s *stage) figures(ctx context.Context) error {
	var jobs, reads []time.Duration
	alone := 0
	for i := range s.cfg.Kills {
		if err := s.fleet.AwaitWhole(ctx); err != nil {
			return err
		}
		f, err := s.figure(ctx, fmt.Sprintf("figure-%d-%d", s.cfg.Seed, i), i)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		jobs, reads = append(jobs, f.job), append(reads, f.read)
		if f.alone {
			alone++
		}
		fmt.Fprintf(s.out, "%3d: %s killed: its job answered after %.2f s, its session read after %.2f s\n", i+1, f.worker, f.job.Seconds(), f.read.Seconds())
	}
	fmt.Fprintf(s.out, "\nfrom kill -9 of a worker, %d times\n", len(jobs))
	fmt.Fprintf(s.out, "  to the answer of its job (which runs %.1f s): %s\n", figureJob.Seconds(), spread(jobs))
	fmt.Fprintf(s.out, "  to the next read of its session: %s; %d of them without the worker being started again\n", spread(reads), alone)
	return nil
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "not measured"
	}
	slices.Sort(d)
	return fmt.Sprintf("median %.2f s, worst %.2f s", d[len(d)/2].Seconds(), d[len(d)-1].Seconds())
}

type figure struct {
	worker    string
	job, read time.Duration
	alone     bool // the session was there without its old worker
}

// figure is one round. Every worker has one slot, so as many jobs as there are
// workers occupy each of them; the answer that comes last is that of the job
// whose worker was killed.
func (s *stage) figure(ctx context.Context, session string, round int) (f figure, err error) {
	gateway := round % gateways
	if err := s.clients.Write(ctx, gateway, session, "a", session); err != nil {
		return f, err
	}
	p, err := s.ownerOf(ctx, session)
	if err != nil {
		return f, err
	}
	f.worker = p.Name
	answers := make(chan error, workers)
	for i := range workers {
		go func() { answers <- s.clients.Sleep(ctx, (gateway+i)%gateways, figureJob, round*workers+i) }()
	}
	wait(ctx, figureKill)
	killed := time.Now()
	p.Kill()

	type outcome struct {
		took time.Duration
		err  error
	}
	read := make(chan outcome, 1)
	go func() {
		took, err := s.clients.AwaitRead(ctx, gateway, session, "a", session, figureWait)
		read <- outcome{took, err}
	}()
	for range workers {
		err = errors.Join(err, <-answers)
	}
	f.job = time.Since(killed)
	there := <-read
	f.alone = there.err == nil
	if startErr := p.Start(); startErr != nil {
		return f, startErr
	}
	if errors.Is(there.err, load.ErrNotThere) {
		there.took, there.err = s.clients.AwaitRead(ctx, gateway, session, "a", session, figureWait)
		there.took += figureWait
	}
	f.read = there.took
	return f, errors.Join(err, there.err)
}

// ownerOf returns the process that owns a session.
func (s *stage) ownerOf(ctx context.Context, session string) (*procs.Process, error) {
	r, err := s.tap.record(ctx, session)
	if err != nil {
		return nil, err
	}
	for _, p := range s.fleet.Workers {
		id, err := os.ReadFile(filepath.Join(p.Data, "worker-id"))
		if err == nil && strings.TrimSpace(string(id)) == r.Worker {
			return p, nil
		}
	}
	return nil, fmt.Errorf("session %s: no process is worker %s", session, r.Worker)
}
