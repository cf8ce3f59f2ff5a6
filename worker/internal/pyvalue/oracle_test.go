package pyvalue

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// findPython returns the path of an interpreter if it is a CPython of 3.11 or
// later.
func findPython(name string) (path string, ok bool) {
	const version = `import sys; assert sys.implementation.name == "cpython" and sys.version_info >= (3, 11)`
	path, err := exec.LookPath(name)
	return path, err == nil && exec.Command(path, "-c", version).Run() == nil
}

// systemPython returns the interpreter to compare with, or skips the test.
func systemPython(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, ok := findPython(name); ok {
			return path
		}
	}
	t.Skip("no CPython 3.11 or later")
	return ""
}

// oracle runs testdata/oracle.py and hands each field that it writes to next.
type oracle struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *bufio.Reader
	errs bytes.Buffer
	head [4]byte
}

func startOracle(t testing.TB, interpreter, mode string, seed, count int, input io.Reader) *oracle {
	t.Helper()
	o := &oracle{t: t, cmd: exec.Command(interpreter, "testdata/oracle.py", mode, strconv.Itoa(seed), strconv.Itoa(count))}
	o.cmd.Env = []string{"PYTHONHASHSEED=1", "LC_ALL=C.UTF-8"}
	o.cmd.Stdin = input
	o.cmd.Stderr = &o.errs
	pipe, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if o.cmd.ProcessState == nil {
			o.cmd.Process.Kill()
			o.cmd.Wait()
		}
	})
	o.out = bufio.NewReaderSize(pipe, 1<<18)
	return o
}

// next returns the next field, nil for None.
func (o *oracle) next() []byte {
	if _, err := io.ReadFull(o.out, o.head[:]); err != nil {
		o.stopped(err)
	}
	n := binary.LittleEndian.Uint32(o.head[:])
	if n == 1<<32-1 {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(o.out, b); err != nil {
		o.stopped(err)
	}
	return b
}

func (o *oracle) stopped(err error) {
	o.t.Helper()
	o.cmd.Wait()
	o.t.Fatalf("oracle stopped: %v\n%s", err, o.errs.String())
}

// end expects that the oracle has no more to say.
func (o *oracle) end() {
	o.t.Helper()
	if _, err := o.out.ReadByte(); !errors.Is(err, io.EOF) {
		o.t.Fatalf("oracle wrote more than was asked for: %v", err)
	}
	if err := o.cmd.Wait(); err != nil {
		o.stopped(err)
	}
}

// decode reads data that CPython wrote, all of it.
func decode(t testing.TB, data []byte) Value {
	t.Helper()
	v, rest, err := DecodeMarshal(data, Limits{})
	if err != nil || len(rest) > 0 {
		t.Fatalf("DecodeMarshal(%q) = %v, %q, %v", data, v, rest, err)
	}
	return v
}

// identical reports whether a and b are the same in type, value and sign, nan
// being identical to nan; of sets the order may differ.
func identical(a, b Value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case KindSet, KindFrozenSet:
		return slices.EqualFunc(sortMembers(a.Items()), sortMembers(b.Items()), identical)
	case KindList, KindTuple, KindDict:
		return slices.EqualFunc(a.Items(), b.Items(), identical)
	default:
		return bytes.Equal(AppendMarshal(nil, a), AppendMarshal(nil, b))
	}
}

// scale returns how many records a differential test asks for.
func scale(full int) int {
	if testing.Short() {
		return full / 20
	}
	return full
}

// TestAgainstCPython compares with CPython what it makes of generated values:
// literal texts, equality, marshal data, repr and JSON.
func TestAgainstCPython(t *testing.T) {
	const familySize = 20 // as in oracle.py
	families := scale(7500)
	o := startOracle(t, systemPython(t), "families", 1, families, nil)
	var pairs, equal, texts, reprs, jsons int
	var sides [familySize]struct {
		text, data   []byte
		spelled, got Value
	}
	for range families {
		for i := range sides {
			text, lit, data, repr, wantJSON := o.next(), o.next(), o.next(), o.next(), o.next()
			s := &sides[i]
			s.text, s.data, s.got = text, data, decode(t, data)
			s.spelled = s.got
			if text != nil {
				v, err := Parse(string(text))
				if err != nil {
					t.Errorf("Parse(%q): %v, CPython accepts it", text, err)
				} else if want := decode(t, lit); !identical(v, want) {
					t.Errorf("Parse(%q) = %v, want %v", text, v, want)
				} else {
					s.spelled = v
					texts++
				}
			}
			if again := AppendMarshal(nil, s.got); !bytes.Equal(again, data) {
				t.Errorf("AppendMarshal of %v = %q, want %q", s.got, again, data)
			}
			if repr != nil {
				reprs++
				if got, _ := AppendRepr(nil, s.got, 0); !bytes.Equal(got, repr) {
					t.Errorf("AppendRepr = %s, want %s", got, repr)
				}
			}
			if wantJSON != nil {
				jsons++
				if got, _ := AppendJSON(nil, s.got, 0); !bytes.Equal(got, wantJSON) {
					t.Errorf("AppendJSON of %v = %s, want %s", s.got, got, wantJSON)
				}
			}
		}
		truths := o.next()
		if len(truths) != familySize*familySize {
			t.Fatalf("%d truths of a family", len(truths))
		}
		for k, truth := range truths {
			a, b := &sides[k/familySize], &sides[k%familySize]
			if got, want := Equal(a.spelled, b.got), truth == 1; got != want {
				t.Errorf("Equal(%v, %v) = %v, CPython says %v", a.spelled, b.got, got, want)
			}
			pairs++
			equal += int(truth)
		}
		if t.Failed() {
			t.FailNow() // a family is enough to read
		}
	}
	o.end()
	t.Logf("compared %d pairs with CPython, %d of them equal; %d literals, %d reprs, %d JSON texts",
		pairs, equal, texts, reprs, jsons)
	fmt.Printf("pyvalue: %d pairs compared with CPython\n", pairs)
	if !testing.Short() && pairs < 1_000_000 {
		t.Errorf("compared only %d pairs", pairs)
	}
	values := pairs / familySize
	if equal < pairs/20 || equal > pairs*19/20 || min(texts, reprs, jsons) < values/4 {
		t.Errorf("lopsided: of %d pairs %d equal; of %d values %d literals, %d reprs, %d JSON texts",
			pairs, equal, values, texts, reprs, jsons)
	}
}

