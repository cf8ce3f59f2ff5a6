package localfleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Process is one process of a fleet.
type Process struct {
	Name string

	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// stopTimeout is how long a process may take to end after SIGTERM.
const stopTimeout = 20 * time.Second

// run starts a program of ours, with our environment, but for what it says of
// NATS, and env.
func (f *Fleet) run(binaries, name string, env []string, args ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(f.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(filepath.Join(binaries, name), args...)
	inherited := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "NATS_") })
	p.cmd.Env = slices.Concat(inherited, []string{"MONITOR=127.0.0.1:0"}, env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal is for us, and we end it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w; 'make build bin/nats-server' builds what is needed", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	f.processes = append(f.processes, p)
	return p, nil
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when it has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Log is the end of what it logged.
func (p *Process) Log() string {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func (p *Process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("stop %s: it did not end within %v of SIGTERM", p.Name, stopTimeout)
	}
}
