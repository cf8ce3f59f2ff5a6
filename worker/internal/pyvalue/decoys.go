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
// expected value must not claim to equal others. None is only a reordering of v
// or only a rounding error away from it: what tolerates those is no impostor.
//
// The line-up must not tell which member is v. So it is a path: each value is
// the one before it with one number or character changed, by a change that is
// as likely the other way round, and v is at a random place of the path. Where
// that gives too few values (True has one neighbour) others follow, and who
// looks at them can tell.
func Decoys(v Value, n int, r *rand.Rand) []Value {
	found := make([]Value, 0, max(n, 0))
	add := func(x Value) bool {
		if Equal(x, v) {
			return false
		}
		for _, y := range found {
			if Equal(x, y) {
				return false
			}
		}
		found = append(found, x)
		return true
	}
	for _, steps := range [...]int{r.IntN(n + 1), n} { // to one side, then to the other
		at := v
		for tries := 0; len(found) < min(steps, n) && tries < 8*n; tries++ {
			if x := mutate(at, r); add(x) {
				at = x
			}
		}
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

// step is a change of a number, either way alike.
func step(r *rand.Rand) int64 {
	delta := 1 + r.Int64N(9)
	if r.IntN(2) == 0 {
		return -delta
	}
	return delta
}

func mutateInt(v Value, r *rand.Rand) Value {
	b := v.big()
	if b == nil {
		b = big.NewInt(int64(v.n))
	}
	return BigInt(new(big.Int).Add(b, big.NewInt(step(r))))
}

func mutateFloat(f float64, r *rand.Rand) float64 {
	g := f + float64(step(r))
	if f != f || g == f { // nan, infinite, or too large to feel it
		return []float64{-f, math.MaxFloat64 * r.Float64(), 0, r.Float64()}[r.IntN(4)]
	}
	return g
}

// mutateText changes a character into another of its kind; an empty text gets one.
func mutateText(s string, r *rand.Rand) string {
	if s == "" {
		return string(rune('a' + r.IntN(26)))
	}
	at := r.IntN(len(s))
	for at > 0 && !utf8.RuneStart(s[at]) {
		at--
	}
	c, n := decodeCodePoint(s[at:])
	first, count := 'a', 26
	switch {
	case '0' <= c && c <= '9':
		first, count = '0', 10
	case 'A' <= c && c <= 'Z':
		first = 'A'
	}
	return s[:at] + string(rune(int(first)+r.IntN(count))) + s[at+n:]
}

func mutateBytes(s string, r *rand.Rand) string {
	if s == "" {
		return string([]byte{byte(r.IntN(256))})
	}
	b := []byte(s)
	b[r.IntN(len(b))] += byte(1 + r.IntN(255))
	return string(b)
}

// mutateItems changes a member; what is empty gets one.
func mutateItems(items []Value, r *rand.Rand) []Value {
	if len(items) == 0 {
		return []Value{[]Value{None(), Int(r.Int64N(100)), Str("a"), Float(r.Float64())}[r.IntN(4)]}
	}
	changed := slices.Clone(items)
	at := r.IntN(len(items))
	changed[at] = mutate(items[at], r)
	return changed
}

// mutateDict changes a value or, seldom, a key.
func mutateDict(v Value, r *rand.Rand) Value {
	items := slices.Clone(v.table().items)
	if len(items) == 0 {
		items = []Value{Str("a"), Int(r.Int64N(100))}
	} else {
		at := r.IntN(len(items)) &^ 1
		if r.IntN(4) != 0 {
			at++
		}
		items[at] = mutate(items[at], r)
	}
	if w, err := collection(KindDict, items); err == nil {
		return w
	}
	return v
}
