package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

// class says what a kind asks of whoever is driven; not everybody does all.
type class int

const (
	grading  class = iota // evaluate requests
	commands              // run requests
	files                 // reading and writing
	forks                 // nothing but a child, which only the limit has
)

// kind is one kind of request, measured on its own.
type kind struct {
	name  string
	class class
	// workload says that the rows are of a file.
	workload bool
	// clients is how many send at a time; 0: as many as usual.
	clients int
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

// oneClient is how many clients see what a single request takes.
const oneClient = 1

// kinds returns what cfg asks for, in the order of its fields.
func kinds(cfg Config) ([]*kind, error) {
	var all []*kind
	if cfg.has(rowLimit) {
		all = append(all, &kind{name: "bare fork", class: forks})
	}
	for _, n := range cfg.Cases {
		k, err := trivial(n)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	if cfg.Single {
		k, err := trivial(1)
		if err != nil {
			return nil, err
		}
		k.name, k.clients = kindSingle, oneClient
		all = append(all, k)
	}
	for _, path := range cfg.Workload {
		rows, err := load(path, cfg.Limit, cfg.Once)
		if err != nil {
			return nil, err
		}
		all = append(all, ofFile(filepath.Base(path), rows))
	}
	if cfg.RunCommand {
		all = append(all, running())
	}
	if cfg.Files {
		all = append(all, writing(), reading())
	}
	return all, nil
}

// kindSingle is 1 case, asked for by one client.
const kindSingle = "1 case, 1 client"

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
// stand for the whole. Unruly rows are left out unless all are wanted: one that
// takes all of its time limit would be all that is measured.
func load(path string, limit int, all bool) ([]*workload.Row, error) {
	var rows []*workload.Row
	for row, err := range workload.Rows(path) {
		if err != nil {
			return nil, err
		}
		if all || !row.Unruly {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("read workload %s: all of its rows are unruly, there is nothing to measure", path)
	}
	order := rand.New(rand.NewPCG(1, 1))
	order.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	if limit > 0 && limit < len(rows) {
		rows = rows[:limit]
	}
	return rows, nil
}

// ofFile asks for the rows of a workload file.
func ofFile(name string, rows []*workload.Row) *kind {
	k := evaluating(name, rows)
	k.workload = true
	return k
}

func evaluating(name string, rows []*workload.Row) *kind {
	k := &kind{name: name, rows: rows}
	k.step = func(ctx context.Context, u *user, n int64) (outcome, error) {
		i := int(n % int64(len(k.rows)))
		row := k.rows[i]
		answer, err := u.api.Evaluate(ctx, row.Body(u.session))
		if err != nil {
			return outcome{}, err
		}
		differences := row.Compare(answer.Passed, answer.Verdicts())
		return outcome{right: len(differences) == 0, cases: row.Cases, row: i, differences: differences}, nil
	}
	return k
}

const command, commandSays = "echo hi", "hi\n"

// The names of kinds that targets are set for.
const kindRun, kindWrite, kindRead = "run", "write_file", "read_file"

func running() *kind {
	return &kind{
		name:    kindRun,
		class:   commands,
		prepare: open,
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

// open makes the client's session, in the way there is.
func open(ctx context.Context, u *user) error {
	if o, ok := u.api.(opener); ok {
		return o.open(u.session)
	}
	return writeFirst(ctx, u)
}

func writing() *kind {
	return &kind{
		name:    kindWrite,
		class:   files,
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
		name:    kindRead,
		class:   files,
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
	api     api
	session string
	// path and content are of the file that the client wrote last.
	path, content string
	turn          turn
}
