package shape

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The forms of the documented requests.
var (
	// Evaluate is the body of POST /evaluate_code.
	Evaluate = &Form{fields: evaluateFields}
	// BatchLine is a line of the body of POST /evaluate_batch.
	BatchLine = &Form{fields: append(slices.Clip(evaluateFields), field{name: "ref", want: "a string", check: ofKind(jsontext.KindString)})}
	// Run is the body of POST /run.
	Run = &Form{fields: []field{id, text("cmd"), limits("limits", "wall_s", "cpu_s", "memory_mb")}}
	// WriteFile is the body of POST /write_file.
	WriteFile = &Form{fields: []field{id, text("rel_path"), text("content"), oneOf("encoding", Encodings...)}}
	// DeleteFile is the body of POST /delete_file.
	DeleteFile = &Form{fields: []field{id, text("rel_path")}}
	// RenameFile is the body of POST /rename_file.
	RenameFile = &Form{fields: []field{id, text("old_path"), text("new_path")}}
	// ForkSession is the body of POST /fork_session.
	ForkSession = &Form{fields: []field{id}}
)

var evaluateFields = []field{
	id, text("code"), text("entry_point"), ioCases,
	limits("limits", "wall_s", "cpu_s", "memory_mb"),
	oneOf("isolation", "submission", "process"),
	flag("stop_on_failure"),
}

// Encodings are the values of "encoding" when a file is written or read.
var Encodings = []string{"utf-8", "base64"}

var id = text("id")

// text is a required string; its content is not looked at.
func text(name string) field {
	return field{name: name, required: true, want: "a string", check: ofKind(jsontext.KindString)}
}

// flag is an optional boolean.
func flag(name string) field {
	return field{name: name, want: "true or false", check: ofKind(jsontext.KindTrue, jsontext.KindFalse)}
}

// ofKind takes any value of these kinds.
func ofKind(kinds ...jsontext.Kind) checker {
	return func(d *jsontext.Decoder, f *field, k jsontext.Kind) (string, error) {
		fault := f.mistyped(k)
		for _, want := range kinds {
			if k == want {
				fault = ""
			}
		}
		return fault, d.SkipValue()
	}
}

// mistyped is the fault of a value of the wrong kind.
func (f *field) mistyped(k jsontext.Kind) string {
	return "body." + f.name + ": want " + f.want + ", got " + name(k)
}

// oneOf is an optional string out of a few.
func oneOf(name string, values ...string) field {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return field{name: name, want: strings.Join(quoted, " or "), check: func(d *jsontext.Decoder, f *field, k jsontext.Kind) (string, error) {
		if k != jsontext.KindString {
			return f.mistyped(k), d.SkipValue()
		}
		raw, err := d.ReadValue()
		if err != nil {
			return "", err
		}
		got, _ := jsontext.AppendUnquote(nil, raw)
		for _, v := range values {
			if string(got) == v {
				return "", nil
			}
		}
		return "body." + f.name + ": want " + f.want + ", got " + excerpt(string(raw)), nil
	}}
}

// maxExcerpt is how much of a wrong value a fault repeats, in bytes.
const maxExcerpt = 64

func excerpt(raw string) string {
	if len(raw) > maxExcerpt {
		return strings.ToValidUTF8(raw[:maxExcerpt], "") + "…"
	}
	return strings.ToValidUTF8(raw, "\ufffd")
}

// ioCases is the array of cases: each an object, not too many, otherwise unread.
var ioCases = field{name: "io_cases", required: true, want: "an array of objects", check: checkCases}

func checkCases(d *jsontext.Decoder, f *field, k jsontext.Kind) (string, error) {
	if k != jsontext.KindBeginArray {
		return f.mistyped(k), d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	fault, n := "", 0
	for ; ; n++ {
		k := d.PeekKind()
		if k == jsontext.KindEndArray {
			break
		}
		if k != jsontext.KindBeginObject && k != jsontext.KindInvalid && fault == "" {
			fault = fmt.Sprintf("body.%s[%d]: want an object, got %s", f.name, n, name(k))
		}
		if err := d.SkipValue(); err != nil {
			return "", err
		}
	}
	if n > protocol.MaxCases {
		fault = fmt.Sprintf("body.%s: %d cases, the limit is %d; split them over several requests", f.name, n, protocol.MaxCases)
	}
	_, err := d.ReadToken()
	return fault, err
}

// limits is an optional object of numbers above zero, each optional.
func limits(name string, names ...string) field {
	return field{name: name, want: "an object", check: func(d *jsontext.Decoder, f *field, k jsontext.Kind) (string, error) {
		return checkLimits(d, f, k, names)
	}}
}

func checkLimits(d *jsontext.Decoder, f *field, k jsontext.Kind, names []string) (string, error) {
	if k != jsontext.KindBeginObject {
		return f.mistyped(k), d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	var faults [maxFields]string
	for d.PeekKind() != jsontext.KindEndObject {
		key, err := d.ReadValue()
		if err != nil {
			return "", err
		}
		var buf [32]byte
		inner, _ := jsontext.AppendUnquote(buf[:0], key)
		which := -1
		for i, n := range names {
			if string(inner) == n {
				which = i
			}
		}
		kind := d.PeekKind()
		value, err := d.ReadValue()
		if err != nil {
			return "", err
		}
		if which >= 0 {
			faults[which] = checkLimit(f.name+"."+names[which], kind, value)
		}
	}
	_, err := d.ReadToken()
	var all []string
	for _, fault := range faults {
		if fault != "" {
			all = append(all, fault)
		}
	}
	return strings.Join(all, "; "), err
}

func checkLimit(path string, k jsontext.Kind, value jsontext.Value) string {
	switch k {
	case jsontext.KindNull: // as if it were not there
		return ""
	case jsontext.KindNumber:
		if n, err := strconv.ParseFloat(string(value), 64); err == nil && n > 0 {
			return ""
		}
		return "body." + path + ": want a number above 0, got " + excerpt(string(value))
	}
	return "body." + path + ": want a number above 0, got " + name(k)
}
