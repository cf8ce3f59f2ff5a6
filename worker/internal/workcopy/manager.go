package workcopy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"golang.org/x/sys/unix"
)

// Config of a Manager.
type Config struct {
	Sessions *session.Store
	Store    *durable.Store
	// Durable says whether what is written is stored; if not, only records are
	// read and removed.
	Durable bool
	// Worker is this worker's id.
	Worker  string
	Metrics *Metrics
	Log     *slog.Logger
}

// Manager is all working copies of a worker. Its methods may be called from any
// goroutine.
type Manager struct {
	Config
	// beaten is when the last heartbeat that was written was begun, in
	// nanoseconds of boot time; lapses counts how often that was too long ago.
	beaten, lapses atomic.Int64
	beats          beats
	ended          ended

	// clock is bootTime, pause waits, askTimeout is how long a former owner may take to
	// answer; tests have others.
	clock      func() int64
	pause      func(context.Context, time.Duration) error
	askTimeout time.Duration

	mu     sync.Mutex
	copies map[string]*workcopy
	busy   sync.WaitGroup // copies that are being given up
}

// Errors that say what to do; those of package session come as they are.
var (
	// ErrElsewhere: this worker is not the session's owner, or not in that
	// epoch. The request has had no effect that lasts.
	ErrElsewhere = errors.New("the session is another worker's")
	// ErrNotStored: a change could not be stored, or may not be. The session
	// goes back to what is stored.
	ErrNotStored = errors.New("not stored")
	// ErrOvertaken: a change that was sent later has come first, so this one was
	// held up on the way and who sent it may have given up; it was not made. Else
	// it would undo what was acknowledged since.
	ErrOvertaken = errors.New("a change that was sent later has come first")
	// ErrBusy: the session is going back to what is stored, which waits for a
	// command that runs in it.
	ErrBusy = errors.New("the session is being restored")
	// ErrHeld: a worker that owned the session before may serve it still. Nothing
	// was done.
	ErrHeld = errors.New("a worker that owned the session before has not let go of it")
)

// New returns a manager.
func New(cfg Config) *Manager {
	return &Manager{Config: cfg, copies: map[string]*workcopy{}, clock: bootTime, pause: pause, askTimeout: askTimeout}
}

// Close waits for what is going on in the background.
func (m *Manager) Close() { m.busy.Wait() }

// bootTime is a clock, in nanoseconds, that goes on while the machine sleeps:
// others count that time.
func bootTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return int64(time.Since(started)) // never seen on Linux
	}
	return t.Nano()
}

var started = time.Now()

// Beat is the begin of a heartbeat; done is to be called when it is written.
func (m *Manager) Beat() (done func()) {
	begun := m.clock()
	return func() {
		// It counts from when it is there for all to see, at the latest now; and
		// a gap must be known before the lease holds again.
		if m.clock()-m.beaten.Load() > int64(protocol.WorkerTTL) {
			m.lapses.Add(1)
		}
		m.beaten.Store(begun)
	}
}

// lease returns a number that stays the same for as long as this worker counted
// as live to everybody, and whether it does now.
func (m *Manager) lease() (number int64, holds bool) {
	number = m.lapses.Load()
	return number, m.clock()-m.beaten.Load() < int64(protocol.WorkerTTL)
}

// get returns the session's working copy, loaded or not; put must be called.
func (m *Manager) get(id string) *workcopy {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.copies[id]
	if c == nil {
		c = &workcopy{m: m, id: id, gate: make(chan struct{}, 1), released: make(chan struct{}, 1)}
		m.copies[id] = c
	}
	c.users++
	return c
}

func (m *Manager) put(c *workcopy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.users--; c.users == 0 && !c.isLoaded() {
		delete(m.copies, c.id)
	}
}

// acquireTimeout is how long a request waits for its session to be there.
const acquireTimeout = 60 * time.Second

// Acquire returns a session for a request of an ownership epoch, restored first
// if need be; create makes one that was never written. The session stays until
// Release.
//
// Errors: ErrElsewhere, ErrBusy, ErrHeld, session.ErrNoSession, session.ErrStaleEpoch, or
// what keeps the session from being restored.
func (m *Manager) Acquire(ctx context.Context, id string, epoch uint64, create bool) (*Hold, error) {
	ctx, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	c := m.get(id)
	h, err := c.acquire(ctx, epoch, create)
	if err != nil {
		m.put(c)
		return nil, err
	}
	return h, nil
}

// refuse makes an error for the caller that the request is another worker's.
func elsewhere(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrElsewhere, fmt.Sprintf(format, args...))
}
