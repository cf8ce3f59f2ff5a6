package pyvalue

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"unsafe"
)

// sortMembers returns the members of a set in an order that depends on the
// members alone, with the sets inside of them in order as well. Reading a set
// gives Python's order, which differs from run to run.
func sortMembers(items []Value) []Value {
	sorted := make([]Value, len(items))
	for i, x := range items {
		sorted[i] = sortWithin(x)
	}
	slices.SortStableFunc(sorted, compare)
	return sorted
}

// sortWithin returns v with the frozensets inside of it in order.
func sortWithin(v Value) Value {
	switch v.kind {
	case KindTuple:
		for i, x := range v.items() {
			if x.kind < KindList { // no sets in it
				continue
			}
			items := slices.Clone(v.items())
			for ; i < len(items); i++ {
				items[i] = sortWithin(items[i])
			}
			return sequence(KindTuple, items)
		}
	case KindFrozenSet: // only to be compared and written, so it needs no hashes
		return Value{kind: KindFrozenSet, n: v.n, p: unsafe.Pointer(&table{items: sortMembers(v.table().items)})}
	}
	return v
}

// compare orders members of sets: real numbers by value, then strings, then
// the rest by kind and content.
func compare(a, b Value) int {
	if c := cmp.Compare(class(a), class(b)); c != 0 {
		return c
	}
	switch a.kind {
	case KindBool, KindInt, KindFloat:
		return compareNumbers(a, b)
	case KindComplex:
		x, y := a.complex(), b.complex()
		return cmp.Or(cmp.Compare(real(x), real(y)), cmp.Compare(imag(x), imag(y)))
	case KindStr, KindBytes:
		return strings.Compare(a.text(), b.text())
	case KindTuple, KindFrozenSet:
		return slices.CompareFunc(a.Items(), b.Items(), compare)
	}
	return 0
}

func class(v Value) int {
	switch v.kind {
	case KindBool, KindInt, KindFloat:
		return 0
	case KindStr:
		return 1
	}
	return 2 + int(v.kind)
}

// compareNumbers compares bools, ints and floats exactly; nan is the least.
func compareNumbers(a, b Value) int {
	if a.kind == KindFloat && b.kind == KindFloat {
		return cmp.Compare(a.float(), b.float())
	}
	if a.kind != KindFloat && b.kind != KindFloat && a.p == nil && b.p == nil {
		return cmp.Compare(int64(a.n), int64(b.n))
	}
	if a.kind == KindFloat && a.float() != a.float() {
		return -1
	}
	if b.kind == KindFloat && b.float() != b.float() {
		return 1
	}
	return exact(a).Cmp(exact(b))
}

// exact returns a bool, an int or a float but nan.
func exact(v Value) *big.Float {
	switch {
	case v.kind == KindFloat:
		return new(big.Float).SetFloat64(v.float())
	case v.p != nil:
		return new(big.Float).SetInt(v.big())
	default:
		return new(big.Float).SetInt64(int64(v.n))
	}
}
