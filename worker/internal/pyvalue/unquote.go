package pyvalue

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// ErrQuote says that what was to be a JSON string is none.
var ErrQuote = errors.New("not a JSON string")

// UnquoteJSON decodes one JSON string, quotes included. Escapes that spell a
// surrogate pair become its code point, and those that spell half of one stay
// a lone surrogate, as in Python's json module: encoding/json would replace it.
// It keeps no reference to raw. Errors are ErrQuote.
func UnquoteJSON(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", fmt.Errorf("%w: no quotes around it", ErrQuote)
	}
	s := string(raw[1 : len(raw)-1])
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: not UTF-8", ErrQuote)
	}
	var out []byte
	done := 0 // what is before it in s is in out
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c < 0x20:
			return "", fmt.Errorf("%w: byte %d is %q", ErrQuote, i+1, c)
		case c == '\\':
			out = append(out, s[done:i]...)
			r, n := unescapeJSON(s[i:])
			if n == 0 {
				return "", fmt.Errorf("%w: unknown escape at byte %d", ErrQuote, i+1)
			}
			if out == nil {
				out = make([]byte, 0, len(s))
			}
			out = appendCodePoint(out, r)
			done = i + n
			i = done - 1
		}
	}
	if done == 0 {
		return s, nil
	}
	out = append(out, s[done:]...)
	return unsafe.String(unsafe.SliceData(out), len(out)), nil
}

// unescapeJSON returns what the escape at the start of s means, and its length
// in bytes, 0 if it is none.
func unescapeJSON(s string) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	if s[1] == 'u' {
		r, ok := hex4(s)
		if !ok {
			return 0, 0
		}
		if r>>10 == surrogateMin>>10 {
			if low, ok := hex4(s[6:]); ok && low>>10 == surrogateMin>>10+1 {
				return 0x10000 + (r-surrogateMin)<<10 + low&0x3ff, 12
			}
		}
		return r, 6
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	at := strings.IndexByte(from, s[1])
	if at < 0 {
		return 0, 0
	}
	return rune(to[at]), 2
}

// hex4 reads `\u` and four hexadecimal digits at the start of s.
func hex4(s string) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	for i := 2; i < 6; i++ {
		d := digit(s[i])
		if d > 15 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}
