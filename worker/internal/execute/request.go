package execute

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// evaluateRequest is the documented body of an evaluate request. Raw fields are
// views of the body.
type evaluateRequest struct {
	code, entryPoint string
	cases            []rawCase
	limits           requestLimits
	// eachAlone gives each case a process of its own from the start.
	eachAlone     bool
	stopOnFailure bool
}

type rawCase struct{ input, output []byte }

// requestLimits are what a caller asked for; 0 where it didn't.
type requestLimits struct {
	wall, cpu time.Duration
	memory    int64
}

// parseEvaluate reads a body whose shape the gateway has checked. An error is
// the caller's.
func parseEvaluate(body []byte) (evaluateRequest, error) {
	var r evaluateRequest
	err := eachField(body, "body", func(name string, raw []byte) (err error) {
		if isNull(raw) {
			return nil // as if it were not there; the gateway has looked for what must be
		}
		switch name {
		case "code":
			r.code, err = text(raw, "body.code")
		case "entry_point":
			r.entryPoint, err = text(raw, "body.entry_point")
		case "io_cases":
			r.cases, err = parseCases(raw)
		case "limits":
			r.limits, err = parseLimits(raw)
		case "isolation":
			var s string
			if s, err = text(raw, "body.isolation"); err == nil {
				r.eachAlone = s == "process"
				if s != "process" && s != "submission" {
					err = fmt.Errorf(`body.isolation: want "submission" or "process", got %q`, s)
				}
			}
		case "stop_on_failure":
			r.stopOnFailure = raw[0] == 't'
		}
		return err
	})
	return r, err
}

func parseCases(raw []byte) ([]rawCase, error) {
	cases := make([]rawCase, 0, min(bytes.Count(raw, []byte("{")), protocol.MaxCases))
	d := decoder(raw)
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '[' {
		return nil, fmt.Errorf("body.io_cases: want an array of objects")
	}
	for d.PeekKind() != ']' {
		if len(cases) == protocol.MaxCases {
			return nil, fmt.Errorf("body.io_cases: more than %d cases; send them in several requests", protocol.MaxCases)
		}
		value, err := d.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("body.io_cases[%d]: %w", len(cases), err)
		}
		var c rawCase
		// The decoder's buffer is the input itself, so that views of it last.
		at := int(d.InputOffset())
		value = raw[at-len(value) : at]
		if err := eachField(value, "body.io_cases["+strconv.Itoa(len(cases))+"]", func(name string, raw []byte) error {
			switch name {
			case "input":
				c.input = raw
			case "output":
				c.output = raw
			}
			return nil
		}); err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// mostSeconds and mostMegabytes are about what a number here can hold; above
// every maximum, they only show in an error.
const (
	mostSeconds   = 9e9
	mostMegabytes = 8e12
)

// isNull reports whether a JSON value is null.
func isNull(raw []byte) bool { return raw[0] == 'n' }

func parseLimits(raw []byte) (l requestLimits, err error) {
	err = eachField(raw, "body.limits", func(name string, raw []byte) error {
		if name != "wall_s" && name != "cpu_s" && name != "memory_mb" || isNull(raw) {
			return nil
		}
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || f <= 0 {
			return fmt.Errorf("body.limits.%s: want a number above 0, got %s", name, raw)
		}
		switch name {
		case "wall_s":
			l.wall = time.Duration(min(f, mostSeconds) * float64(time.Second))
		case "cpu_s":
			l.cpu = time.Duration(min(f, mostSeconds) * float64(time.Second))
		case "memory_mb":
			l.memory = int64(min(f, mostMegabytes) * (1 << 20))
		}
		return nil
	})
	return l, err
}

// runRequest is the documented body of a run request.
type runRequest struct {
	session, command string
	limits           requestLimits
}

func parseRun(body []byte) (runRequest, error) {
	var r runRequest
	err := eachField(body, "body", func(name string, raw []byte) (err error) {
		if isNull(raw) {
			return nil
		}
		switch name {
		case "id":
			r.session, err = text(raw, "body.id")
		case "cmd":
			r.command, err = text(raw, "body.cmd")
		case "limits":
			r.limits, err = parseLimits(raw)
		}
		return err
	})
	return r, err
}

// within resolves what was asked for against the default and the maximum.
func within[T time.Duration | int64](asked, usual, most T, name string, show func(T) string) (T, error) {
	if asked == 0 {
		return usual, nil
	}
	if asked > most {
		return 0, fmt.Errorf("body.limits.%s: %s is above this server's maximum of %s", name, show(asked), show(most))
	}
	return asked, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s" }
func megabytes(n int64) string       { return strconv.FormatInt(n>>20, 10) + " MB" }

func decoder(raw []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// eachField calls f for each field of a JSON object with a view of its value.
func eachField(raw []byte, what string, f func(name string, value []byte) error) error {
	d := decoder(raw)
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return fmt.Errorf("%s: want an object", what)
	}
	for d.PeekKind() != '}' {
		tok, err := d.ReadToken()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		name := tok.String()
		value, err := d.ReadValue()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		at := int(d.InputOffset())
		if err := f(name, raw[at-len(value):at]); err != nil {
			return err
		}
	}
	return nil
}

// text decodes a JSON string as Python would, lone surrogates included.
func text(raw []byte, what string) (string, error) {
	if raw[0] != '"' {
		return "", fmt.Errorf("%s: want a string, got %.20s", what, raw)
	}
	s, err := pyvalue.UnquoteJSON(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return s, nil
}
