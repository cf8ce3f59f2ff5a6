package pyvalue

import (
	"errors"
	"testing"
)

func TestUnquoteJSON(t *testing.T) {
	for name, tt := range map[string]struct{ raw, want string }{
		"empty":                 {`""`, ""},
		"plain":                 {`"a=1, b='é😀'"`, "a=1, b='é😀'"},
		"escapes":               {`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t"},
		"code points":           {`"x\u0041\u00e9\u20AC\u0000y"`, "xAé€\x00y"},
		"pair":                  {`"\ud83d\ude00"`, "😀"},
		"high alone":            {`"a\ud83db"`, "a\xed\xa0\xbdb"},
		"low alone":             {`"\ude00"`, "\xed\xb8\x80"},
		"high at the end":       {`"\ud83d"`, "\xed\xa0\xbd"},
		"high then letter":      {`"\ud83d\u0041"`, "\xed\xa0\xbdA"},
		"low then high":         {`"\ude00\ud83d"`, "\xed\xb8\x80\xed\xa0\xbd"},
		"high then pair":        {`"\ud83d\ud83d\ude00"`, "\xed\xa0\xbd😀"},
		"escaped backslash u":   {`"\\ud83d"`, `\ud83d`},
		"last code point":       {`"\udbff\udfff"`, "\U0010ffff"},
		"deleted and separator": {"\"\x7f\u2028\"", "\x7f\u2028"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := []byte(tt.raw)
			got, err := UnquoteJSON(raw)
			clear(raw)
			if err != nil || got != tt.want {
				t.Errorf("UnquoteJSON(%s) = %q, %v; want %q", tt.raw, got, err, tt.want)
			}
		})
	}
	for name, raw := range map[string]string{
		"nothing": "", "one quote": `"`, "no quotes": `ab`, "open": `"a`, "escaped quote": `"\"`, "quote inside": `"a"b"`, "newline": "\"a\nb\"",
		"control": "\"\x01\"", "unknown escape": `"\x41"`, "single quote": `"\'"`, "short": `"\u12"`, "no digits": `"\uzzzz"`,
		"invalid UTF-8": "\"\xff\"", "encoded surrogate": "\"\xed\xa0\x80\"", "number": "12", "backslash at the end": `"\\\"`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := UnquoteJSON([]byte(raw)); !errors.Is(err, ErrQuote) {
				t.Errorf("UnquoteJSON(%s) = %q, %v; want ErrQuote", raw, got, err)
			}
		})
	}
}
