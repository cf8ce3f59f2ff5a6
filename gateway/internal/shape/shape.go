// Package shape checks that a request's body has the documented shape, in one
// pass over the raw JSON. It decodes the session id and small settings; code,
// file contents and cases are looked at only to see what kind of value they
// are, and travel on byte for byte. What paths, code or cases mean is the
// worker's to judge.
package shape

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Error says what is wrong with a body, field by field, for the caller to read.
type Error struct{ Detail string }

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// Form is the shape of one request's body.
type Form struct{ fields []field }

// field is one key of a form. Keys that no field names are ignored.
type field struct {
	name     string
	required bool
	want     string // "a string", for a fault
	check    checker
}

// checker reads one value from d, which is of kind k, and says what is wrong
// with it ("" for nothing). The error is one of syntax.
type checker func(d *jsontext.Decoder, f *field, k jsontext.Kind) (fault string, err error)

// maxFields bounds the fields of a form, so that a check's state is on the stack.
const maxFields = 8

// lenient is what the parser lets pass: as in most parsers the last of several
// equal names wins, and text that is no valid UTF-8 is the worker's to judge.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// reader is a decoder with the buffer that it reads without copying.
type reader struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

var readers = sync.Pool{New: func() any {
	r := new(reader)
	r.dec = jsontext.NewDecoder(&r.buf, lenient...)
	return r
}}

// Check checks a body and returns the session id in it, which is a string of
// any content (see protocol.CheckSessionID). Every error is an *Error. It
// neither keeps nor changes body.
func (f *Form) Check(body []byte) (session string, err error) {
	found, err := f.read(body)
	return found.session, err
}

// CheckLine is Check for a line of a batch, and also returns the line's ref, a
// JSON string, or nil if it has none. What is returned with an error is what was
// found before it.
func (f *Form) CheckLine(body []byte) (session string, ref []byte, err error) {
	found, err := f.read(body)
	return found.session, found.ref, err
}

// found is what of a body is returned.
type found struct {
	session string
	ref     []byte
}

func (f *Form) read(body []byte) (found, error) {
	r := readers.Get().(*reader)
	r.buf = *bytes.NewBuffer(body)
	r.dec.Reset(&r.buf, lenient...)
	var what found
	err := f.check(r.dec, &what)
	r.buf = bytes.Buffer{}
	r.dec.Reset(&r.buf, lenient...) // let go of body
	readers.Put(r)
	return what, err
}

func (f *Form) check(d *jsontext.Decoder, what *found) error {
	switch k := d.PeekKind(); k {
	case jsontext.KindBeginObject:
		if _, err := d.ReadToken(); err != nil {
			return syntax(err)
		}
	case jsontext.KindInvalid:
		_, err := d.ReadToken()
		return syntax(err)
	default:
		if _, err := d.ReadToken(); err != nil { // "not json" begins as null does
			return syntax(err)
		}
		return &Error{"body: want a JSON object, got " + name(k)}
	}

	var seen [maxFields]bool
	var faults [maxFields]string
	for d.PeekKind() != jsontext.KindEndObject {
		key, err := d.ReadValue()
		if err != nil {
			return syntax(err)
		}
		i := f.find(key)
		k := d.PeekKind()
		if i < 0 {
			if err := d.SkipValue(); err != nil {
				return syntax(err)
			}
			continue
		}
		seen[i] = true
		if faults[i], err = f.fields[i].read(d, k, what); err != nil {
			return syntax(err)
		}
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace
		return syntax(err)
	}
	end := d.InputOffset()
	if _, err := d.ReadToken(); err == nil {
		return &Error{fmt.Sprintf("body: not JSON: more after the object that ends at byte %d", end)}
	} else if !errors.Is(err, io.EOF) {
		return syntax(err)
	}
	return f.verdict(&seen, &faults)
}

// verdict joins what is wrong, in the order of the form's fields.
func (f *Form) verdict(seen *[maxFields]bool, faults *[maxFields]string) error {
	var all []string
	for i := range f.fields {
		switch fd := &f.fields[i]; {
		case faults[i] != "":
			all = append(all, faults[i])
		case fd.required && !seen[i]:
			all = append(all, "body."+fd.name+": missing, want "+fd.want)
		}
	}
	if all == nil {
		return nil
	}
	return &Error{strings.Join(all, "; ")}
}

// find returns the index of the field that a raw key (with its quotes) names,
// or -1.
func (f *Form) find(key jsontext.Value) int {
	if len(key) < 2 || key[0] != '"' {
		return -1
	}
	inner := key[1 : len(key)-1]
	if bytes.IndexByte(inner, '\\') >= 0 {
		inner, _ = jsontext.AppendUnquote(nil, key)
	}
	for i := range f.fields {
		if string(inner) == f.fields[i].name {
			return i
		}
	}
	return -1
}

// read checks one value; the session id is also decoded, a ref kept as it is.
func (fd *field) read(d *jsontext.Decoder, k jsontext.Kind, what *found) (string, error) {
	if k == jsontext.KindNull && !fd.required {
		return "", d.SkipValue() // as if it were not there
	}
	if fd.name == "id" && k == jsontext.KindString {
		v, err := d.ReadValue()
		if err != nil {
			return "", err
		}
		if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 {
			what.session = string(inner)
		} else {
			text, _ := jsontext.AppendUnquote(nil, v) // what it can't decode, CheckSessionID refuses
			what.session = string(text)
		}
		return "", nil
	}
	if fd.name == "ref" && k == jsontext.KindString {
		v, err := d.ReadValue()
		if err == nil {
			what.ref = bytes.Clone(v)
		}
		return "", err
	}
	return fd.check(d, fd, k)
}

// syntax says where a body stops being JSON.
func syntax(err error) error {
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF):
		return &Error{"body: want a JSON object, got nothing"}
	case errors.As(err, &s):
		if errors.Is(s.Err, io.ErrUnexpectedEOF) {
			return &Error{fmt.Sprintf("body: not JSON: it ends at byte %d in the middle of a value", s.ByteOffset)}
		}
		return &Error{fmt.Sprintf("body: not JSON at byte %d: %v", s.ByteOffset, s.Err)}
	default:
		return &Error{fmt.Sprintf("body: not JSON: %v", err)}
	}
}

// name is what a kind of value is called in a fault.
func name(k jsontext.Kind) string {
	switch k {
	case jsontext.KindNull:
		return "null"
	case jsontext.KindFalse, jsontext.KindTrue:
		return "a boolean"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindBeginObject:
		return "an object"
	case jsontext.KindBeginArray:
		return "an array"
	}
	return "no value"
}
