package pyvalue

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// AppendMarshal appends v as Python's marshal.dumps(v, 2) writes it, which
// marshal.loads of CPython 3.11 to 3.14 reads.
//
// Format: CPython, Python/marshal.c. Version 2 has neither references nor
// interning, so that a value has one spelling, sets and dicts in their order.
func AppendMarshal(dst []byte, v Value) []byte {
	switch v.kind {
	case KindNone:
		return append(dst, 'N')
	case KindEllipsis:
		return append(dst, '.')
	case KindBool:
		if v.n == 0 {
			return append(dst, 'F')
		}
		return append(dst, 'T')
	case KindInt:
		if b := v.big(); b != nil {
			return appendMarshalBig(dst, b)
		}
		return appendMarshalInt(dst, int64(v.n))
	case KindFloat:
		return binary.LittleEndian.AppendUint64(append(dst, 'g'), v.n)
	case KindComplex:
		c := v.complex()
		dst = binary.LittleEndian.AppendUint64(append(dst, 'y'), math.Float64bits(real(c)))
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(imag(c)))
	case KindStr:
		return appendMarshalText(dst, 'u', v.text())
	case KindBytes:
		return appendMarshalText(dst, 's', v.text())
	case KindDict:
		dst = append(dst, '{')
		for _, x := range v.table().items {
			dst = AppendMarshal(dst, x)
		}
		return append(dst, '0')
	}
	code := byte('[')
	switch v.kind {
	case KindTuple:
		code = '('
	case KindSet:
		code = '<'
	case KindFrozenSet:
		code = '>'
	}
	dst = binary.LittleEndian.AppendUint32(append(dst, code), uint32(v.n))
	for _, x := range v.Items() {
		dst = AppendMarshal(dst, x)
	}
	return dst
}

func appendMarshalText(dst []byte, code byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(append(dst, code), uint32(len(s))), s...)
}

func appendMarshalInt(dst []byte, i int64) []byte {
	if int64(int32(i)) == i {
		return binary.LittleEndian.AppendUint32(append(dst, 'i'), uint32(i))
	}
	u, neg := uint64(i), i < 0
	if neg {
		u = -u
	}
	dst, at := beginLong(dst)
	for ; u != 0; u >>= longShift {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(u&longMask))
	}
	return endLong(dst, at, neg)
}

// A long is a signed count of 15-bit digits, least significant first.
const (
	longShift = 15
	longMask  = 1<<longShift - 1
)

func beginLong(dst []byte) (out []byte, at int) {
	dst = append(dst, 'l', 0, 0, 0, 0)
	return dst, len(dst)
}

func endLong(dst []byte, at int, neg bool) []byte {
	n := int32(len(dst)-at) / 2
	if neg {
		n = -n
	}
	binary.LittleEndian.PutUint32(dst[at-4:], uint32(n))
	return dst
}

func appendMarshalBig(dst []byte, b *big.Int) []byte {
	dst, at := beginLong(dst)
	words := b.Bits()
	digits := (b.BitLen() + longShift - 1) / longShift
	for i := range digits {
		bit := i * longShift
		w, shift := bit/bits.UintSize, bit%bits.UintSize
		d := words[w] >> shift
		if shift > bits.UintSize-longShift && w+1 < len(words) {
			d |= words[w+1] << (bits.UintSize - shift)
		}
		dst = binary.LittleEndian.AppendUint16(dst, uint16(d&longMask))
	}
	return endLong(dst, at, b.Sign() < 0)
}

// longValue returns the int of n digits in data, of which the last is not 0.
func longValue(data []byte, n int, neg bool) Value {
	if n <= 4 {
		var i int64
		for k := n - 1; k >= 0; k-- {
			i = i<<longShift | int64(binary.LittleEndian.Uint16(data[2*k:]))
		}
		if neg {
			i = -i
		}
		return Int(i)
	}
	words := make([]big.Word, (n*longShift+bits.UintSize-1)/bits.UintSize)
	for i := range n {
		d := big.Word(binary.LittleEndian.Uint16(data[2*i:]))
		bit := i * longShift
		w, shift := bit/bits.UintSize, bit%bits.UintSize
		words[w] |= d << shift
		if shift > bits.UintSize-longShift && w+1 < len(words) {
			words[w+1] |= d >> (bits.UintSize - shift)
		}
	}
	b := new(big.Int).SetBits(words)
	if neg {
		b.Neg(b)
	}
	return BigInt(b)
}
