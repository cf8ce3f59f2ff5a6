// Package pyvalue holds Python values made of builtin literal types, outside
// of Python: it reads them from literal text (Parse, ParseArgs) and from
// marshal data (DecodeMarshal), compares them as Python's == does (Equal) and
// writes them as marshal data, as repr text and as JSON. It is what lets the
// worker decide on an answer without the expected value ever being in the
// process that ran the submission.
//
// Two rules hold throughout. Text is read as CPython 3.11's ast.literal_eval
// reads it or refused: what is refused may still be a literal, and the caller
// then asks Python itself. And whatever comes from a submission is hostile:
// decoding, comparing and printing are bounded in depth, time and memory by
// what was received and by stated limits.
//
// What runs Python, and what a verdict is made of, lives elsewhere.
//
// A str is held as Python encodes it with "surrogatepass": UTF-8 in which lone
// surrogates are three-byte sequences (WTF-8, but with surrogate pairs left as
// two code points, which is what they are to Python).
package pyvalue

import (
	"errors"
	"math"
	"math/big"
	"unsafe"
)

// Kind is the Python type of a Value.
type Kind uint8

// The kinds of values. The numeric ones are adjacent: see Kind.number.
const (
	KindNone Kind = iota
	KindEllipsis
	KindBool
	KindInt
	KindFloat
	KindComplex
	KindStr
	KindBytes
	KindList
	KindTuple
	KindSet
	KindFrozenSet
	KindDict
)

var kindNames = [...]string{"NoneType", "ellipsis", "bool", "int", "float", "complex", "str", "bytes",
	"list", "tuple", "set", "frozenset", "dict"}

// String returns the name of the Python type.
func (k Kind) String() string { return kindNames[k] }

func (k Kind) number() bool { return k-KindBool <= KindComplex-KindBool }

func (k Kind) scalar() bool { return k <= KindBytes }

// Value is one Python value, immutable. The zero Value is None. Values are
// compared with Equal, never with Go's ==.
//
// A Value is 24 bytes, since the nodes of hostile data are many and comparing
// is mostly walking slices of them. What n and p hold depends on the kind:
//
//	bool, int   n is the value; an int that needs more than 64 bits has p, a *big.Int
//	float       n is the bits
//	complex     p is a *complex128
//	str, bytes  p is the data, n the length in bytes
//	list, tuple p is the first of n items
//	set, dict   p is a *table of n members or pairs
type Value struct {
	_    [0]func() // makes == a compile error
	kind Kind
	n    uint64
	p    unsafe.Pointer
}

// ErrUnhashable says that a list, a set or a dict was to be a member of a set
// or a key of a dict.
var ErrUnhashable = errors.New("unhashable member")

// None returns None.
func None() Value { return Value{} }

// Ellipsis returns Ellipsis, which is spelled `...`.
func Ellipsis() Value { return Value{kind: KindEllipsis} }

// Bool returns True or False.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, n: 1}
	}
	return Value{kind: KindBool}
}

// Int returns an int.
func Int(i int64) Value { return Value{kind: KindInt, n: uint64(i)} }

// BigInt returns an int of any size. It keeps b, which the caller must not
// change afterwards.
func BigInt(b *big.Int) Value {
	if b.IsInt64() {
		return Int(b.Int64())
	}
	return Value{kind: KindInt, p: unsafe.Pointer(b)}
}

// Float returns a float.
func Float(f float64) Value { return Value{kind: KindFloat, n: math.Float64bits(f)} }

// Complex returns a complex.
func Complex(c complex128) Value { return Value{kind: KindComplex, p: unsafe.Pointer(&c)} }

// Str returns a str; s is in the encoding the package comment tells of.
func Str(s string) Value {
	return Value{kind: KindStr, n: uint64(len(s)), p: unsafe.Pointer(unsafe.StringData(s))}
}

// Bytes returns a bytes object with the bytes of s.
func Bytes(s string) Value {
	return Value{kind: KindBytes, n: uint64(len(s)), p: unsafe.Pointer(unsafe.StringData(s))}
}

// List returns a list. It keeps items.
func List(items ...Value) Value { return sequence(KindList, items) }

// Tuple returns a tuple. It keeps items.
func Tuple(items ...Value) Value { return sequence(KindTuple, items) }

// Set returns a set without the members that equal an earlier one. It keeps
// members. The error is ErrUnhashable.
func Set(members ...Value) (Value, error) { return collection(KindSet, members) }

// FrozenSet is Set for a frozenset.
func FrozenSet(members ...Value) (Value, error) { return collection(KindFrozenSet, members) }

// Dict returns a dict of keys and values in turn. As in Python, of equal keys
// the first key and the last value stay. It keeps pairs, of which there must
// be an even number. The error is ErrUnhashable.
func Dict(pairs ...Value) (Value, error) { return collection(KindDict, pairs) }

func sequence(k Kind, items []Value) Value {
	return Value{kind: k, n: uint64(len(items)), p: unsafe.Pointer(unsafe.SliceData(items))}
}

func collection(k Kind, items []Value) (Value, error) {
	stride := 1
	if k == KindDict {
		stride = 2
	}
	t, ok := newTable(items, stride)
	if !ok {
		return Value{}, ErrUnhashable
	}
	return Value{kind: k, n: uint64(len(t.items) / stride), p: unsafe.Pointer(t)}, nil
}

// Kind returns the type of v.
func (v Value) Kind() Kind { return v.kind }

// Len returns what len() gives for a list, tuple, set, frozenset or dict, the
// number of bytes of a str or bytes, and 0 for the rest.
func (v Value) Len() int {
	if v.kind < KindStr {
		return 0
	}
	return int(v.n)
}

// Text returns the contents of a str or bytes, "" for the rest.
func (v Value) Text() string {
	if v.kind != KindStr && v.kind != KindBytes {
		return ""
	}
	return v.text()
}

// Items returns the members of a list, tuple, set or frozenset, the keys and
// values of a dict in turn, nil for the rest. They are not to be changed.
func (v Value) Items() []Value {
	switch v.kind {
	case KindList, KindTuple:
		return v.items()
	case KindSet, KindFrozenSet, KindDict:
		return v.table().items
	}
	return nil
}

// Int64 returns the value of an int or bool; ok is false for an int outside
// of int64 and for the rest.
func (v Value) Int64() (i int64, ok bool) {
	if v.kind != KindInt && v.kind != KindBool || v.p != nil {
		return 0, false
	}
	return int64(v.n), true
}

// String returns the repr of v, cut at 1,000 bytes: for logs and tests.
func (v Value) String() string {
	b, cut := AppendRepr(nil, v, 1000)
	if cut {
		b = append(b, "…"...)
	}
	return string(b)
}

func (v Value) text() string { return unsafe.String((*byte)(v.p), int(v.n)) }

func (v Value) items() []Value { return unsafe.Slice((*Value)(v.p), int(v.n)) }

func (v Value) table() *table { return (*table)(v.p) }

func (v Value) float() float64 { return math.Float64frombits(v.n) }

func (v Value) complex() complex128 { return *(*complex128)(v.p) }

// big returns the integer when it is outside of int64, else nil.
func (v Value) big() *big.Int { return (*big.Int)(v.p) }
