package pyvalue

import "strings"

// prefix looks at the letters before a string literal's quote, if pos is at
// one: how many they are, and what they mean. n is -1 if there is no string.
func (p *parser) prefix() (n int, raw, bytes bool) {
	for i := 0; i <= 2; i++ {
		switch p.peek(p.pos + i) {
		case '"', '\'':
			if i == 2 && !(raw && bytes) {
				return -1, false, false // rr, bb, ur
			}
			return i, raw, bytes
		case 'r', 'R':
			raw = true
		case 'b', 'B':
			bytes = true
		case 'u', 'U':
			if i == 1 {
				return -1, false, false
			}
		default:
			return -1, false, false
		}
	}
	return -1, false, false
}

// strings reads a string or bytes literal, and those that follow it without a
// comma: they are one.
func (p *parser) strings() (v Value, ok bool) {
	n, raw, isBytes := p.prefix()
	p.pos += n
	s, ok := p.quoted(raw, isBytes)
	if !ok {
		return v, false
	}
	p.blanks()
	if n, raw, b := p.prefix(); n >= 0 {
		var all strings.Builder
		all.WriteString(s)
		for n >= 0 {
			if b != isBytes {
				return v, p.fail("bytes next to a string")
			}
			p.pos += n
			if s, ok = p.quoted(raw, b); !ok {
				return v, false
			}
			all.WriteString(s)
			p.blanks()
			n, raw, b = p.prefix()
		}
		s = all.String()
	}
	if isBytes {
		return Bytes(s), true
	}
	return Str(s), true
}

// quoted reads a literal from its first quote on and returns its contents.
func (p *parser) quoted(raw, isBytes bool) (s string, ok bool) {
	q := p.text[p.pos]
	triple := p.peek(p.pos+1) == q && p.peek(p.pos+2) == q
	start := p.pos + 1
	if triple {
		start = p.pos + 3
	}
	plain := true // the contents are what is between the quotes
	for i := start; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == q:
			if !triple {
				p.pos = i + 1
			} else if p.peek(i+1) == q && p.peek(i+2) == q {
				p.pos = i + 3
			} else {
				continue
			}
			if plain {
				return p.text[start:i], true
			}
			return p.unescape(p.text[start:i], raw, isBytes)
		case c == '\\':
			plain = plain && raw
			i++
			if p.peek(i) == '\r' {
				plain = false
				if p.peek(i+1) == '\n' {
					i++
				}
			}
			if isBytes && p.peek(i) >= 0x80 {
				return "", p.fail("bytes with a character outside of ASCII")
			}
		case c == '\n' || c == '\r':
			if !triple {
				return "", p.fail("a string that does not end")
			}
			plain = plain && c == '\n'
		case c >= 0x80 && isBytes:
			return "", p.fail("bytes with a character outside of ASCII")
		}
	}
	return "", p.fail("a string that does not end")
}

// unescape returns what the text between two quotes stands for.
func (p *parser) unescape(s string, raw, isBytes bool) (string, bool) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		c := s[i]
		i++
		if c == '\r' { // line ends count as \n, whatever they are
			if i < len(s) && s[i] == '\n' {
				i++
			}
			out = append(out, '\n')
			continue
		}
		if c != '\\' || raw {
			out = append(out, c)
			continue
		}
		c = s[i] // there is one: a backslash before the quote would have taken it in
		i++
		n := 0 // hexadecimal digits to come
		switch c {
		case '\r':
			if i < len(s) && s[i] == '\n' {
				i++
			}
		case '\n':
		case '\\', '\'', '"':
			out = append(out, c)
		case 'a':
			out = append(out, '\a')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case '0', '1', '2', '3', '4', '5', '6', '7':
			r := rune(c - '0')
			for k := 0; k < 2 && i < len(s) && '0' <= s[i] && s[i] <= '7'; k++ {
				r = r<<3 | rune(s[i]-'0')
				i++
			}
			if r > 0o377 {
				return "", p.fail("an octal escape past \\377")
			}
			out = appendEscaped(out, r, isBytes)
		case 'x':
			n = 2
		case 'u':
			n = 4
		case 'U':
			n = 8
		case 'N':
			if !isBytes {
				return "", p.fail("an escape by name")
			}
		}
		switch {
		case n == 2 || n > 0 && !isBytes:
			if len(s)-i < n {
				return "", p.fail("an escape with too few digits")
			}
			var r int64
			for ; n > 0; n-- {
				d := digit(s[i])
				if d > 15 {
					return "", p.fail("an escape with too few digits")
				}
				r = r<<4 | int64(d)
				i++
			}
			if r > maxCodePoint {
				return "", p.fail("an escape past U+10FFFF")
			}
			out = appendEscaped(out, rune(r), isBytes)
		case n > 0 || c == 'N' || !escapes(c): // no escape at all: the backslash stands for itself
			out = append(out, '\\', c)
		}
	}
	return string(out), true
}

func appendEscaped(out []byte, r rune, isBytes bool) []byte {
	if isBytes {
		return append(out, byte(r))
	}
	return appendCodePoint(out, r)
}

// escapes reports whether a backslash before c has a meaning, in bytes too.
func escapes(c byte) bool {
	return strings.IndexByte("\r\n\\'\"abfnrtvx01234567", c) >= 0
}
