package grade

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// resultLine is what --out has of one row.
type resultLine struct {
	TaskID string `json:"task_id"`
	// Passed is null if there was no answer, or none in it.
	Passed   *bool                 `json:"passed"`
	Verdicts []*bool               `json:"verdicts"`
	Statuses []protocol.CaseStatus `json:"statuses"`
	// Differ lists the cases whose verdict isn't as recorded, from 0; -1 is the
	// verdict of the whole.
	Differ []int  `json:"differ,omitempty"`
	Error  string `json:"error,omitempty"`
}

// results writes result lines; nil is for nobody who wants them.
type results struct {
	file   *os.File
	buffer *bufio.Writer
}

// openResults creates the file of results, "" for none. It refuses to overwrite
// one of the inputs.
func openResults(path string, inputs []string) (*results, error) {
	if path == "" {
		return nil, nil
	}
	existing, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open results: %w", err)
	}
	for _, input := range inputs {
		if info, err := os.Stat(input); err == nil && existing != nil && os.SameFile(info, existing) {
			return nil, fmt.Errorf("open results: %s is a workload to grade; name another file", path)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("open results: %w", err)
	}
	return &results{file: f, buffer: bufio.NewWriter(f)}, nil
}

func (r *results) write(line resultLine) error {
	if r == nil {
		return nil
	}
	text, err := json.Marshal(line, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("encode result of %s: %w", line.TaskID, err)
	}
	if _, err := r.buffer.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

func (r *results) close() error {
	if r == nil {
		return nil
	}
	if err := errors.Join(r.buffer.Flush(), r.file.Close()); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
