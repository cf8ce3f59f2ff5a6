// Package node is the composition root of a worker: its configuration, what it
// is made of, and the order in which that starts and stops. The worker binary
// and the all-in-one command both go through it.
package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// Config of a worker. The tags are the one definition of flags, environment
// variables, defaults and help; docs/configuration.md is held against them.
type Config struct {
	ID     string `name:"worker-id" env:"GRADEFLEET_WORKER_ID" help:"Name of this worker in the fleet, 1 to 64 of A-Z a-z 0-9 _ -. Empty: made at random once and kept in the data directory."`
	Data   string `name:"data" env:"DATA" type:"path" help:"Directory of sessions and, if NATS is embedded, of the queue. Empty: /var/lib/gradefleet for root, else $$XDG_STATE_HOME/gradefleet or ~/.local/state/gradefleet."`
	Slots  int    `name:"slots" env:"GRADEFLEET_SLOTS" default:"0" help:"Jobs run at once. 0: one a core."`
	Python string `name:"python" env:"GRADEFLEET_PYTHON" help:"Interpreter of submissions, 3.11 or newer. Empty: the one found that has most of the usual packages."`

	Isolation string   `name:"isolation" env:"GRADEFLEET_ISOLATION" default:"container" enum:"strict,container,basic" help:"Least isolation that will do: strict, container or basic. The worker tries at start what a hostile submission would, and refuses to start below this."`
	Without   []string `name:"without" env:"GRADEFLEET_WITHOUT" help:"Layers of the sandbox not to put in force, to find out what one costs or stops: rlimits, users, seccomp, landlock, session-landlock, namespaces, memory. The level in force falls with them."`

	UIDBase  int `name:"uid-base" env:"GRADEFLEET_UID_BASE" default:"210000" help:"First of the user and group ids given to sessions when the worker runs as root. Workers on one machine outside of containers should have a range each."`
	UIDCount int `name:"uid-count" env:"GRADEFLEET_UID_COUNT" default:"50000" help:"How many such ids there are: the most sessions at once. 0: run everything as root (never do that with submissions you don't trust)."`

	SessionBytes int64 `name:"session-bytes" env:"GRADEFLEET_SESSION_BYTES" default:"536870912" help:"What a session's files may take up, bytes. 0: no limit."`
	SessionFiles int64 `name:"session-files" env:"GRADEFLEET_SESSION_FILES" default:"20000" help:"How many files and directories a session may have. 0: no limit."`

	Durability      string        `name:"durability" env:"GRADEFLEET_DURABILITY" default:"durable" enum:"durable,local" help:"durable: what is written to a session is stored in NATS before it is acknowledged, and any worker can go on with it. local: sessions are as lasting as their worker's disk, and writes quicker."`
	SessionTTL      time.Duration `name:"session-ttl" env:"GRADEFLEET_SESSION_TTL" default:"24h" help:"A session that nobody used for so long is removed. 0: never."`
	CollectInterval time.Duration `name:"collect-interval" env:"GRADEFLEET_COLLECT_INTERVAL" default:"5m" help:"How often sessions that are over and stored contents that no session has are looked for."`
	BlobGrace       time.Duration `name:"blob-grace" env:"GRADEFLEET_BLOB_GRACE" default:"10m" help:"How long a stored content stays that no session has. At least twice as long as storing what one job wrote may take."`

	CaseWall    time.Duration `name:"case-wall" env:"GRADEFLEET_CASE_WALL" default:"5s" help:"Wall time a case gets unless the request says otherwise."`
	CaseCPU     time.Duration `name:"case-cpu" env:"GRADEFLEET_CASE_CPU" default:"4s" help:"CPU time a case gets, in whole seconds."`
	CaseMemory  int64         `name:"case-memory" env:"GRADEFLEET_CASE_MEMORY" default:"2147483648" help:"Address space of each process of a case, bytes."`
	MaxCaseWall time.Duration `name:"max-case-wall" env:"GRADEFLEET_MAX_CASE_WALL" default:"60s" help:"Most wall time a request may ask for a case."`
	MaxCaseCPU  time.Duration `name:"max-case-cpu" env:"GRADEFLEET_MAX_CASE_CPU" default:"60s" help:"Most CPU time a request may ask for a case."`
	MaxMemory   int64         `name:"max-memory" env:"GRADEFLEET_MAX_MEMORY" default:"4294967296" help:"Most address space a request may ask for, bytes."`
	Budget      time.Duration `name:"evaluate-budget" env:"GRADEFLEET_EVALUATE_BUDGET" default:"240s" help:"Time one evaluate request may hold a slot; cases not reached by then are skipped."`
	RunWall     time.Duration `name:"run-wall" env:"GRADEFLEET_RUN_WALL" default:"30s" help:"Wall time a command gets unless the request says otherwise."`
	MaxRunWall  time.Duration `name:"max-run-wall" env:"GRADEFLEET_MAX_RUN_WALL" default:"120s" help:"Most wall time a request may ask for a command."`
	RunMemory   int64         `name:"run-memory" env:"GRADEFLEET_RUN_MEMORY" default:"4294967296" help:"Address space of each process of a command, bytes."`
	Output      int           `name:"output" env:"GRADEFLEET_OUTPUT" default:"1048576" help:"Kept of each of a command's stdout and stderr, bytes; the rest is dropped and the answer says truncated."`
	CaseOutput  int           `name:"case-output" env:"GRADEFLEET_CASE_OUTPUT" default:"16384" help:"Kept of each of a case's stdout and stderr, bytes."`
	OutputStop  int           `name:"output-stop" env:"GRADEFLEET_OUTPUT_STOP" default:"67108864" help:"What a case or command may print to each at all, bytes; then it is ended with output_limit."`
	Result      int           `name:"result" env:"GRADEFLEET_RESULT" default:"16777216" help:"Largest value a case may return, bytes as carried; more is output_limit."`
	Value       int           `name:"value" env:"GRADEFLEET_VALUE" default:"262144" help:"What an answer shows of one value, bytes; more is cut."`

	Processes int   `name:"processes" env:"GRADEFLEET_PROCESSES" default:"64" help:"Processes and threads a job may have (RLIMIT_NPROC)."`
	OpenFiles int   `name:"open-files" env:"GRADEFLEET_OPEN_FILES" default:"256" help:"Open files of each process of a job (RLIMIT_NOFILE)."`
	FileBytes int64 `name:"file-bytes" env:"GRADEFLEET_FILE_BYTES" default:"67108864" help:"Largest file a job may write, bytes (RLIMIT_FSIZE)."`

	DrainTimeout time.Duration `name:"worker-drain-timeout" env:"GRADEFLEET_WORKER_DRAIN_TIMEOUT" default:"30s" help:"How long running jobs may go on after SIGTERM before they are handed back."`
}

