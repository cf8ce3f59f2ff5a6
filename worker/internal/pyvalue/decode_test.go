package pyvalue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// size is a length as marshal spells it.
func size(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

func TestDecodeMarshal(t *testing.T) {
	one, a := "i"+size(1), "u"+size(1)+"a"
	for name, tt := range map[string]struct{ data, want string }{
		"None":                 {"N", "None"},
		"True":                 {"T", "True"},
		"False":                {"F", "False"},
		"Ellipsis":             {".", "Ellipsis"},
		"int":                  {"i" + size(1<<32-2), "-2"},
		"long zero":            {"l" + size(0), "0"},
		"long small":           {"l" + size(1) + "\x07\x00", "7"},
		"long negative":        {"l" + size(1<<32-3) + "\x00\x00\x00\x00\x02\x00", "-2147483648"},
		"long of 60 bits":      {"l" + size(4) + strings.Repeat("\xff\x7f", 4), "1152921504606846975"},
		"long least int64":     {"l" + size(1<<32-5) + strings.Repeat("\x00\x00", 4) + "\x08\x00", "-9223372036854775808"},
		"long of 64 bits":      {"l" + size(5) + strings.Repeat("\x00\x00", 4) + "\x08\x00", "9223372036854775808"},
		"long of 128 bits":     {"l" + size(9) + strings.Repeat("\x00\x00", 8) + "\x80\x00", "170141183460469231731687303715884105728"},
		"float":                {"g\x00\x00\x00\x00\x00\x00\xf8\x3f", "1.5"},
		"complex":              {"y\x00\x00\x00\x00\x00\x00\xf8\x3f\x00\x00\x00\x00\x00\x00\xf0\xbf", "(1.5-1j)"},
		"str":                  {"u" + size(2) + "é", "'é'"},
		"str interned":         {"t" + size(1) + "a", "'a'"},
		"str with surrogate":   {"u" + size(3) + "\xed\xa0\x80", `'\ud800'`},
		"bytes":                {"s" + size(2) + "\xff\x00", `b'\xff\x00'`},
		"list":                 {"[" + size(2) + one + "[" + size(0), "[1, []]"},
		"tuple":                {"(" + size(1) + one, "(1,)"},
		"set":                  {"<" + size(2) + one + a, "{1, 'a'}"},
		"frozenset":            {">" + size(1) + one, "frozenset({1})"},
		"dict":                 {"{" + one + a + a + "{00", "{1: 'a', 'a': {}}"},
		"set with equals":      {"<" + size(3) + one + "T" + one, "{1}"},
		"dict with equal keys": {"{" + one + "N" + "T" + a + "0", "{1: 'a'}"},
	} {
		t.Run(name, func(t *testing.T) {
			v, rest, err := DecodeMarshal([]byte(tt.data+"rest"), Limits{})
			if err != nil || string(rest) != "rest" {
				t.Fatalf("DecodeMarshal(%q): rest %q, %v", tt.data, rest, err)
			}
			if got, _ := AppendRepr(nil, v, 0); string(got) != tt.want {
				t.Errorf("DecodeMarshal(%q) = %s, want %s", tt.data, got, tt.want)
			}
		})
	}
}

func TestDecodeMarshalRefuses(t *testing.T) {
	one := "i" + size(1)
	for name, tt := range map[string]struct {
		data string
		want error
	}{
		"empty":                       {"", ErrMarshal},
		"unknown code":                {"S", ErrMarshal},
		"reference":                   {"r" + size(0), ErrMarshal},
		"flagged for reference":       {"\xce", ErrMarshal},
		"end of a dict":               {"0", ErrMarshal},
		"int cut":                     {"i\x00\x00", ErrMarshal},
		"float cut":                   {"g\x00", ErrMarshal},
		"complex cut":                 {"y" + strings.Repeat("\x00", 15), ErrMarshal},
		"long without digits":         {"l" + size(3), ErrMarshal},
		"long of most digits":         {"l" + size(1<<31), ErrMarshal},
		"long with digit of 16 bits":  {"l" + size(2) + "\x00\x80\x01\x00", ErrMarshal},
		"long with leading zero":      {"l" + size(2) + "\x01\x00\x00\x00", ErrMarshal},
		"str past the end":            {"u" + size(9) + "abc", ErrMarshal},
		"str of negative length":      {"u" + size(1<<32-1) + "abc", ErrMarshal},
		"str of invalid UTF-8":        {"u" + size(1) + "\xff", ErrMarshal},
		"str overlong":                {"u" + size(2) + "\xc0\x80", ErrMarshal},
		"str past Unicode":            {"u" + size(4) + "\xf4\x90\x80\x80", ErrMarshal},
		"str with cut surrogate":      {"u" + size(2) + "\xed\xa0", ErrMarshal},
		"list past the end":           {"[" + size(1<<31-1) + "N", ErrMarshal},
		"lists that claim the same":   {"[" + size(3) + "[" + size(3) + "NNN", ErrMarshal},
		"tuple cut":                   {"(" + size(2) + "N", ErrMarshal},
		"set of a list":               {"<" + size(1) + "[" + size(0), ErrMarshal},
		"frozenset of a tuple of set": {">" + size(1) + "(" + size(1) + "<" + size(0), ErrMarshal},
		"dict with list key":          {"{[" + size(0) + "N0", ErrMarshal},
		"dict without end":            {"{" + one + "N", ErrMarshal},
		"dict without value":          {"{" + one + "0", ErrMarshal},
		"too deep":                    {strings.Repeat("["+size(1), 21) + "N", ErrLimit},
		"too many nodes":              {"[" + size(100) + strings.Repeat("N", 100), ErrLimit},
		"too many nodes in a dict":    {"{" + strings.Repeat(one+"N", 50) + "0", ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			v, _, err := DecodeMarshal([]byte(tt.data), Limits{Nodes: 100, Depth: 20})
			if !errors.Is(err, tt.want) {
				t.Errorf("DecodeMarshal(%.50q) = %v, %v; want %v", tt.data, v, err, tt.want)
			}
		})
	}
}

