package verdict

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// Case is a result with what its case asked, for encoding.
type Case struct {
	*Result
	// Input and Output are the case's own JSON, nil if missing.
	Input, Output []byte
}

// Limits of an encoded answer, in bytes.
type Limits struct {
	// Value bounds the JSON of one got or expected value; more is cut.
	Value int
	// Answer bounds the whole answer. When cases are many or large, each gets
	// its share of what is left, and fields are cut to it.
	Answer int
}

// Sizes that cutting works with, in bytes.
const (
	// plainCase is about what a case takes without any value.
	plainCase = 320
)

// Encode writes the documented answer of an evaluate request.
func Encode(cases []Case, lim Limits) []byte {
	passed := true
	for i := range cases {
		passed = passed && cases[i].Passed()
	}
	b := make([]byte, 0, 64+512*min(len(cases), 1024))
	b = append(b, `{"passed":`...)
	b = strconv.AppendBool(b, passed)
	b = append(b, `,"case_results":[`...)
	for i := range cases {
		if i > 0 {
			b = append(b, ',')
		}
		share := (lim.Answer - len(b)) / (len(cases) - i)
		b = cases[i].append(b, i, share, lim.Value)
	}
	return append(b, `],"error":null}`...)
}

func (c *Case) append(b []byte, number, share, maxValue int) []byte {
	b = append(b, `{"passed":`...)
	b = strconv.AppendBool(b, c.Passed())
	if share < plainCase {
		b = append(b, `,"case":`...)
		b = strconv.AppendInt(b, int64(number), 10)
		b = append(b, `,"status":"`...)
		b = append(b, c.Status...)
		return append(b, `"}`...)
	}
	// What one field may take: values get a quarter each of what is spare,
	// texts an eighth.
	room := share - plainCase
	value, text := min(maxValue, 64+room/4), 64+room/8
	var cut bool
	b = append(b, `,"got":`...)
	switch {
	case !c.HasGot:
		b = append(b, "null"...)
	case c.Opaque != "":
		b, cut = appendText(b, c.Opaque, value)
	default:
		b, cut = pyvalue.AppendJSON(b, c.Got, value)
	}
	b = append(b, `,"expected":`...)
	switch {
	case c.ShowExpected && c.WantOpaque != "":
		b, _ = appendText(b, c.WantOpaque, value)
	case c.ShowExpected:
		b, _ = pyvalue.AppendJSON(b, c.Want, value)
	default:
		b = appendRaw(b, c.Output, value)
	}
	b = append(b, `,"error":`...)
	if c.Error == "" {
		b = append(b, "null"...)
	} else {
		b, _ = appendText(b, c.Error, text)
	}
	b = append(b, `,"case":`...)
	b = strconv.AppendInt(b, int64(number), 10)
	b = append(b, `,"input":`...)
	b = appendRaw(b, c.Input, value)
	b = append(b, `,"status":"`...)
	b = append(b, c.Status...)
	b = append(b, `","cpu_ms":`...)
	b = AppendMillis(b, c.CPU)
	b = append(b, `,"wall_ms":`...)
	b = AppendMillis(b, c.Wall)
	b = append(b, `,"memory_kb":`...)
	b = strconv.AppendInt(b, int64(c.PeakKB), 10)
	b = append(b, `,"stdout":`...)
	b, outCut := appendText(b, string(c.Stdout), text)
	b = append(b, `,"stderr":`...)
	b, errCut := appendText(b, string(c.Stderr), text)
	if cut {
		b = append(b, `,"got_truncated":true`...)
	}
	if c.StdoutTruncated || outCut {
		b = append(b, `,"stdout_truncated":true`...)
	}
	if c.StderrTruncated || errCut {
		b = append(b, `,"stderr_truncated":true`...)
	}
	if c.Trust != "" {
		b = append(b, `,"trust":"`...)
		b = append(b, c.Trust...)
		b = append(b, '"')
	}
	if len(c.Integrity) > 0 {
		b = append(b, `,"integrity":[`...)
		for i, mark := range c.Integrity {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(b, mark)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// AppendMillis appends a duration in milliseconds with three decimals at most.
func AppendMillis(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	b = strconv.AppendInt(b, us/1000, 10)
	if rest := us % 1000; rest != 0 {
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	}
	return b
}

// appendRaw appends JSON as it came, or says how long it is.
func appendRaw(b, raw []byte, max int) []byte {
	switch {
	case raw == nil:
		return append(b, "null"...)
	case len(raw) <= max:
		return append(b, raw...)
	}
	b = append(b, `"… (`...)
	b = strconv.AppendInt(b, int64(len(raw)), 10)
	return append(b, ` bytes, left out)"`...)
}

const cutMark = "… (truncated)"

// AppendText appends s as a JSON string; bytes that are not UTF-8 are replaced.
func AppendText(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8, replaced: what was wanted
		return b
	}
	return b
}

// appendText appends s as a JSON string, cut at about max bytes.
func appendText(b []byte, s string, max int) (out []byte, cut bool) {
	if len(s) > max {
		n := max
		for n > 0 && n > max-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		s, cut = s[:n]+cutMark, true
	}
	start := len(b)
	b = AppendText(b, s)
	// Escapes can make six bytes of one.
	if over := len(b) - start; over > 2*max+64 && len(s) > 16 {
		return appendText(b[:start], s[:len(s)*max/over], max)
	}
	return b, cut
}