// TestParseSoundness gives Parse texts that are mostly no literals: it must not
// accept what CPython rejects.
func TestParseSoundness(t *testing.T) {
	n := scale(200_000)
	o := startOracle(t, systemPython(t), "texts", 2, n, nil)
	var accepted, literals int
	for range n {
		text, lit := string(o.next()), o.next()
		if lit != nil {
			literals++
		}
		v, err := Parse(text)
		if err != nil {
			if e := (*SyntaxError)(nil); !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) || e.Msg == "" {
				t.Errorf("Parse(%q) fails with %#v", text, err)
			}
			continue
		}
		accepted++
		if lit == nil {
			t.Errorf("Parse(%q) = %v, CPython rejects it", text, v)
		} else if want := decode(t, lit); !identical(v, want) {
			t.Errorf("Parse(%q) = %v, want %v", text, v, want)
		}
	}
	o.end()
	t.Logf("%d texts, %d literals, %d accepted", n, literals, accepted)
	// What is refused on purpose is common in these texts.
	if literals < n/20 || accepted < literals*3/4 {
		t.Errorf("of %d texts CPython accepts %d, Parse only %d", n, literals, accepted)
	}
}

// TestParseArgsAgainstCPython compares with what the documented service's own
// procedure makes of input texts.
func TestParseArgsAgainstCPython(t *testing.T) {
	n := scale(100_000)
	o := startOracle(t, systemPython(t), "arguments", 3, n, nil)
	var accepted, same int
	for range n {
		text, good, fallback, strict := string(o.next()), o.next()[0] == 1, decode(t, o.next()), decode(t, o.next())
		args, ok := ParseArgs(text)
		if !ok {
			if good {
				t.Errorf("ParseArgs(%q) refuses it, want %v", text, strict)
			}
			continue
		}
		accepted++
		got := decode(t, args.AppendMarshal(nil))
		// A comment in brackets is beyond the oracle's strict reading.
		if !identical(got, strict) && strings.IndexByte(text, '#') < 0 {
			t.Errorf("ParseArgs(%q) = %v, want %v", text, got, strict)
		}
		// Where no = is inside of anything and no line ends, the procedure is right.
		if strings.Count(text, "=") == len(args.Keywords) && strings.IndexByte(text, '\n') < 0 {
			same++
			if !identical(got, fallback) {
				t.Errorf("ParseArgs(%q) = %v, the fallback gives %v", text, got, fallback)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	o.end()
	t.Logf("%d texts, %d accepted, %d of those as the fallback must agree on", n, accepted, same)
	if accepted < n/2 || same < n/4 {
		t.Errorf("of %d texts only %d accepted, %d comparable", n, accepted, same)
	}
}

// TestMarshalLoads lets CPython, in every release at hand, load what
// AppendMarshal writes.
func TestMarshalLoads(t *testing.T) {
	interpreters := []string{systemPython(t)}
	for _, name := range []string{"python3.11", "python3.12", "python3.13", "python3.14"} {
		if path, ok := findPython(name); ok {
			interpreters = append(interpreters, path)
		}
	}
	texts := marshalTexts(t)
	for _, interpreter := range interpreters {
		t.Run(filepath.Base(interpreter), func(t *testing.T) {
			var input bytes.Buffer
			for _, text := range texts {
				v, err := Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range [][]byte{AppendMarshal(nil, v), []byte(text)} {
					binary.Write(&input, binary.LittleEndian, uint32(len(b)))
					input.Write(b)
				}
			}
			o := startOracle(t, interpreter, "check", 0, len(texts), &input)
			for _, text := range texts {
				if o.next()[0] != 1 {
					t.Errorf("marshal data of %s loads as another value", text)
				}
			}
			o.end()
		})
	}
}

// marshalTexts returns literals of every kind and about every size of ints.
func marshalTexts(t *testing.T) []string {
	texts := []string{"None", "True", "False", "...", "1.5", "-0.0", "1e400", "1+2j", "-0.0-1.5j", "''", "'a'", "'é日🎉'",
		`'\ud800'`, `'\ud83d\ude00'`, "b''", `b'\x00\xff'`, "[]", "()", "set()", "{}", "[1, [2, (3,)]]", "(1, 'a', None)",
		"{1, 2, 'a'}", "{'a': 1, (1, 2): {'b': []}}", "[" + strings.Repeat("'abcdefgh', ", 500) + "]"}
	for shift := range 70 {
		for _, delta := range []int{-1, 0, 1} {
			for _, sign := range []string{"", "-"} {
				n := fmt.Sprintf("%s0x%x", sign, max(1<<min(shift, 60)+delta, 0))
				texts = append(texts, n)
				if shift > 60 {
					texts = append(texts, n+strings.Repeat("0f", shift-60))
				}
			}
		}
	}
	return append(texts, "0x"+strings.Repeat("f", 5000))
}