func TestDecodeMarshalLimits(t *testing.T) {
	data := []byte("[" + size(99) + strings.Repeat("N", 99))
	if v, _, err := DecodeMarshal(data, Limits{Nodes: 100, Depth: 1}); err != nil || v.Len() != 99 {
		t.Errorf("at the limits: %v, %v", v, err)
	}
	deep := []byte(strings.Repeat("("+size(1), DefaultDepth) + "N")
	v, _, err := DecodeMarshal(deep, Limits{})
	if err != nil {
		t.Fatalf("as deep as CPython allows: %v", err)
	}
	if !Equal(v, v) || !bytes.Equal(AppendMarshal(nil, v), deep) {
		t.Error("a deep value is not itself")
	}
	if _, err := Set(v); err != nil {
		t.Errorf("a deep value as a member: %v", err)
	}
	if got, cut := AppendJSON(nil, v, 0); cut || len(got) != 2*DefaultDepth+len("null") {
		t.Errorf("a deep value as JSON has %d bytes", len(got))
	}
}

// TestDecodeMarshalMemory gives data in which each list claims everything that
// is left: what is allocated must not be a multiple of that for each level.
func TestDecodeMarshalMemory(t *testing.T) {
	const n = 1 << 20
	nested := []byte(strings.Repeat("["+size(n), 100) + strings.Repeat("N", n))
	flat := []byte("[" + size(n) + strings.Repeat("N", n))
	for name, data := range map[string][]byte{"nested": nested, "flat": flat} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v, _, err := DecodeMarshal(data, Limits{Nodes: 1 << 30})
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 30*uint64(len(data)) {
			t.Errorf("%s: %d bytes allocated for %d", name, used, len(data))
		}
		if (err == nil) != (name == "flat") {
			t.Errorf("%s: %.100v, %v", name, v, err)
		}
	}
}

func TestDecodeMarshalKeepsNothing(t *testing.T) {
	want := must(t, "['abc', b'def', {'g': 123456789012345678901234567890}]")
	data := AppendMarshal(nil, want)
	v := decode(t, data)
	clear(data)
	if !identical(v, want) {
		t.Errorf("the value changes with the data: %v", v)
	}
}
