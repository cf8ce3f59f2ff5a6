// Package limit is what fleets are measured against: warm Python processes, as
// many as there are slots, that do the same Python work with nothing around it.
// Nothing in it is of the worker's. It takes no code that isn't trusted.
package limit

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

//go:embed limit.py
var source string

// Mode is what a process does for a request.
type Mode string

// The modes.
const (
	// Fork grades a submission in a child forked for it, and waits for it.
	Fork Mode = "fork"
	// Inline grades it in the process itself.
	Inline Mode = "inline"
	// Bare forks a child that does nothing, and waits for it.
	Bare Mode = "bare"
	// Run runs the shell with 'echo hi' in a child.
	Run Mode = "run"
)

// Config of the processes.
type Config struct {
	// Python is the interpreter's path.
	Python string
	// Processes is how many there are.
	Processes int
	// Preload names modules that each imports at its start.
	Preload []string
	// Resident is what each has in memory at least, in bytes.
	Resident int64
	// Collect leaves Python's collector of cyclic garbage on, as Inline needs
	// it: each case leaves some behind. What forks does better without.
	Collect bool
}

// Limit is a set of such processes. One goroutine at a time uses it.
type Limit struct{ processes []*process }

type process struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	resident int64
}

// Start starts the processes and waits until they are warm.
func Start(cfg Config) (*Limit, error) {
	l := &Limit{}
	for range cfg.Processes {
		p, err := start(cfg)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start bare Python: %w", err), l.Close())
		}
		l.processes = append(l.processes, p)
	}
	return l, nil
}

func start(cfg Config) (*process, error) {
	p := &process{cmd: exec.Command(cfg.Python, "-I", "-c", source)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	preload := cfg.Preload
	if preload == nil {
		preload = []string{}
	}
	var warm struct {
		Resident int64 `json:"resident"`
	}
	if err := p.ask(map[string]any{"preload": preload, "resident": cfg.Resident, "collect": cfg.Collect}, &warm); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.resident = warm.Resident
	return p, nil
}

// ask sends a line and reads the answer.
func (p *process) ask(request, answer any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ask bare Python: %w", err)
	}
	said, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("bare Python ended: %w", err)
	}
	return json.Unmarshal(said, answer)
}

// Row is a submission: the body of an evaluate request, and its verdicts.
type Row struct {
	Body     string
	Verdicts []bool
}

// Load gives every process the rows of a kind of request. They go through them
// in turn, each beginning at another.
func (l *Limit) Load(kind string, rows []Row) error {
	bodies, verdicts := make([]string, len(rows)), make([][]int, len(rows))
	for i, r := range rows {
		bodies[i] = r.Body
		verdicts[i] = make([]int, len(r.Verdicts))
		for k, v := range r.Verdicts {
			if v {
				verdicts[i][k] = 1
			}
		}
	}
	for i, p := range l.processes {
		request := map[string]any{"op": "load", "kind": kind, "rows": bodies, "verdicts": verdicts, "first": i * len(rows) / len(l.processes)}
		if err := p.ask(request, &struct{}{}); err != nil {
			return fmt.Errorf("load %s: %w", kind, err)
		}
	}
	return nil
}

// Round is what one process did in one round.
type Round struct {
	// Took is the time of each request with right verdicts.
	Took []time.Duration
	// Cases is how many those requests had.
	Cases int
	// Wrong lists the rows, by number, whose verdicts were not as recorded.
	Wrong []int
	// Busy is the time from the round's start to the end of the last request.
	Busy time.Duration
}

// Do lets n processes (0 or too many: all of them) answer requests of a loaded
// kind, one after the other, for so long.
func (l *Limit) Do(kind string, mode Mode, n int, seconds time.Duration) ([]Round, error) {
	if n <= 0 || n > len(l.processes) {
		n = len(l.processes)
	}
	rounds, errs := make([]Round, n), make([]error, n)
	var all sync.WaitGroup
	for i, p := range l.processes[:n] {
		all.Go(func() {
			var said struct {
				Took  []int64 `json:"took"` // ns
				Cases int     `json:"cases"`
				Wrong []int   `json:"wrong"`
				Busy  int64   `json:"busy"` // ns
			}
			errs[i] = p.ask(map[string]any{"op": "round", "kind": kind, "mode": mode, "seconds": seconds.Seconds()}, &said)
			r := &rounds[i]
			r.Cases, r.Wrong, r.Busy = said.Cases, said.Wrong, time.Duration(said.Busy)
			for _, ns := range said.Took {
				r.Took = append(r.Took, time.Duration(ns))
			}
		})
	}
	all.Wait()
	return rounds, errors.Join(errs...)
}

// Pids are those of the processes.
func (l *Limit) Pids() []int {
	pids := make([]int, len(l.processes))
	for i, p := range l.processes {
		pids[i] = p.cmd.Process.Pid
	}
	return pids
}

// Resident is what each process has in memory, in bytes.
func (l *Limit) Resident() int64 { return l.processes[0].resident }

// Close ends the processes.
func (l *Limit) Close() error {
	var errs []error
	for _, p := range l.processes {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

func (p *process) close() error {
	p.in.Close() // no more requests: it ends
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("end bare Python: %w", err)
	}
	return nil
}
