package pyvalue

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"unicode/utf8"
)

// Decoys returns n values of the same shape as v that are not Equal to v nor
// to each other: for a line-up, in which an object that claims to equal the
// expected value must not claim to equal others. They are v with a number, a
// character, a member or the length changed somewhere; where there are too few
// such values (True has one) others follow. None is only a reordering of v or
// only a rounding error away from it: what tolerates those is no impostor.
func Decoys(v Value, n int, r *rand.Rand) []Value {
	found := make([]Value, 0, max(n, 0))
	add := func(x Value) {
		if Equal(x, v) {
			return
		}
		for _, y := range found {
			if Equal(x, y) {
				return
			}
		}
		found = append(found, x)
	}
	for tries := 0; len(found) < n && tries < 8*n; tries++ {
		add(mutate(v, r))
	}
	for i := r.Int64N(1 << 32); len(found) < n; i++ {
		add(Int(i))
	}
	return found
}

// mutate returns v with one thing changed, which may by chance be nothing.
func mutate(v Value, r *rand.Rand) Value {
	switch v.kind {
	case KindNone:
		return []Value{Bool(false), Int(r.Int64N(100)), Str(""), Str("None")}[r.IntN(4)]
	case KindEllipsis:
		return []Value{None(), Bool(true), Str("...")}[r.IntN(3)]
	case KindBool:
		return []Value{Bool(v.n == 0), Int(2 + r.Int64N(100)), None()}[r.IntN(3)]
	case KindInt:
		return mutateInt(v, r)
	case KindFloat:
		return Float(mutateFloat(v.float(), r))
	case KindComplex:
		c := v.complex()
		if r.IntN(2) == 0 {
			return Complex(complex(mutateFloat(real(c), r), imag(c)))
		}
		return Complex(complex(real(c), mutateFloat(imag(c), r)))
	case KindStr:
		return Str(mutateText(v.text(), r))
	case KindBytes:
		return Bytes(mutateBytes(v.text(), r))
	case KindList, KindTuple:
		return sequence(v.kind, mutateItems(v.items(), r))
	case KindSet, KindFrozenSet:
		if w, err := collection(v.kind, mutateItems(v.table().items, r)); err == nil {
			return w
		}
	case KindDict:
		return mutateDict(v, r)
	}
	return v
}

func mutateInt(v Value, r *rand.Rand) Value {
	delta := 1 + r.Int64N(9)
	if r.IntN(2) == 0 {
		delta = -delta
	}
	b := v.big()
	if b == nil {
		b = big.NewInt(int64(v.n))
	}
	switch r.IntN(4) {
	case 0:
		if b.Sign() != 0 {
			return BigInt(new(big.Int).Neg(b))
		}
	case 1:
		return BigInt(new(big.Int).Mul(b, big.NewInt(1+max(delta, -delta))))
	}
	return BigInt(new(big.Int).Add(b, big.NewInt(delta)))
}

func mutateFloat(f float64, r *rand.Rand) float64 {
	if math.IsInf(f, 0) || f != f {
		return []float64{-f, math.MaxFloat64, 0, r.Float64()}[r.IntN(4)]
	}
	switch r.IntN(4) {
	case 0:
		return -f
	case 1:
		return f * 2
	case 2:
		return f / float64(2+r.IntN(9))
	default:
		return f + float64(1+r.IntN(9))
	}
}

// mutateText changes, drops, doubles or adds a character.
func mutateText(s string, r *rand.Rand) string {
	at, n := 0, 0
	if s != "" {
		at = r.IntN(len(s))
		for at > 0 && !utf8.RuneStart(s[at]) {
			at--
		}
		_, n = decodeCodePoint(s[at:])
	}
	c := string(rune('a' + r.IntN(26)))
	switch r.IntN(4) {
	case 0:
		return s[:at] + c + s[at+n:]
	case 1:
		return s[:at] + s[at+n:]
	case 2:
		return s[:at+n] + s[at:]
	default:
		return s + c
	}
}

func mutateBytes(s string, r *rand.Rand) string {
	if s == "" || r.IntN(3) == 0 {
		return s + string([]byte{byte(r.IntN(256))})
	}
	b := []byte(s)
	b[r.IntN(len(b))] += byte(1 + r.IntN(255))
	return string(b[:len(b)-r.IntN(2)])
}

// mutateItems changes, drops, doubles or adds a member.
func mutateItems(items []Value, r *rand.Rand) []Value {
	if len(items) == 0 {
		return []Value{[]Value{None(), Int(r.Int64N(100)), Str("a"), Float(r.Float64())}[r.IntN(4)]}
	}
	at := r.IntN(len(items))
	switch r.IntN(6) {
	case 0:
		return slices.Concat(items[:at], items[at+1:])
	case 1:
		return slices.Insert(slices.Clone(items), at, items[at])
	case 2:
		return slices.Insert(slices.Clone(items), at, Int(r.Int64N(1000)))
	default:
		changed := slices.Clone(items)
		changed[at] = mutate(items[at], r)
		return changed
	}
}

// mutateDict changes a value or a key, or drops or adds a pair.
func mutateDict(v Value, r *rand.Rand) Value {
	items := slices.Clone(v.table().items)
	if len(items) == 0 {
		items = []Value{Str("a"), Int(r.Int64N(100))}
	} else {
		at := r.IntN(len(items)) &^ 1
		switch r.IntN(5) {
		case 0:
			items = slices.Delete(items, at, at+2)
		case 2:
			items = append(items, mutate(items[at], r), items[at+1])
		case 1:
			items[at] = mutate(items[at], r)
		default:
			items[at+1] = mutate(items[at+1], r)
		}
	}
	if w, err := collection(KindDict, items); err == nil {
		return w
	}
	return v
}
