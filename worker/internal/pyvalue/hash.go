package pyvalue

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
)

// Hashes are seeded for the process, so that no submission can prepare members
// that collide.
var (
	seed   = maphash.MakeSeed()
	mixA   = maphash.String(seed, "a") | 1
	mixB   = maphash.String(seed, "b")
	hNone  = maphash.String(seed, "None")
	hDots  = maphash.String(seed, "Ellipsis")
	hTuple = maphash.String(seed, "tuple")
	hSet   = maphash.String(seed, "frozenset")
)

// mix combines two hashes, of which the second is seeded already.
func mix(h, x uint64) uint64 {
	hi, lo := bits.Mul64(h^mixB, x^mixA)
	return (hi ^ lo) + x
}

func hashWord(x uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], x)
	return maphash.Bytes(seed, b[:])
}

// hash returns a hash of v that is equal for values that are Equal. ok is
// false if v is unhashable: a list, set or dict, or a tuple with one in it.
//
// The members of a frozenset were hashed when it was made, so that every node
// of a value is hashed once for the set or dict it is in, however deep.
func hash(v Value) (h uint64, ok bool) {
	switch v.kind {
	case KindNone:
		return hNone, true
	case KindEllipsis:
		return hDots, true
	case KindBool, KindInt:
		if v.p != nil {
			return hashBig(v.big()), true
		}
		return hashWord(v.n), true
	case KindFloat:
		return hashFloat(v.float()), true
	case KindComplex:
		c := v.complex()
		h := hashFloat(real(c))
		if imag(c) != 0 {
			h = mix(h, hashFloat(imag(c)))
		}
		return h, true
	case KindStr:
		return maphash.String(seed, v.text()), true
	case KindBytes:
		return maphash.String(seed, v.text()) + mixA, true
	case KindTuple:
		h := hTuple
		for _, x := range v.items() {
			hx, ok := hash(x)
			if !ok {
				return 0, false
			}
			h = mix(h, hx)
		}
		return mix(h, uint64(v.n)), true
	case KindFrozenSet:
		t := v.table()
		h := hSet + v.n
		for i, x := range t.items {
			var hx uint64
			if t.hashes != nil {
				hx = t.hashes[i]
			} else {
				hx, _ = hash(x)
			}
			h += mix(hSet, hx)
		}
		return h, true
	}
	return 0, false
}

// hashFloat hashes an integral float as the int that it equals.
func hashFloat(f float64) uint64 {
	if i, ok := floatInt64(f); ok {
		return hashWord(uint64(i))
	}
	if f != f {
		return rand.Uint64() // equals nothing, so many must not share a hash
	}
	return hashWord(math.Float64bits(f)) + mixA
}

// hashBig hashes an int outside of int64, one that a float equals as that float.
func hashBig(b *big.Int) uint64 {
	if f, acc := b.Float64(); acc == big.Exact && !math.IsInf(f, 0) {
		return hashFloat(f)
	}
	h := hashWord(uint64(b.Sign()))
	for _, w := range b.Bits() {
		h = mix(h, hashWord(uint64(w)))
	}
	return h
}

// floatInt64 returns the int64 that f equals, if there is one.
func floatInt64(f float64) (int64, bool) {
	if f >= -0x1p63 && f < 0x1p63 {
		if i := int64(f); float64(i) == f {
			return i, true
		}
	}
	return 0, false
}
