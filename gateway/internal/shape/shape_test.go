package shape

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

const good = `{"id":"s","code":"def f(x): return x","entry_point":"f","io_cases":[{"input":"x=1","output":"1"}]}`

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, body string
		form       *Form
		session    string
		detail     string // "" for none
	}{
		{"evaluate", good, Evaluate, "s", ""},
		{"evaluate with everything", `{"id":"s","code":"","entry_point":"","io_cases":[],"limits":{"wall_s":1,"cpu_s":0.5,"memory_mb":64},"isolation":"process","stop_on_failure":true}`, Evaluate, "s", ""},
		{"optional fields may be null", `{"id":"s","code":"","entry_point":"","io_cases":[],"limits":null,"isolation":null,"stop_on_failure":null}`, Evaluate, "s", ""},
		{"a limit may be null", `{"id":"s","cmd":"","limits":{"wall_s":null}}`, Run, "s", ""},
		{"unknown fields are ignored", `{"id":"s","cmd":"ls","extra":{"deep":[1,{"id":2}]},"code":5}`, Run, "s", ""},
		{"the last of equal names wins", `{"id":"a","cmd":5,"cmd":"ls","id":"b"}`, Run, "b", ""},
		{"escaped names and ids", `{"\u0069d":"\u0073-1","cmd":"ls"}`, Run, "s-1", ""},
		{"lone surrogates pass through", `{"id":"s","cmd":"\ud800 \udfff"}`, Run, "s", ""},
		{"invalid UTF-8 passes through", "{\"id\":\"s\",\"cmd\":\"\xff\xfe\"}", Run, "s", ""},
		{"white space", " \n{ \"id\" : \"s\" , \"cmd\" : \"ls\" }\r\n\t", Run, "s", ""},
		{"write", `{"id":"s","rel_path":"a","content":"x","encoding":"base64"}`, WriteFile, "s", ""},
		{"delete", `{"id":"s","rel_path":"a"}`, DeleteFile, "s", ""},
		{"rename", `{"id":"s","old_path":"a","new_path":"b"}`, RenameFile, "s", ""},
		{"fork", `{"id":"s"}`, ForkSession, "s", ""},

		{"empty", ``, Run, "", "body: want a JSON object, got nothing"},
		{"blank", " \n ", Run, "", "body: want a JSON object, got nothing"},
		{"an array", `[1, 2]`, Run, "", "body: want a JSON object, got an array"},
		{"a string", `"x"`, Run, "", "body: want a JSON object, got a string"},
		{"a word that begins as null does", `not json`, Run, "", "body: not JSON at byte 1: "},
		{"a closing brace", `}`, Run, "", "body: not JSON at byte 0: "},
		{"null", `null`, Run, "", "body: want a JSON object, got null"},
		{"not JSON", `{not json`, Run, "", "body: not JSON at byte 2: "},
		{"not JSON in a value", `{"id":"s","cmd":tru}`, Run, "", "body: not JSON at byte 19: "},
		{"cut off", `{"id":"s","cmd":"l`, Run, "", "body: not JSON: it ends at byte 18"},
		{"cut off after a name", `{"id"`, Run, "", "body: not JSON: it ends at byte 5"},
		{"a trailing comma", `{"id":"s","cmd":"ls",}`, Run, "", "body: not JSON at byte 20: "},
		{"two values", `{"id":"s","cmd":"ls"} {}`, Run, "", "body: not JSON: more after the object that ends at byte 21"},
		{"rubbish after it", `{"id":"s","cmd":"ls"} x`, Run, "", "body: not JSON at byte 22: "},
		{"cut off in an unknown field", `{"id":"s","cmd":"ls","x":[1,`, Run, "", "body: not JSON: it ends at byte 28"},
		{"missing", `{"id":"s"}`, Run, "s", "body.cmd: missing, want a string"},
		{"null where a string is required", `{"id":"s","cmd":null}`, Run, "s", "body.cmd: want a string, got null"},
		{"a number for a string", `{"id":"s","rel_path":"a","content":5}`, WriteFile, "s", "body.content: want a string, got a number"},
		{"an id that is no string", `{"id":["s"],"cmd":"ls"}`, Run, "", "body.id: want a string, got an array"},
		{"several faults", `{"code":{},"entry_point":true,"io_cases":"x"}`, Evaluate, "",
			"body.id: missing, want a string; body.code: want a string, got an object; body.entry_point: want a string, got a boolean; body.io_cases: want an array of objects, got a string"},
		{"the last of equal names is the wrong one", `{"id":"s","cmd":"ls","cmd":1}`, Run, "s", "body.cmd: want a string, got a number"},
		{"a case that is no object", `{"id":"s","code":"","entry_point":"","io_cases":[{},"a=1",[]]}`, Evaluate, "s", "body.io_cases[1]: want an object, got a string"},
		{"too many cases", `{"id":"s","code":"","entry_point":"","io_cases":[` + strings.Repeat("{},", protocol.MaxCases) + `{}]}`, Evaluate, "s",
			"body.io_cases: 10001 cases, the limit is 10000"},
		{"isolation", `{"id":"s","code":"","entry_point":"","io_cases":[],"isolation":"none"}`, Evaluate, "s", `body.isolation: want "submission" or "process", got "none"`},
		{"isolation's type", `{"id":"s","code":"","entry_point":"","io_cases":[],"isolation":1}`, Evaluate, "s", `body.isolation: want "submission" or "process", got a number`},
		{"stop_on_failure", `{"id":"s","code":"","entry_point":"","io_cases":[],"stop_on_failure":"yes"}`, Evaluate, "s", "body.stop_on_failure: want true or false, got a string"},
		{"encoding", `{"id":"s","rel_path":"a","content":"","encoding":"latin-1"}`, WriteFile, "s", `body.encoding: want "utf-8" or "base64", got "latin-1"`},
		{"limits' type", `{"id":"s","cmd":"","limits":[]}`, Run, "s", "body.limits: want an object, got an array"},
		{"limits' values", `{"id":"s","code":"","entry_point":"","io_cases":[],"limits":{"wall_s":0,"cpu_s":-1.5,"memory_mb":"64"}}`, Evaluate, "s",
			"body.limits.wall_s: want a number above 0, got 0; body.limits.cpu_s: want a number above 0, got -1.5; body.limits.memory_mb: want a number above 0, got a string"},
		{"a limit beyond numbers", `{"id":"s","cmd":"","limits":{"wall_s":1e999}}`, Run, "s", "body.limits.wall_s: want a number above 0, got 1e999"},
		{"limits of a command", `{"id":"s","cmd":"","limits":{"wall_s":1,"memory_mb":false,"other":{}}}`, Run, "s", "body.limits.memory_mb: want a number above 0, got a boolean"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := []byte(c.body)
			session, err := c.form.Check(body)
			if string(body) != c.body {
				t.Fatalf("the check changed the body to %.100q", body)
			}
			if c.detail == "" {
				if err != nil || session != c.session {
					t.Fatalf("session %q, error %v; want %q and none", session, err, c.session)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Detail, c.detail) {
				t.Fatalf("error %q, want one that begins with %q", err, c.detail)
			}
		})
	}
}

