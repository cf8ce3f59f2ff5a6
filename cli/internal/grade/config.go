// Package grade grades every row of workload files once, against a server of
// the documented API, and compares the verdicts with the recorded ones.
package grade

import (
	"errors"
	"fmt"
	"time"

	"github.com/gradefleet/gradefleet/shared/secret"
)

// Config of a grading run.
type Config struct {
	URL         string        `name:"url" default:"http://127.0.0.1:6000" help:"Server that grades."`
	Files       []string      `arg:"" name:"file" help:"Workload files (.jsonl or .jsonl.gz), graded one after the other."`
	Key         secret.String `name:"api-key" env:"GRADEFLEET_API_KEY" help:"API key to send, if the server wants one."`
	Batch       bool          `name:"batch" help:"Send all submissions on one connection, through /evaluate_batch; for thousands of them. They go behind requests that somebody waits for."`
	Concurrency int           `name:"concurrency" default:"0" help:"Submissions under way at a time, up to 1024. 0: 8, with --batch 256, which is what a gateway takes of a batch."`
	Limit       int           `name:"limit" default:"0" help:"Grade only the first so many rows. 0: all."`
	Out         string        `name:"out" placeholder:"FILE" help:"Write a JSON line for each row, in their order: task_id, passed, verdicts, statuses."`
	Progress    time.Duration `name:"progress" default:"2s" help:"Time between lines of progress on stderr. 0: none."`
	Timeout     time.Duration `name:"timeout" default:"120s" help:"Time for one request; with --batch, for the next answer to any. 0: no limit."`
	Retries     int           `name:"retries" default:"20" help:"How often a submission is sent again after a connection error, a 429 or a 503, with growing waits of up to 5 s, or as the server asks."`
	AllowRemote bool          `name:"allow-remote" help:"Permit a server on another machine. Load goes to loopback only without it."`
}

const (
	maxConcurrency = 1024
	// usualConcurrency is the one without --batch, and usualBatch with it: as many
	// lines of a batch a gateway leaves unanswered by default.
	usualConcurrency, usualBatch = 8, 256
)

// withDefaults returns c with what depends on other settings filled in.
func (c Config) withDefaults() Config {
	if c.Concurrency == 0 {
		c.Concurrency = usualConcurrency
		if c.Batch {
			c.Concurrency = usualBatch
		}
	}
	return c
}

func (c Config) validate() error {
	if len(c.Files) == 0 {
		return errors.New("check files: none given, want at least one workload file")
	}
	if c.Concurrency < 0 || c.Concurrency > maxConcurrency {
		return fmt.Errorf("check --concurrency: %d, want 0 (the default) to %d", c.Concurrency, maxConcurrency)
	}
	if c.Limit < 0 {
		return fmt.Errorf("check --limit: %d, want 0 (all) or more", c.Limit)
	}
	if c.Retries < 0 {
		return fmt.Errorf("check --retries: %d, want 0 (none) or more", c.Retries)
	}
	if c.Progress < 0 || c.Timeout < 0 {
		return errors.New("check --progress and --timeout: a time can't be negative")
	}
	return nil
}
