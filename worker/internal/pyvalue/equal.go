package pyvalue

import "math/big"

// Equal reports whether a == b in Python, for values of two processes: no
// object is identical to another, so a nan equals nothing, not even inside of
// containers. Numbers compare exactly across int, float, complex and bool;
// lists don't equal tuples; sets and frozensets compare by their members.
//
// It takes time linear in the size of the values.
func Equal(a, b Value) bool {
	switch a.kind {
	case KindNone, KindEllipsis:
		return a.kind == b.kind
	case KindBool, KindInt, KindFloat, KindComplex:
		return b.kind.number() && equalNumbers(a, b)
	case KindStr, KindBytes:
		return a.kind == b.kind && a.n == b.n && a.text() == b.text()
	case KindList, KindTuple:
		if a.kind != b.kind || a.n != b.n {
			return false
		}
		bs := b.items()
		for i, x := range a.items() {
			if !Equal(x, bs[i]) {
				return false
			}
		}
		return true
	case KindSet, KindFrozenSet:
		return (b.kind == KindSet || b.kind == KindFrozenSet) && a.n == b.n && a.table().covers(b.table(), 1)
	default: // KindDict
		return b.kind == KindDict && a.n == b.n && a.table().covers(b.table(), 2)
	}
}

func equalNumbers(a, b Value) bool {
	if a.kind > b.kind {
		a, b = b, a
	}
	switch b.kind {
	case KindBool:
		return a.n == b.n
	case KindInt: // and a bool or an int
		if a.p == nil || b.p == nil {
			return a.p == b.p && a.n == b.n
		}
		return a.big().Cmp(b.big()) == 0
	case KindFloat:
		return equalFloat(a, b.float())
	default: // KindComplex
		c := b.complex()
		if a.kind == KindComplex {
			return a.complex() == c
		}
		return imag(c) == 0 && equalFloat(a, real(c))
	}
}

// equalFloat compares a bool, an int or a float with f, exactly.
func equalFloat(a Value, f float64) bool {
	switch {
	case a.kind == KindFloat:
		return a.float() == f
	case a.p != nil:
		g, acc := a.big().Float64()
		return acc == big.Exact && g == f
	default:
		i, ok := floatInt64(f)
		return ok && i == int64(a.n)
	}
}
