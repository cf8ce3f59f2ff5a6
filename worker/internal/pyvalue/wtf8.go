package pyvalue

import "unicode/utf8"

const (
	surrogateMin = 0xd800
	surrogateMax = 0xdfff
	maxCodePoint = 0x10ffff
)

// appendCodePoint appends r, which may be a surrogate.
func appendCodePoint(dst []byte, r rune) []byte {
	if surrogateMin <= r && r <= surrogateMax {
		return append(dst, 0xed, 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
	}
	return utf8.AppendRune(dst, r)
}

// decodeCodePoint returns the first code point of s, which may be a surrogate,
// and its size in bytes. For what is no encoding it returns -1 and 1; s must
// not be empty.
func decodeCodePoint(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r != utf8.RuneError || n != 1 {
		return r, n
	}
	if len(s) >= 3 && s[0] == 0xed && s[1]&0xe0 == 0xa0 && s[2]&0xc0 == 0x80 {
		return 0xd000 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), 3
	}
	return -1, 1
}

// validText reports whether s is UTF-8 in which surrogates may be encoded.
func validText(s string) bool {
	if utf8.ValidString(s) {
		return true
	}
	for len(s) > 0 {
		r, n := decodeCodePoint(s)
		if r < 0 {
			return false
		}
		s = s[n:]
	}
	return true
}
