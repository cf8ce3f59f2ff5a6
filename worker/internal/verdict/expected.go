// Package verdict decides what became of a case: it holds what was expected
// beside what the submission's process said it got, and writes the results as
// the documented JSON. It runs nothing.
package verdict

import (
	"bytes"
	"fmt"
	"math/big"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// Expected is what a case expects.
type Expected struct {
	// Raw is the case's "output" as it came, nil if it has none.
	Raw []byte
	// Known says that Value holds what is expected. Otherwise Text is a Python
	// expression whose value only an interpreter can tell.
	Known bool
	Value pyvalue.Value
	Text  string
}

// ParseExpected reads a case's "output": a text that is a Python literal or
// expression, or any other JSON value, which means itself.
func ParseExpected(raw []byte) (Expected, error) {
	e := Expected{Raw: raw}
	if len(raw) == 0 {
		return e, fmt.Errorf("KeyError: 'output': the case has no \"output\"")
	}
	if raw[0] != '"' {
		v, err := fromJSON(raw)
		if err != nil {
			return e, fmt.Errorf("ValueError: output: %w", err)
		}
		e.Known, e.Value = true, v
		return e, nil
	}
	text, err := pyvalue.UnquoteJSON(raw)
	if err != nil {
		return e, fmt.Errorf("ValueError: output: %w", err)
	}
	if v, err := pyvalue.Parse(text); err == nil {
		e.Known, e.Value = true, v
	} else {
		e.Text = text
	}
	return e, nil
}

// fromJSON gives a JSON value its Python value, as json.loads does.
func fromJSON(raw []byte) (pyvalue.Value, error) {
	d := jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return decodeJSON(d)
}

func decodeJSON(d *jsontext.Decoder) (pyvalue.Value, error) {
	switch d.PeekKind() {
	case '[':
		var items []pyvalue.Value
		if _, err := d.ReadToken(); err != nil {
			return pyvalue.None(), err
		}
		for d.PeekKind() != ']' {
			v, err := decodeJSON(d)
			if err != nil {
				return v, err
			}
			items = append(items, v)
		}
		_, err := d.ReadToken()
		return pyvalue.List(items...), err
	case '{':
		var pairs []pyvalue.Value
		if _, err := d.ReadToken(); err != nil {
			return pyvalue.None(), err
		}
		for d.PeekKind() != '}' {
			v, err := decodeJSON(d)
			if err != nil {
				return v, err
			}
			pairs = append(pairs, v)
		}
		if _, err := d.ReadToken(); err != nil {
			return pyvalue.None(), err
		}
		return pyvalue.Dict(pairs...)
	}
	raw, err := d.ReadValue()
	if err != nil {
		return pyvalue.None(), err
	}
	switch raw[0] {
	case 'n':
		return pyvalue.None(), nil
	case 't', 'f':
		return pyvalue.Bool(raw[0] == 't'), nil
	case '"':
		s, err := pyvalue.UnquoteJSON(raw)
		return pyvalue.Str(s), err
	}
	if bytes.ContainsAny(raw, ".eE") {
		f, err := strconv.ParseFloat(string(raw), 64)
		if f != 0 && err != nil { // out of range: Python reads inf
			err = nil
		}
		return pyvalue.Float(f), err
	}
	if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return pyvalue.Int(i), nil
	}
	if len(raw) > maxDigits {
		return pyvalue.None(), fmt.Errorf("integer of %d digits, the limit is %d", len(raw), maxDigits)
	}
	b, _ := new(big.Int).SetString(string(raw), 10)
	return pyvalue.BigInt(b), nil
}

// maxDigits is what Python itself reads: sys.int_info.default_max_str_digits.
const maxDigits = 4300
