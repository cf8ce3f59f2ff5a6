package pyvalue

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDecimalBits is the size up to which an int is spelled in decimal, about
// 79,000 digits: past it that takes too long, and hexadecimal is used.
const maxDecimalBits = 1 << 18

// AppendRepr appends what Python's repr(v) gives. If that is longer than max
// bytes, it appends only about the first max of them, never more, and cut is
// true; it doesn't build the rest. 0 means no bound.
//
// Sets and dicts are in the order of their members. Ints past 4,300 digits,
// for which Python gives no repr, are spelled in decimal too, those of more
// than 2^18 bits in hexadecimal. Which characters are printable depends on the
// version of Unicode: Go's decides.
func AppendRepr(dst []byte, v Value, max int) (out []byte, cut bool) {
	w := newWriter(dst, max)
	if w.repr(v); !w.over() {
		return w.dst, false
	}
	// Cut at the end of a character; the text is what repr made, all valid.
	end := w.start + w.max
	for end > w.start && !utf8.RuneStart(w.dst[end]) {
		end--
	}
	return w.dst[:end], true
}

// writer appends text until that is past max bytes, and little more.
type writer struct {
	dst   []byte
	start int
	max   int
}

func newWriter(dst []byte, max int) writer {
	if max <= 0 {
		max = math.MaxInt / 2
	}
	return writer{dst: dst, start: len(dst), max: max}
}

func (w *writer) over() bool { return w.room() < 0 }

// room returns how many bytes may still be appended.
func (w *writer) room() int { return w.max - (len(w.dst) - w.start) }

// str appends s, or as much of it as makes w over.
func (w *writer) str(s string) {
	w.dst = append(w.dst, s[:min(len(s), max(w.room()+1, 0))]...)
}

func (w *writer) repr(v Value) {
	if w.over() {
		return
	}
	switch v.kind {
	case KindNone:
		w.str("None")
	case KindEllipsis:
		w.str("Ellipsis")
	case KindBool:
		if v.n == 0 {
			w.str("False")
		} else {
			w.str("True")
		}
	case KindInt:
		w.int(v)
	case KindFloat:
		w.float(v.float())
	case KindComplex:
		w.complex(v.complex())
	case KindStr:
		w.reprStr(v.text())
	case KindBytes:
		w.reprBytes(v.text())
	case KindList:
		w.reprItems("[", v.items(), "]")
	case KindTuple:
		if v.n == 1 {
			w.reprItems("(", v.items(), ",)")
		} else {
			w.reprItems("(", v.items(), ")")
		}
	case KindSet:
		if v.n == 0 {
			w.str("set()")
		} else {
			w.reprItems("{", v.table().items, "}")
		}
	case KindFrozenSet:
		if v.n == 0 {
			w.str("frozenset()")
		} else {
			w.reprItems("frozenset({", v.table().items, "})")
		}
	case KindDict:
		w.str("{")
		items := v.table().items
		for i := 0; i < len(items) && !w.over(); i += 2 {
			if i > 0 {
				w.str(", ")
			}
			w.repr(items[i])
			w.str(": ")
			w.repr(items[i+1])
		}
		w.str("}")
	}
}

func (w *writer) reprItems(open string, items []Value, end string) {
	w.str(open)
	for i, x := range items {
		if i > 0 {
			w.str(", ")
		}
		if w.repr(x); w.over() {
			return
		}
	}
	w.str(end)
}

func (w *writer) int(v Value) {
	b := v.big()
	if b == nil {
		w.dst = strconv.AppendInt(w.dst, int64(v.n), 10)
		return
	}
	if b.BitLen() <= maxDecimalBits {
		w.dst = b.Append(w.dst, 10)
		return
	}
	if b.Sign() < 0 {
		w.str("-")
	}
	w.str("0x")
	at := len(w.dst)
	w.dst = b.Append(w.dst, 16)
	if w.dst[at] == '-' {
		w.dst = append(w.dst[:at], w.dst[at+1:]...)
	}
}

// float appends a float as repr does: the fewest digits that tell it from its
// neighbours, with an exponent below 1e-4 and from 1e16 on.
func (w *writer) float(f float64) {
	at := len(w.dst)
	w.plainFloat(f)
	if f == math.Trunc(f) && !math.IsInf(f, 0) && bytes.IndexByte(w.dst[at:], 'e') < 0 {
		w.str(".0")
	}
}

// plainFloat is float without the ".0" that marks integral floats.
func (w *writer) plainFloat(f float64) {
	switch a := math.Abs(f); {
	case f != f:
		w.str("nan")
	case math.IsInf(f, 1):
		w.str("inf")
	case math.IsInf(f, -1):
		w.str("-inf")
	case a != 0 && (a < 1e-4 || a >= 1e16):
		w.dst = strconv.AppendFloat(w.dst, f, 'e', -1, 64)
	default:
		w.dst = strconv.AppendFloat(w.dst, f, 'f', -1, 64)
	}
}

func (w *writer) complex(c complex128) {
	re, im := real(c), imag(c)
	if re == 0 && !math.Signbit(re) {
		w.plainFloat(im)
		w.str("j")
		return
	}
	w.str("(")
	w.plainFloat(re)
	if im != im || !math.Signbit(im) {
		w.str("+")
	}
	w.plainFloat(im)
	w.str("j)")
}

// quote returns the quote that repr puts around s.
func quote(s string) byte {
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		return '"'
	}
	return '\''
}

const hexDigits = "0123456789abcdef"

func (w *writer) reprStr(s string) {
	q := quote(s)
	w.dst = append(w.dst, q)
	for len(s) > 0 && !w.over() {
		r, n := decodeCodePoint(s)
		switch {
		case r < 0x80:
			w.reprASCII(byte(r), q)
		case unicode.IsPrint(r):
			w.str(s[:n])
		case r <= 0xff:
			w.dst = append(w.dst, '\\', 'x')
			w.hex(r, 2)
		case r <= 0xffff:
			w.dst = append(w.dst, '\\', 'u')
			w.hex(r, 4)
		default:
			w.dst = append(w.dst, '\\', 'U')
			w.hex(r, 8)
		}
		s = s[n:]
	}
	w.dst = append(w.dst, q)
}

func (w *writer) reprBytes(s string) {
	q := quote(s)
	w.dst = append(w.dst, 'b', q)
	for i := 0; i < len(s) && !w.over(); i++ {
		w.reprASCII(s[i], q)
	}
	w.dst = append(w.dst, q)
}

// reprASCII appends a character below 0x80, or any byte of a bytes object.
func (w *writer) reprASCII(c, q byte) {
	switch {
	case c == q || c == '\\':
		w.dst = append(w.dst, '\\', c)
	case c == '\n':
		w.str(`\n`)
	case c == '\r':
		w.str(`\r`)
	case c == '\t':
		w.str(`\t`)
	case c < 0x20 || c >= 0x7f:
		w.dst = append(w.dst, '\\', 'x')
		w.hex(rune(c), 2)
	default:
		w.dst = append(w.dst, c)
	}
}

func (w *writer) hex(r rune, digits int) {
	for digits--; digits >= 0; digits-- {
		w.dst = append(w.dst, hexDigits[r>>(4*digits)&15])
	}
}
