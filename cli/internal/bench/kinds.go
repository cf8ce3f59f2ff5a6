package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

// kind is one kind of request, measured on its own.
type kind struct {
	name string
	// rows are what evaluate requests ask for, in turn; empty for other kinds.
	rows []*workload.Row
	// step does the n-th request and checks its answer.
	step func(ctx context.Context, u *user, n int64) (outcome, error)
	// prepare makes what a client's requests need; nil: they need nothing.
	prepare func(ctx context.Context, u *user) error
	// review checks, after a round, what the requests left behind; nil: nothing.
	review func(ctx context.Context, u *user) (right bool, err error)
}

// outcome is what an answer said.
type outcome struct {
	right       bool
	cases       int // in the request
	row         int // of kind.rows, for its differences
	differences []workload.Difference
}

// kinds returns what cfg asks for, in the order of its fields.
func kinds(cfg Config) ([]*kind, error) {
	var all []*kind
	for _, n := range cfg.Cases {
		k, err := trivial(n)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	for _, path := range cfg.Workload {
		rows, err := load(path, cfg.Limit)
		if err != nil {
			return nil, err
		}
		all = append(all, evaluating(filepath.Base(path), rows))
	}
	if cfg.RunCommand {
		all = append(all, running())
	}
	if cfg.Files {
		all = append(all, writing(), reading())
	}
	return all, nil
}

// trivial asks for submissions of n cases that cost next to nothing to run.
func trivial(n int) (*kind, error) {
	cases := make([]workload.Case, n)
	for i := range cases {
		cases[i] = workload.Case{Input: fmt.Sprintf("a=%d, b=%d", i, i+1), Output: fmt.Sprint(2*i + 1)}
	}
	name := fmt.Sprintf("%d cases", n)
	if n == 1 {
		name = "1 case"
	}
	row, err := workload.New(name, "def add(a, b):\n    return a + b", "add", cases)
	if err != nil {
		return nil, err
	}
	return evaluating(name, []*workload.Row{row}), nil
}

// load reads a workload in an order that is random, and the same each time.
// Files are sorted by where problems come from; any part of the order should
// stand for the whole.
func load(path string, limit int) ([]*workload.Row, error) {
	var rows []*workload.Row
	for row, err := range workload.Rows(path) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	order := rand.New(rand.NewPCG(1, 1))
	order.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	if limit > 0 && limit < len(rows) {
		rows = rows[:limit]
	}
	return rows, nil
}

func evaluating(name string, rows []*workload.Row) *kind {
	return &kind{name: name, rows: rows, step: func(ctx context.Context, u *user, n int64) (outcome, error) {
		i := int(n % int64(len(rows)))
		answer, err := u.api.Evaluate(ctx, rows[i].Body(u.session))
		if err != nil {
			return outcome{}, err
		}
		differences := rows[i].Compare(answer.Passed, answer.Verdicts())
		return outcome{right: len(differences) == 0, cases: rows[i].Cases, row: i, differences: differences}, nil
	}}
}

const command, commandSays = "echo hi", "hi\n"

func running() *kind {
	return &kind{
		name:    "run",
		prepare: writeFirst,
		step: func(ctx context.Context, u *user, _ int64) (outcome, error) {
			result, err := u.api.Run(ctx, u.session, command)
			return outcome{right: result.Stdout == commandSays && result.Stderr == ""}, err
		},
	}
}

// fileBytes is the size of the files written and read; filesPerSession is how
// many paths a client writes to in turn, so that no quota is met.
const (
	fileBytes       = 1 << 10
	filesPerSession = 16
)

func filePath(n int64) string { return fmt.Sprintf("bench/%02d.txt", n%filesPerSession) }

// fileContent is another text for each n.
func fileContent(n int64) string {
	const digits = 20
	return fmt.Sprintf("%0*d", digits, n) + strings.Repeat("x", fileBytes-digits)
}

// writeFirst makes the client's session, by writing a file.
func writeFirst(ctx context.Context, u *user) error {
	u.path, u.content = filePath(0), fileContent(0)
	return u.api.WriteFile(ctx, u.session, u.path, u.content)
}

func writing() *kind {
	return &kind{
		name:    "write_file",
		prepare: writeFirst,
		step: func(ctx context.Context, u *user, n int64) (outcome, error) {
			content := fileContent(n)
			u.path = "" // what a write that failed left there isn't known
			if err := u.api.WriteFile(ctx, u.session, filePath(n), content); err != nil {
				return outcome{}, err
			}
			u.path, u.content = filePath(n), content
			return outcome{right: true}, nil
		},
		// A write is right if it can be read; looking after each one would
		// measure something else.
		review: readBack,
	}
}

func reading() *kind {
	return &kind{
		name:    "read_file",
		prepare: writeFirst,
		step: func(ctx context.Context, u *user, _ int64) (outcome, error) {
			right, err := readBack(ctx, u)
			return outcome{right: right}, err
		},
	}
}

func readBack(ctx context.Context, u *user) (right bool, err error) {
	if u.path == "" {
		return true, nil
	}
	content, err := u.api.ReadFile(ctx, u.session, u.path)
	return content == u.content, err
}

// user is one client of a server. One goroutine at a time uses it.
type user struct {
	api     *fleetclient.Client
	session string
	// path and content are of the file that the client wrote last.
	path, content string
	turn          turn
}
