package pyvalue

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
)

const (
	// maxDecimal is how many digits CPython reads in a decimal int.
	maxDecimal = 4300
	// maxRadix and maxFloat bound spellings that CPython has no limit for, in
	// characters.
	maxRadix = 10_000
	maxFloat = 1000
)

// number reads an int, a float or an imaginary number.
func (p *parser) number() (v Value, ok bool) {
	start := p.pos
	// Nearly every number is a short int.
	n, i := int64(0), start
	for i < len(p.text) && i < start+18 && p.text[i]-'0' <= 9 {
		n = n*10 + int64(p.text[i]-'0')
		i++
	}
	if c := p.peek(i); i > start && c != '.' && !isWord(c) && (p.text[start] != '0' || n == 0) {
		p.pos = i
		return Int(n), true
	}
	if p.text[start] == '0' {
		switch p.peek(start + 1) {
		case 'x', 'X':
			return p.radix(16)
		case 'o', 'O':
			return p.radix(8)
		case 'b', 'B':
			return p.radix(2)
		}
	}
	i, ok = p.digits(start, 10)
	float := false
	if c := p.peek(i); ok && c == '.' {
		float = true
		point := i
		if i, ok = p.digits(i+1, 10); i == point+1 && point == start {
			return v, p.fail("not a literal")
		}
	}
	if c := p.peek(i); ok && (c == 'e' || c == 'E') {
		float = true
		i++
		if c := p.peek(i); c == '+' || c == '-' {
			i++
		}
		exponent := i
		if i, ok = p.digits(i, 10); i == exponent {
			return v, p.fail("a number without its exponent")
		}
	}
	text := p.text[start:i]
	imaginary := p.peek(i) == 'j' || p.peek(i) == 'J'
	if imaginary {
		i++
	}
	if !ok || isWord(p.peek(i)) {
		return v, p.fail("not a number")
	}
	if !float && !imaginary {
		v, ok = decimal(text)
		if !ok {
			return v, p.fail("an int with leading zeros, or past 4300 digits")
		}
		p.pos = i
		return v, true
	}
	if len(text) > maxFloat {
		return v, p.fail("a float of more than 1000 characters")
	}
	if strings.IndexByte(text, '_') >= 0 {
		text = strings.ReplaceAll(text, "_", "")
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range it is inf, as in Python
		return v, p.fail("not a number")
	}
	p.pos = i
	if imaginary {
		return Complex(complex(0, f)), true
	}
	return Float(f), true
}

// digits skips digits, with single underscores between them, and returns where
// they end. ok is false after a misplaced underscore.
func (p *parser) digits(i, base int) (end int, ok bool) {
	first := i
	for ; i < len(p.text); i++ {
		c := p.text[i]
		if c == '_' && i > first && p.text[i-1] != '_' && digit(p.peek(i+1)) < base {
			continue
		}
		if digit(c) >= base {
			return i, c != '_'
		}
	}
	return i, true
}

// digit returns the value of a hexadecimal digit, 99 for another character.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return 99
}

// decimal returns the int that text spells with digits and underscores.
func decimal(text string) (v Value, ok bool) {
	if strings.IndexByte(text, '_') >= 0 {
		text = strings.ReplaceAll(text, "_", "")
	}
	if len(text) > maxDecimal || text[0] == '0' && strings.Trim(text, "0") != "" {
		return v, false
	}
	b, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return v, false
	}
	return BigInt(b), true
}

// radix reads an int with a prefix of two characters.
func (p *parser) radix(base int) (v Value, ok bool) {
	start := p.pos + 2
	if p.peek(start) == '_' {
		start++
	}
	i, ok := p.digits(start, base)
	if !ok || i == start || isWord(p.peek(i)) {
		return v, p.fail("not a number")
	}
	if i-start > maxRadix {
		return v, p.fail("an int of more than 10000 characters")
	}
	b, ok := new(big.Int).SetString(strings.ReplaceAll(p.text[start:i], "_", ""), base)
	if !ok {
		return v, p.fail("not a number")
	}
	p.pos = i
	return BigInt(b), true
}

// negate returns -v for an int, float or complex.
func negate(v Value) Value {
	switch v.kind {
	case KindFloat:
		return Float(-v.float())
	case KindComplex:
		c := v.complex()
		return Complex(complex(-real(c), -imag(c)))
	}
	if v.p == nil && int64(v.n) != math.MinInt64 {
		return Int(-int64(v.n))
	}
	b := v.big()
	if b == nil {
		b = big.NewInt(int64(v.n))
	}
	return BigInt(new(big.Int).Neg(b))
}

// addImaginary returns v + w or v - w, by op, for an int or float v and a w
// without a real part. As CPython up to 3.13 does, it adds and subtracts both
// parts, which only shows in the sign of zeros. ok is false if v is an int too
// large for a float.
func addImaginary(v Value, op byte, w Value) (sum Value, ok bool) {
	var f float64
	switch {
	case v.kind == KindFloat:
		f = v.float()
	case v.p != nil:
		if f, _ = v.big().Float64(); math.IsInf(f, 0) {
			return v, false
		}
	default:
		f = float64(int64(v.n))
	}
	c := w.complex()
	if op == '+' {
		return Complex(complex(f+0, 0+imag(c))), true
	}
	return Complex(complex(f-0, 0-imag(c))), true
}
