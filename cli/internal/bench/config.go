// Package bench drives servers of the documented API for a bounded time, checks
// every answer, and prints throughput and latency, with ratios. It can start
// fleets of ours and what they are measured against: the engine without HTTP and
// NATS, and Python with nothing around it.
//
// What it measures, and how: N clients with kept-alive connections each send
// one request after the other. Servers take turns in short rounds, so that
// whatever else the machine does meets all of them. Only right answers count as
// requests and have a latency; everything else is an error. CPU time is that of all processes of what is driven, from the kernel, and
// doesn't depend on what else the machine does. A round ends when
// its time is over and the requests under way are answered; a client's time
// ends with its own last request, so a straggler costs its own client only.
package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Config of a benchmark. Without Cases, Workload, RunCommand and Files it
// measures 1, 10 and 100 trivial cases.
type Config struct {
	URL         []string      `name:"url" sep:"none" help:"Server to drive. Give it twice to compare two servers in turns (the first by the second). Default: http://127.0.0.1:6000, unless there are --rows."`
	Rows        []string      `name:"rows" enum:"limit,engine,fleet,processes" help:"Start and measure what is ours: limit (Python with nothing around it; needs engine), engine (a worker's slots, in this process), fleet (all in one process), processes (NATS, gateway and worker)."`
	Original    string        `name:"original" placeholder:"URL" help:"With --rows: another server of the documented API, measured in turns with them."`
	Binaries    string        `name:"binaries" default:"bin" type:"path" help:"With --rows: the directory of gradefleet, gateway, worker and nats-server."`
	Slots       int           `name:"slots" default:"0" help:"With --rows: slots of each. 0: one a core."`
	Cases       []int         `name:"cases" help:"Evaluate generated submissions of so many trivial cases, each number on its own, e.g. 1,10,100 (which is measured if nothing else is asked for)."`
	Workload    []string      `name:"workload" sep:"none" placeholder:"FILE" help:"Evaluate the rows of a workload file (.jsonl or .jsonl.gz), in an order that is always the same, and compare with its verdicts. Rows marked unruly are left out, but for --once. May be given again."`
	RunCommand  bool          `name:"run" help:"Run the command 'echo hi' in a session of each client."`
	Files       bool          `name:"files" help:"Write files of 1 KiB, and read them."`
	Single      bool          `name:"single" help:"Also 1 case from one client, for what a single request takes."`
	Clients     int           `name:"clients" default:"4" help:"Clients that send requests at a time, 1 to 1024."`
	Seconds     float64       `name:"seconds" default:"5" help:"Measured time for each server and each kind of request, in seconds."`
	Rounds      int           `name:"rounds" default:"0" help:"Rounds that the time is cut into; all take turns. 0: rounds of about one second, half of one with --rows."`
	Warmup      time.Duration `name:"warmup" default:"500ms" help:"Time for each server and kind before measuring. 0: none."`
	Once        bool          `name:"once" help:"Go through each workload exactly once on each server, in rounds of equal numbers of rows, however long it takes."`
	Limit       int           `name:"limit" default:"0" help:"Take only so many rows of a workload, spread over it. 0: all."`
	Timeout     time.Duration `name:"timeout" default:"60s" help:"Time for one request. 0: no limit."`
	JSON        bool          `name:"json" help:"Print JSON instead of tables."`
	AllowRemote bool          `name:"allow-remote" help:"Permit servers on other machines. Load goes to loopback only without it."`
}

// defaultCases is what is measured if nothing is asked for.
var defaultCases = []int{1, 10, 100}

const (
	maxClients = 1024
	maxRounds  = 10_000
	maxSeconds = 24 * 60 * 60
)

// WithDefaults returns a copy in which what is derived from other fields is set.
func (c Config) WithDefaults() Config {
	if len(c.Cases) == 0 && len(c.Workload) == 0 && !c.RunCommand && !c.Files && !c.Single {
		c.Cases = defaultCases
	}
	if len(c.URL) == 0 && len(c.Rows) == 0 {
		c.URL = []string{"http://127.0.0.1:6000"}
	}
	if c.Slots == 0 {
		c.Slots = runtime.NumCPU()
	}
	if c.Rounds == 0 {
		c.Rounds = max(1, int(math.Round(c.Seconds)))
		if len(c.Rows) > 0 {
			c.Rounds *= 2 // more of them take turns
		}
	}
	return c
}

func (c Config) validate() error {
	if n := len(c.URL); len(c.Rows) == 0 && (n < 1 || n > 2) {
		return fmt.Errorf("check --url: %d servers, want one or two", n)
	}
	switch {
	case len(c.Rows) > 0 && len(c.URL) > 0:
		return errors.New("check --url: with --rows, another server is --original")
	case len(c.Rows) == 0 && c.Original != "":
		return errors.New("check --original: it goes with --rows; two servers are compared with --url twice")
	case c.has(rowLimit) && !c.has(rowEngine):
		return errors.New("check --rows: limit needs engine, whose interpreter and size it takes")
	case c.has(rowLimit) && c.Once:
		return errors.New("check --once: the limit goes through rows by time only")
	}
	if c.Slots < 1 || c.Slots > maxClients {
		return fmt.Errorf("check --slots: %d, want 1 to %d", c.Slots, maxClients)
	}
	for _, n := range c.Cases {
		if n < 1 || n > protocol.MaxCases {
			return fmt.Errorf("check --cases: %d, want 1 to %d", n, protocol.MaxCases)
		}
	}
	if c.Clients < 1 || c.Clients > maxClients {
		return fmt.Errorf("check --clients: %d, want 1 to %d", c.Clients, maxClients)
	}
	if !(c.Seconds > 0 && c.Seconds <= maxSeconds) {
		return fmt.Errorf("check --seconds: %v, want more than 0 and at most %d", c.Seconds, maxSeconds)
	}
	if c.Rounds < 1 || c.Rounds > maxRounds {
		return fmt.Errorf("check --rounds: %d, want 0 to %d", c.Rounds, maxRounds)
	}
	if c.Limit < 0 {
		return fmt.Errorf("check --limit: %d, want 0 (all) or more", c.Limit)
	}
	if c.Warmup < 0 || c.Timeout < 0 {
		return errors.New("check --warmup and --timeout: a time can't be negative")
	}
	if c.Once && (len(c.Workload) == 0 || len(c.Cases) > 0 || c.RunCommand || c.Files) {
		return errors.New("check --once: it goes with --workload, and with no other kind of request")
	}
	return nil
}

// The rows that are ours.
const rowLimit, rowEngine, rowFleet, rowProcesses = "limit", "engine", "fleet", "processes"

func (c Config) has(row string) bool { return slices.Contains(c.Rows, row) }

// round is how long one server is driven before it is the other's turn.
func (c Config) round() time.Duration {
	return time.Duration(c.Seconds * float64(time.Second) / float64(c.Rounds))
}