func TestWrongValuesAreQuotedInPart(t *testing.T) {
	body := `{"id":"s","rel_path":"a","content":"","encoding":"` + strings.Repeat("x", 5000) + `"}`
	_, err := WriteFile.Check([]byte(body))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("a fault of %d bytes for a value of 5000", len(fmt.Sprint(err)))
	}
}

func TestFormsFit(t *testing.T) {
	for _, f := range []*Form{Evaluate, Run, WriteFile, DeleteFile, RenameFile, ForkSession} {
		if len(f.fields) > maxFields {
			t.Errorf("a form of %d fields, maxFields is %d", len(f.fields), maxFields)
		}
	}
}

// A check's memory is a handful of small things, however many cases there are.
// (Three of them, as measured; the race detector empties pools now and then.)
func TestCheckAllocatesLittle(t *testing.T) {
	body := sized(1 << 20)
	if n := testing.AllocsPerRun(5, func() {
		if _, err := Evaluate.Check(body); err != nil {
			t.Fatal(err)
		}
	}); n > 8 {
		t.Errorf("%v allocations a check, want 8 at most", n)
	}
}

// sized is an evaluate body of about n bytes, half code and half cases.
func sized(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"id":"0b9d4c5e-6f5a-4a5e-9c55-2f3c9e0a7b11","entry_point":"Solution().solve","code":"`)
	for line := `def f(x):\n    return \"quoted\" + str(x) * 2  # a comment\n`; b.Len() < n/2; {
		b.WriteString(line)
	}
	b.WriteString(`","io_cases":[{"input":"x=0","output":"0"}`)
	for i := 0; b.Len() < n-2; i++ {
		fmt.Fprintf(&b, `,{"input":"xs=[%d, 2, 3, 4, 5], k=%d","output":"[1, 2, 3]"}`, i, i%17)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func BenchmarkCheck(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"4KB", 4 << 10}, {"512KB", 512 << 10}, {"1MB", 1 << 20}} {
		b.Run(size.name, func(b *testing.B) {
			body := sized(size.bytes)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Evaluate.Check(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever comes in: no panic, the body untouched, and every error explains.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{good, `{"id":"s","cmd":"\ud800"}`, `[`, `{"limits":{"wall_s":1}}`, "\xff", `{"id":"s","io_cases":[{},1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		for _, form := range []*Form{Evaluate, Run, WriteFile, ForkSession} {
			_, err := form.Check(body)
			var e *Error
			if err != nil && (!errors.As(err, &e) || !strings.HasPrefix(e.Detail, "body")) {
				t.Errorf("error %v does not say where", err)
			}
		}
		if !bytes.Equal(before, body) {
			t.Error("the check changed the body")
		}
	})
}
