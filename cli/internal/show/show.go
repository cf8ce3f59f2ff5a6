// Package show prints what a fleet is doing: its workers, its queues and its
// asynchronous jobs, as the API tells them.
package show

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/shared/secret"
)

// Server says which fleet is asked.
type Server struct {
	URL         string        `name:"url" default:"http://127.0.0.1:6000" help:"Server to ask."`
	Key         secret.String `name:"api-key" env:"GRADEFLEET_API_KEY" help:"API key to send, if the server wants one."`
	JSON        bool          `name:"json" help:"Print the server's JSON instead of tables."`
	AllowRemote bool          `name:"allow-remote" help:"Permit a server on another machine."`
}

// timeout bounds one question, in addition to the time it asks to wait.
const timeout = 15 * time.Second

func (s Server) client(wait time.Duration) (*fleetclient.Client, error) {
	return fleetclient.New(fleetclient.Config{URL: s.URL, AllowRemote: s.AllowRemote, Key: s.Key.Reveal(), Timeout: timeout + wait})
}

// fleet is the answer of GET /workers.
type fleet struct {
	Workers []protocol.Heartbeat `json:"workers"`
	Queues  []queue              `json:"queues"`
	Waiting int                  `json:"waiting"`
}

type queue struct {
	Queue   string  `json:"queue"`
	Waiting int     `json:"waiting"`
	Running int     `json:"running"`
	Oldest  float64 `json:"oldest_s"`
}

// Workers is the command that shows workers and queues.
type Workers struct {
	Server `embed:""`
}

// Run prints to out.
func (w Workers) Run(ctx context.Context, out io.Writer) error {
	api, err := w.client(0)
	if err != nil {
		return err
	}
	defer api.Close()
	var raw json.RawMessage
	if err := api.Get(ctx, "workers", "/workers", &raw); err != nil {
		return err
	}
	if w.JSON {
		return printJSON(out, raw)
	}
	var f fleet
	if err := json.Unmarshal(raw, &f); err != nil {
		return fmt.Errorf("read workers: %w", err)
	}
	t := newTable(out, "WORKER", "STATE", "SLOTS", "BUSY", "SESSIONS", "SIZE", "FREE", "ISOLATION", "UP", "BUILD")
	slots, busy := 0, 0
	for _, h := range f.Workers {
		state := "ready"
		if h.Draining {
			state = "draining"
		}
		slots, busy = slots+h.Slots, busy+h.Busy
		t.row(h.Worker, state, h.Slots, h.Busy, h.Sessions, size(h.SessionBytes), size(h.FreeBytes), h.IsolationLevel, age(time.Since(h.Started)), h.Build)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d workers, %d of %d slots busy\n\n", len(f.Workers), busy, slots)
	return f.printQueues(out)
}

func (f fleet) printQueues(out io.Writer) error {
	t := newTable(out, "QUEUE", "WAITING", "RUNNING", "OLDEST")
	for _, q := range f.Queues {
		oldest := "-"
		if q.Oldest > 0 {
			oldest = age(time.Duration(q.Oldest * float64(time.Second)))
		}
		t.row(q.Queue, q.Waiting, q.Running, oldest)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if f.Waiting > 0 {
		fmt.Fprintf(out, "%d more wait in this gateway for their caller's turn\n", f.Waiting)
	}
	return nil
}

// table prints rows in columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, names ...any) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(names...)
	return t
}

func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, c)
	}
	fmt.Fprintln(t.w)
}

func (t table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

func printJSON(out io.Writer, raw json.RawMessage) error {
	if _, err := out.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// size is a number of bytes in a unit that suits it.
func size(bytes int64) string {
	if bytes < 1<<10 {
		return fmt.Sprint(bytes, " B")
	}
	value, unit := float64(bytes)/(1<<10), 0
	for ; value >= 1024 && unit < 4; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit])
}

// age is a duration in the largest unit that suits it.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%.1fs", max(d.Seconds(), 0))
}