// WithDefaults returns a copy in which what depends on the machine is filled in.
func (c Config) WithDefaults() Config {
	if c.Slots == 0 {
		c.Slots = runtime.NumCPU()
	}
	if c.Data == "" {
		c.Data = DefaultData()
	}
	if c.CollectInterval == 0 {
		c.CollectInterval = defaultCollectInterval
	}
	if c.BlobGrace == 0 {
		c.BlobGrace = defaultBlobGrace
	}
	return c
}

// DefaultData is the data directory of a worker that was given none.
func DefaultData() string {
	if os.Getuid() == 0 {
		return "/var/lib/gradefleet"
	}
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return filepath.Join(os.TempDir(), fmt.Sprintf("gradefleet-%d", os.Getuid()))
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "gradefleet")
}

// Validate checks the settings against each other, before anything is opened;
// kong calls it too.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	if c.ID != "" {
		errs = append(errs, protocol.CheckWorkerID(c.ID))
	}
	if c.Slots < 1 || c.Slots > maxSlots {
		errs = append(errs, fmt.Errorf("slots is %d, want 1 to %d (0 means one a core)", c.Slots, maxSlots))
	}
	if d := c.durability(); d != durabilityDurable && d != durabilityLocal {
		errs = append(errs, fmt.Errorf("durability is %q, want %s or %s", d, durabilityDurable, durabilityLocal))
	}
	if c.SessionTTL < 0 || c.SessionTTL > 0 && c.SessionTTL < time.Second {
		errs = append(errs, fmt.Errorf("session-ttl is %v, want a second or more (0 means never)", c.SessionTTL))
	}
	if c.CollectInterval < time.Second || c.BlobGrace < time.Second {
		errs = append(errs, fmt.Errorf("collect-interval is %v and blob-grace %v, want a second or more", c.CollectInterval, c.BlobGrace))
	}
	if _, err := sandbox.ParseLevel(c.level()); err != nil {
		errs = append(errs, err)
	}
	for _, l := range c.without() {
		if !slices.Contains(sandbox.Layers(), l) {
			errs = append(errs, fmt.Errorf("without names the layer %q, there are %v", l, sandbox.Layers()))
		}
	}
	if c.UIDCount < 0 || c.UIDCount > 0 && c.UIDBase < 1000 {
		errs = append(errs, fmt.Errorf("uid-base is %d with uid-count %d: the ids of sessions must not be those of system users, want 1000 or more", c.UIDBase, c.UIDCount))
	}
	if c.Processes < 4 || c.OpenFiles < 16 || c.FileBytes < 4096 {
		errs = append(errs, fmt.Errorf("processes %d, open-files %d, file-bytes %d: want at least 4, 16 and 4096, or Python itself can't run", c.Processes, c.OpenFiles, c.FileBytes))
	}
	errs = append(errs, c.limits().Validate())
	return errors.Join(errs...)
}

const maxSlots = 1024

// What a worker has that was given none of its own.
const (
	defaultCollectInterval = 5 * time.Minute
	defaultBlobGrace       = 10 * time.Minute
)

// The values of Durability; empty is the first.
const (
	durabilityDurable = "durable"
	durabilityLocal   = "local"
)

func (c Config) durability() string {
	if c.Durability == "" {
		return durabilityDurable
	}
	return c.Durability
}

func (c Config) durable() bool { return c.durability() == durabilityDurable }

// level is the isolation asked for.
func (c Config) level() string {
	if c.Isolation == "" {
		return string(sandbox.Container)
	}
	return c.Isolation
}

func (c Config) without() []sandbox.Layer {
	layers := make([]sandbox.Layer, len(c.Without))
	for i, name := range c.Without {
		layers[i] = sandbox.Layer(name)
	}
	return layers
}

// limits are the engine's.
func (c Config) limits() execute.Limits {
	l := execute.DefaultLimits()
	l.CaseWall, l.MaxCaseWall = c.CaseWall, c.MaxCaseWall
	l.CaseCPU, l.MaxCaseCPU = c.CaseCPU, c.MaxCaseCPU
	l.CaseMemory, l.MaxMemory = c.CaseMemory, c.MaxMemory
	l.RunWall, l.MaxRunWall, l.RunMemory = c.RunWall, c.MaxRunWall, c.RunMemory
	l.RunCPU = c.MaxRunWall
	l.Budget = c.Budget
	l.Output, l.CaseOutput, l.OutputStop = c.Output, c.CaseOutput, c.OutputStop
	l.Result, l.Value = c.Result, c.Value
	return l
}
