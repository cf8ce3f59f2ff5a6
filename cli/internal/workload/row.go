// Package workload reads files of submissions with known verdicts: JSON lines,
// one submission a row, plain or gzipped.
//
// A row has task_id, code, entry_point and io_cases, the last three as the API
// takes them, and optionally limits and isolation, also as the API takes them,
// verdicts, one boolean a case, and unruly. Other keys are ignored. Code and
// cases are kept as they are written: nothing here knows Python.
package workload

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Row is one submission.
type Row struct {
	// TaskID is the row's own, or file:line for a row without one.
	TaskID string
	// Cases is how many cases the submission is run against.
	Cases int
	// Verdicts are the recorded verdicts, one a case; nil if none are recorded.
	Verdicts []bool
	// Unruly says that the submission runs into a limit or ends its process:
	// it takes what time the limit gives it, and some servers with it.
	Unruly bool

	// tail is the request's body after the id, encoded once.
	tail []byte
}

// Body returns the body of an evaluate request with this session id.
func (r *Row) Body(session string) []byte {
	body := make([]byte, 0, len(`{"id":`)+len(session)+2+len(r.tail))
	body = append(body, `{"id":`...)
	// A session id is ASCII without quotes wherever a server takes it; any
	// other is still encoded as JSON, with what isn't UTF-8 replaced.
	body, _ = jsontext.AppendQuote(body, session)
	return append(body, r.tail...)
}

// Case is a case of a generated row, in the API's form.
type Case struct {
	Input  string `json:"input"`
	Output string `json:"output"`
}

// New returns a row made by the program itself, all of whose cases pass.
func New(taskID, code, entryPoint string, cases []Case) (*Row, error) {
	if cases == nil {
		cases = []Case{}
	}
	line, err := json.Marshal(struct {
		TaskID     string `json:"task_id"`
		Code       string `json:"code"`
		EntryPoint string `json:"entry_point"`
		Cases      []Case `json:"io_cases"`
	}{taskID, code, entryPoint, cases})
	if err != nil {
		return nil, fmt.Errorf("encode row %s: %w", taskID, err)
	}
	row, err := parse(line)
	if err != nil {
		return nil, fmt.Errorf("make row %s: %w", taskID, err)
	}
	row.Verdicts = make([]bool, len(cases))
	for i := range row.Verdicts {
		row.Verdicts[i] = true
	}
	return row, nil
}

// wireRow is a row as a file has it.
type wireRow struct {
	TaskID     string         `json:"task_id"`
	Code       jsontext.Value `json:"code"`
	EntryPoint jsontext.Value `json:"entry_point"`
	Cases      jsontext.Value `json:"io_cases"`
	Limits     jsontext.Value `json:"limits"`
	Isolation  jsontext.Value `json:"isolation"`
	Verdicts   []bool         `json:"verdicts"`
	Unruly     bool           `json:"unruly"`
}

// allowSurrogates lets lone ones through: they are part of what a grader must stand.
var allowSurrogates = jsontext.AllowInvalidUTF8(true)

// parse reads a row. It keeps nothing of line.
func parse(line []byte) (*Row, error) {
	var w wireRow
	if err := json.Unmarshal(line, &w, allowSurrogates); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name  string
		value jsontext.Value
		kind  jsontext.Kind
		want  string
	}{
		{"code", w.Code, '"', "a string"},
		{"entry_point", w.EntryPoint, '"', "a string"},
		{"io_cases", w.Cases, '[', "an array of cases"},
	} {
		if len(f.value) == 0 {
			return nil, fmt.Errorf("%s is missing: want %s", f.name, f.want)
		}
		if got := f.value.Kind(); got != f.kind {
			return nil, fmt.Errorf("%s: want %s, got a JSON %s", f.name, f.want, got)
		}
	}
	row := &Row{TaskID: w.TaskID, Verdicts: w.Verdicts, Unruly: w.Unruly}
	var err error
	if row.Cases, err = countCases(w.Cases); err != nil {
		return nil, err
	}
	if row.Verdicts != nil && len(row.Verdicts) != row.Cases {
		return nil, fmt.Errorf("verdicts: %d for %d cases, want one a case", len(row.Verdicts), row.Cases)
	}
	for _, f := range []struct {
		name  string
		value jsontext.Value
	}{
		{"code", w.Code}, {"entry_point", w.EntryPoint}, {"io_cases", w.Cases},
		{"limits", w.Limits}, {"isolation", w.Isolation},
	} {
		if len(f.value) > 0 {
			row.tail = append(row.tail, `,"`+f.name+`":`...)
			row.tail = append(row.tail, f.value...)
		}
	}
	row.tail = append(row.tail, '}')
	return row, nil
}

func countCases(cases jsontext.Value) (int, error) {
	d := jsontext.NewDecoder(bytes.NewReader(cases), allowSurrogates)
	if _, err := d.ReadToken(); err != nil {
		return 0, fmt.Errorf("read io_cases: %w", err)
	}
	n := 0
	for ; d.PeekKind() != ']'; n++ {
		if kind := d.PeekKind(); kind != '{' {
			return 0, fmt.Errorf("io_cases[%d]: want an object with input and output, got a JSON %s", n, kind)
		}
		if err := d.SkipValue(); err != nil {
			return 0, fmt.Errorf("read io_cases: %w", err)
		}
	}
	if n > protocol.MaxCases {
		return 0, fmt.Errorf("io_cases: %d cases, the limit is %d; split the submission", n, protocol.MaxCases)
	}
	return n, nil
}

// errNoRows is the error for files that hold no row at all.
var errNoRows = errors.New("no rows in it: want one JSON object a line")
