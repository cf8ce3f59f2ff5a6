package show

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
)

// Jobs is the command about asynchronous jobs.
type Jobs struct {
	List   list   `cmd:"" default:"withargs" help:"List your jobs, the last changed first, and the queues."`
	Get    get    `cmd:"" help:"Show a job and its result."`
	Cancel cancel `cmd:"" help:"Cancel a job that is queued or runs."`
}

type list struct {
	Server `embed:""`
	Limit  int `name:"limit" default:"20" help:"How many jobs at most, 1 to 1000."`
}

type get struct {
	Server `embed:""`
	ID     string `arg:"" name:"job" help:"The job's id."`
	Wait   int    `name:"wait" default:"0" help:"Seconds to wait for its end, up to 60."`
}

type cancel struct {
	Server `embed:""`
	ID     string `arg:"" name:"job" help:"The job's id."`
}

// Run does what the parsed command ("jobs list", "jobs get <job>"…) says.
func (j Jobs) Run(ctx context.Context, command string, out io.Writer) error {
	switch {
	case strings.HasPrefix(command, "jobs get"):
		return j.Get.run(ctx, out)
	case strings.HasPrefix(command, "jobs cancel"):
		return j.Cancel.run(ctx, out)
	}
	return j.List.run(ctx, out)
}

// job is one as the API shows it.
type job struct {
	ID       string          `json:"job_id"`
	Kind     string          `json:"kind"`
	State    string          `json:"state"`
	Session  string          `json:"session"`
	Created  time.Time       `json:"created"`
	Worker   string          `json:"worker"`
	Since    time.Time       `json:"since"`
	Finished time.Time       `json:"finished"`
	Status   int             `json:"status"`
	Result   json.RawMessage `json:"result"`
}

func (l list) run(ctx context.Context, out io.Writer) error {
	if l.Limit < 1 || l.Limit > 1000 {
		return fmt.Errorf("check --limit: %d, want 1 to 1000", l.Limit)
	}
	api, err := l.client(0)
	if err != nil {
		return err
	}
	defer api.Close()
	var jobs, workers json.RawMessage
	if err := api.Get(ctx, "jobs", fmt.Sprint("/jobs?limit=", l.Limit), &jobs); err != nil {
		return err
	}
	if err := api.Get(ctx, "workers", "/workers", &workers); err != nil {
		return err
	}
	var f fleet
	if err := json.Unmarshal(workers, &f); err != nil {
		return fmt.Errorf("read workers: %w", err)
	}
	if l.JSON {
		queues, err := json.Marshal(f.Queues)
		if err != nil {
			return fmt.Errorf("encode queues: %w", err)
		}
		return printJSON(out, append(append(append(jobs[:len(jobs)-1:len(jobs)-1], `,"queues":`...), queues...), '}'))
	}
	var all struct {
		Jobs []job `json:"jobs"`
	}
	if err := json.Unmarshal(jobs, &all); err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	if len(all.Jobs) == 0 {
		fmt.Fprint(out, "no jobs of yours\n\n")
	} else {
		t := newTable(out, "JOB", "KIND", "STATE", "STATUS", "WORKER", "AGE", "TOOK", "SESSION")
		for _, j := range all.Jobs {
			t.row(j.ID, j.Kind, j.State, orDash(j.Status != 0, j.Status), orDash(j.Worker != "", j.Worker), age(time.Since(j.Created)), j.took(), j.Session)
		}
		if err := t.flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return f.printQueues(out)
}

// took is for how long a job ran, or has run so far.
func (j job) took() string {
	switch {
	case j.Since.IsZero():
		return "-"
	case j.Finished.IsZero():
		return age(time.Since(j.Since))
	}
	return age(j.Finished.Sub(j.Since))
}

func orDash(there bool, value any) any {
	if there {
		return value
	}
	return "-"
}

func (g get) run(ctx context.Context, out io.Writer) error {
	if g.Wait < 0 || g.Wait > 60 {
		return fmt.Errorf("check --wait: %d, want 0 to 60 seconds", g.Wait)
	}
	return g.ask(out, g.ID, time.Duration(g.Wait)*time.Second, func(api *fleetclient.Client, path string, answer any) error {
		return api.Get(ctx, "job", fmt.Sprintf("%s?wait=%d", path, g.Wait), answer)
	})
}

func (c cancel) run(ctx context.Context, out io.Writer) error {
	return c.ask(out, c.ID, 0, func(api *fleetclient.Client, path string, answer any) error {
		return api.Delete(ctx, "cancel job", path, answer)
	})
}

// ask asks about one job and prints it.
func (s Server) ask(out io.Writer, id string, wait time.Duration, how func(api *fleetclient.Client, path string, answer any) error) error {
	api, err := s.client(wait)
	if err != nil {
		return err
	}
	defer api.Close()
	var raw json.RawMessage
	if err := how(api, "/jobs/"+url.PathEscape(id), &raw); err != nil {
		return err
	}
	if s.JSON {
		return printJSON(out, raw)
	}
	var j job
	if err := json.Unmarshal(raw, &j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	t := newTable(out, "job", j.ID)
	t.row("kind", j.Kind)
	t.row("state", j.State)
	t.row("session", j.Session)
	t.row("age", age(time.Since(j.Created)))
	t.row("worker", orDash(j.Worker != "", j.Worker))
	t.row("took", j.took())
	t.row("status", orDash(j.Status != 0, j.Status))
	if err := t.flush(); err != nil {
		return err
	}
	if j.Result == nil {
		return nil
	}
	return printJSON(out, j.Result)
}
