package workload

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

const goodRow = `{"task_id":"t/1","code":"def f(x):\n    return x","entry_point":"f","io_cases":[{"input":"x=1","output":"1"},{"input":"x=2","output":"3"}],"verdicts":[true,false],"note":"ignored"}`

// collect reads all rows of a file with this content.
func collect(t *testing.T, name string, content []byte) ([]*Row, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var rows []*Row
	for row, err := range Rows(path) {
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func gzipped(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRowsReads(t *testing.T) {
	noID := `{"code":"","entry_point":"f","io_cases":[]}`
	for name, test := range map[string]struct {
		file    string
		content []byte
		want    []string
	}{
		"one row":              {"w.jsonl", []byte(goodRow + "\n"), []string{"t/1"}},
		"no last newline":      {"w.jsonl", []byte(goodRow), []string{"t/1"}},
		"blank lines, CRLF":    {"w.jsonl", []byte("\n" + goodRow + "\r\n\r\n" + goodRow + "\r\n"), []string{"t/1", "t/1"}},
		"gzip":                 {"w.jsonl.gz", gzipped(t, goodRow+"\n"+goodRow+"\n"), []string{"t/1", "t/1"}},
		"gzip by another name": {"w.jsonl", gzipped(t, goodRow), []string{"t/1"}},
		"two gzip members":     {"w.jsonl.gz", append(gzipped(t, goodRow+"\n"), gzipped(t, goodRow)...), []string{"t/1", "t/1"}},
		"named by its place":   {"w.jsonl", []byte("\n" + noID), []string{"w.jsonl:2"}},
		"longer than a chunk":  {"w.jsonl", []byte(strings.Replace(goodRow, "def f", strings.Repeat("# long ", 1<<16)+`\ndef f`, 1)), []string{"t/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := collect(t, test.file, test.content)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, row := range rows {
				got = append(got, row.TaskID)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestRowsRefuses(t *testing.T) {
	with := func(old, new string) string { return goodRow + "\n" + strings.Replace(goodRow, old, new, 1) }
	for name, test := range map[string]struct {
		content []byte
		want    []string
	}{
		"no JSON":               {[]byte(goodRow + "\n{nope"), []string{"w.jsonl:2: "}},
		"cut short":             {[]byte(goodRow[:len(goodRow)-1]), []string{"w.jsonl:1: "}},
		"two values on a line":  {[]byte(goodRow + goodRow), []string{"w.jsonl:1: "}},
		"an array":              {[]byte("[]"), []string{"w.jsonl:1: "}},
		"a missing field":       {[]byte(with(`"entry_point":"f",`, "")), []string{"w.jsonl:2: ", "entry_point is missing"}},
		"code of another type":  {[]byte(with(`"def f(x):\n    return x"`, "5")), []string{"w.jsonl:2: ", "code: want a string, got a JSON number"}},
		"cases that are null":   {[]byte(with(`[{"input":"x=1","output":"1"},{"input":"x=2","output":"3"}]`, "null")), []string{"w.jsonl:2: ", "io_cases: want an array of cases, got a JSON null"}},
		"a case that is a text": {[]byte(with(`{"input":"x=2","output":"3"}`, `"x=2"`)), []string{"w.jsonl:2: ", "io_cases[1]: want an object"}},
		"too few verdicts":      {[]byte(with("[true,false]", "[true]")), []string{"w.jsonl:2: ", "verdicts: 1 for 2 cases"}},
		"no verdicts in it":     {[]byte(with("[true,false]", "[]")), []string{"w.jsonl:2: ", "verdicts: 0 for 2 cases"}},
		"a verdict of text":     {[]byte(with("[true,false]", `["yes","no"]`)), []string{"w.jsonl:2: ", "verdicts"}},
		"an empty file":         {nil, []string{"w.jsonl:1: ", "no rows"}},
		"only blank lines":      {[]byte("\n\n"), []string{"w.jsonl:2: ", "no rows"}},
		"a damaged gzip":        {gzipped(t, goodRow)[:60], []string{"w.jsonl:1: "}},
		"a gzip header alone":   {[]byte{0x1f, 0x8b}, []string{"w.jsonl:1: unpack: "}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := collect(t, "w.jsonl", test.content)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q says nothing of %q", err, want)
				}
			}
		})
	}
}

func TestRowsOfMissingFile(t *testing.T) {
	for _, err := range Rows(filepath.Join(t.TempDir(), "no.jsonl")) {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want that the file doesn't exist", err)
		}
	}
}

func TestLineLimit(t *testing.T) {
	for name, test := range map[string]struct {
		limit int
		ok    bool
	}{
		"room for the line":  {len(goodRow) + 2, true},
		"longer than it may": {len(goodRow) - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var last error
			// The scanner starts at 64 KiB: the row must be longer for a limit to show.
			pad := strings.Repeat(" ", 128<<10)
			read("w.jsonl", strings.NewReader(goodRow+pad+"\n"), test.limit+len(pad), func(_ *Row, err error) bool {
				last = err
				return true
			})
			if test.ok && last != nil {
				t.Error(last)
			}
			if !test.ok && (last == nil || !strings.Contains(last.Error(), "w.jsonl:1: the line is longer than")) {
				t.Errorf("got %v, want that line 1 is too long", last)
			}
		})
	}
}

func TestRowsStopsWhenAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.jsonl")
	if err := os.WriteFile(path, []byte(goodRow+"\n{nope"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range Rows(path, path) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestBody(t *testing.T) {
	rows, err := collect(t, "w.jsonl", []byte(`{"verdicts":null,"isolation":"process","io_cases":[ {"input":"x='\ud800'","output":"1","weight":2} ],"limits":{"wall_s":1},"entry_point":"f","code":"é\u0000"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"s-1","code":"é\u0000","entry_point":"f","io_cases":[ {"input":"x='\ud800'","output":"1","weight":2} ],"limits":{"wall_s":1},"isolation":"process"}`
	if got := string(rows[0].Body("s-1")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if rows[0].Verdicts != nil || rows[0].Cases != 1 {
		t.Errorf("got %d cases, verdicts %v", rows[0].Cases, rows[0].Verdicts)
	}
	if got := string(rows[0].Body(`a"b`)); !strings.HasPrefix(got, `{"id":"a\"b",`) {
		t.Errorf("an odd id makes %s", got)
	}
}

func TestNew(t *testing.T) {
	row, err := New("t", "def f(): return 1", "f", []Case{{"", "1"}})
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		Code       string `json:"code"`
		EntryPoint string `json:"entry_point"`
		Cases      []Case `json:"io_cases"`
	}
	if err := json.Unmarshal(row.Body("s"), &body); err != nil {
		t.Fatal(err)
	}
	if body.Code != "def f(): return 1" || body.EntryPoint != "f" || !reflect.DeepEqual(body.Cases, []Case{{"", "1"}}) {
		t.Errorf("got %+v", body)
	}
	if !reflect.DeepEqual(row.Verdicts, []bool{true}) || row.Cases != 1 || row.TaskID != "t" {
		t.Errorf("got %+v", row)
	}
	if row, err = New("t", "", "f", nil); err != nil || row.Cases != 0 {
		t.Errorf("without cases: %v, %v", row, err)
	}
}

func TestCompare(t *testing.T) {
	yes, no := new(true), new(false)
	recorded := []bool{true, false}
	for name, test := range map[string]struct {
		verdicts []bool
		whole    *bool
		cases    []*bool
		want     []string
	}{
		"all as recorded":             {recorded, no, []*bool{yes, no}, nil},
		"one differs":                 {recorded, yes, []*bool{yes, yes}, []string{"t case 1: got passed, want failed"}},
		"the other way":               {recorded, no, []*bool{no, no}, []string{"t case 0: got failed, want passed"}},
		"none recorded":               {nil, no, []*bool{yes, no}, nil},
		"a null verdict":              {recorded, no, []*bool{yes, nil}, []string{"t case 1: got missing, want failed"}},
		"too few":                     {recorded, no, []*bool{yes}, []string{"t case 1: got missing, want failed"}},
		"too few, none recorded":      {nil, yes, []*bool{yes}, []string{"t case 1: got missing, want a verdict"}},
		"too many":                    {recorded, no, []*bool{yes, no, yes}, []string{"t case 2: got passed, want no such case"}},
		"the whole contradicts":       {recorded, yes, []*bool{yes, no}, []string{"t as a whole: got passed, want failed"}},
		"the whole is missing":        {recorded, nil, []*bool{yes, no}, []string{"t as a whole: got missing, want failed"}},
		"the whole, none recorded":    {nil, no, []*bool{yes, yes}, []string{"t as a whole: got failed, want passed"}},
		"no cases, passed as a whole": {[]bool{}, yes, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			row := Row{TaskID: "t", Cases: 2, Verdicts: test.verdicts}
			if test.verdicts != nil {
				row.Cases = len(test.verdicts)
			}
			var got []string
			for _, d := range row.Compare(test.whole, test.cases) {
				got = append(got, d.String())
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestShippedExamples(t *testing.T) {
	const dir = "../../../examples/"
	rows, cases := 0, 0
	for row, err := range Rows(dir + "problems.jsonl") {
		if err != nil {
			t.Fatal(err)
		}
		if row.Verdicts == nil || row.Cases < 3 || row.Cases > 8 {
			t.Errorf("%s has %d cases and verdicts %v", row.TaskID, row.Cases, row.Verdicts)
		}
		rows++
		cases += row.Cases
	}
	readme, err := os.ReadFile(dir + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	if says := fmt.Sprintf("%d submissions, %d cases", rows, cases); !strings.Contains(string(readme), says) {
		t.Errorf("the README doesn't say %q", says)
	}
	submission, err := os.ReadFile(dir + "submission.json")
	if err != nil {
		t.Fatal(err)
	}
	if row, err := parse(submission); err != nil || row.Cases == 0 {
		t.Errorf("submission.json: %v, %v", row, err)
	}
}
