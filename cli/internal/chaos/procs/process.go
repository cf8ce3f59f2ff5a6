package procs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Busy is held by who does something to a process that ends with it as it was.
// One that is asked to end may take longer than planned.
func (p *Process) Busy() *sync.Mutex { return &p.busy }

// Class is what a process is.
type Class string

// The classes.
const (
	NATS    Class = "nats"
	Gateway Class = "gateway"
	Worker  Class = "worker"
)

// Process is one process of the fleet, through all its restarts.
type Process struct {
	Class Class
	Name  string
	// Data is its data directory, "" for a gateway.
	Data string
	// URL is a gateway's.
	URL string
	// Monitor is the address that its health is asked at, and its metrics.
	Monitor string

	health string // URL
	path   string
	args   []string
	env    []string
	log    *os.File
	// links are its proxies to NATS; those of a NATS server are all between it and
	// the others, which share them.
	links []*Link

	busy sync.Mutex

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	life int           // how often it was started
	// wanted says that it is meant to run: a process that isn't and ends is no surprise.
	wanted bool
	died   []string // unexpected ends
}

// Start starts the process, which must not run.
func (p *Process) Start() error {
	if p.Running() {
		return fmt.Errorf("start %s: it runs", p.Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// A group of its own: an interrupt at the terminal is the harness', which
	// ends them in order; should the harness die, they go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.done, p.wanted = cmd, make(chan struct{}), true
	p.life++
	done := p.done
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		if p.wanted && p.cmd == cmd {
			p.died = append(p.died, fmt.Sprintf("%s (pid %d) ended by itself: %v", p.Name, cmd.Process.Pid, err))
		}
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// running returns the process and the channel of its end; nil if it has ended.
func (p *Process) running() (*os.Process, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil, nil
	}
	select {
	case <-p.done:
		return nil, p.done
	default:
		return p.cmd.Process, p.done
	}
}

// Running reports whether the process runs; one that is stopped does.
func (p *Process) Running() bool {
	r, _ := p.running()
	return r != nil
}

// Life is how often it was started.
func (p *Process) Life() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// Died lists the ends that nobody caused.
func (p *Process) Died() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.died...)
}

func (p *Process) unwanted() {
	p.mu.Lock()
	p.wanted = false
	p.mu.Unlock()
}

// Kill ends it as a power cut of its own would, and waits until it is gone.
func (p *Process) Kill() {
	p.unwanted()
	if r, done := p.running(); r != nil {
		r.Kill()
		<-done
	}
}

// Stop halts it with SIGSTOP; Continue lets it go on.
func (p *Process) Stop() {
	if r, _ := p.running(); r != nil {
		r.Signal(syscall.SIGSTOP)
	}
}

// Continue lets a stopped process go on.
func (p *Process) Continue() {
	if r, _ := p.running(); r != nil {
		r.Signal(syscall.SIGCONT)
	}
}

// Terminate asks it to end and waits; one that doesn't within limit is killed,
// which is an error.
func (p *Process) Terminate(limit time.Duration) error {
	p.unwanted()
	r, done := p.running()
	if r == nil {
		return nil
	}
	r.Signal(syscall.SIGTERM)
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		r.Kill()
		<-done
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.Name, limit)
	}
}

// Freeze lets nothing through between it and NATS; what is sent waits.
func (p *Process) Freeze() {
	for _, l := range p.links {
		l.freeze()
	}
}

// Sever cuts its connections to NATS and refuses new ones.
func (p *Process) Sever() {
	for _, l := range p.links {
		l.sever()
	}
}

// Heal undoes Freeze and Sever. What waited is delivered late, unless lose says
// that the connections it waits on are lost.
func (p *Process) Heal(lose bool) {
	for _, l := range p.links {
		l.heal(lose)
	}
}

// LoseDisk removes the data directory, as a lost machine does. It must not run.
func (p *Process) LoseDisk() error {
	if p.Running() {
		return fmt.Errorf("%s runs: its disk can't be lost", p.Name)
	}
	if err := os.RemoveAll(p.Data); err != nil {
		return fmt.Errorf("lose the disk of %s: %w", p.Name, err)
	}
	return nil
}

// Tail returns the last bytes of its log.
func (p *Process) Tail(bytes int64) string {
	f, err := os.Open(p.log.Name())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > bytes {
		f.Seek(-bytes, 2)
	}
	b := make([]byte, bytes)
	n, _ := f.Read(b)
	return string(b[:n])
}

func openLog(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, errors.Join(errors.New("open log"), err)
	}
	return f, nil
}
