package pyvalue

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
)

func TestEqual(t *testing.T) {
	nan := Float(math.NaN())
	frozen := func(members ...Value) Value {
		v, err := FrozenSet(members...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	parse := func(text string) Value { return must(t, text) }
	big53 := new(big.Int).Lsh(big.NewInt(1), 1100)
	for name, tt := range map[string]struct {
		a, b Value
		want bool
	}{
		"int and float":               {parse("1"), parse("1.0"), true},
		"int and True":                {parse("1"), parse("True"), true},
		"True and complex":            {parse("True"), parse("1+0j"), true},
		"float and complex":           {parse("1.5"), parse("1.5+0j"), true},
		"int and complex, imaginary":  {parse("1"), parse("1+1j"), false},
		"zeros":                       {parse("0.0"), parse("-0.0"), true},
		"2**53+1 and its float":       {parse("9007199254740993"), parse("9007199254740993.0"), false},
		"2**53 and its float":         {parse("9007199254740992"), parse("9007199254740992.0"), true},
		"2**53+1 and complex":         {parse("9007199254740993"), parse("9007199254740992+0j"), false},
		"2**63 and its float":         {parse("9223372036854775808"), parse("9223372036854775808.0"), true},
		"2**63-1 and float 2**63":     {parse("9223372036854775807"), parse("9223372036854775808.0"), false},
		"-2**63 and its float":        {parse("-9223372036854775808"), parse("-9223372036854775808.0"), true},
		"2**64+1 and float 2**64":     {parse("18446744073709551617"), parse("18446744073709551616.0"), false},
		"int past floats and inf":     {BigInt(big53), parse("1e400"), false},
		"big ints":                    {parse("100000000000000000000"), parse("0x56bc75e2d63100000"), true},
		"big ints that differ":        {parse("100000000000000000000"), parse("100000000000000000001"), false},
		"int and fraction":            {parse("1"), parse("1.5"), false},
		"nan":                         {nan, nan, false},
		"nan in a list":               {List(nan), List(nan), false},
		"nan in a set":                {frozen(nan), frozen(nan), false},
		"nan and int":                 {nan, Int(0), false},
		"str and bytes":               {parse("'a'"), parse("b'a'"), false},
		"str and int":                 {parse("'1'"), parse("1"), false},
		"surrogate pair and its sum":  {parse(`'\ud83d\ude00'`), parse(`'😀'`), false},
		"tuple and list":              {parse("(1, 2)"), parse("[1, 2]"), false},
		"lists":                       {parse("[1, [2.0]]"), parse("[True, [2]]"), true},
		"lists in another order":      {parse("[1, 2]"), parse("[2, 1]"), false},
		"lists of other lengths":      {parse("[1]"), parse("[1, 1]"), false},
		"set and frozenset":           {parse("{1, 2}"), frozen(Int(2), Float(1)), true},
		"sets with equal numbers":     {parse("{1, 0.0}"), parse("{False, 1+0j}"), true},
		"sets that differ":            {parse("{1, 2}"), parse("{1, 3}"), false},
		"set and dict":                {parse("{1}"), parse("{1: 1}"), false},
		"empty set and dict":          {parse("set()"), parse("{}"), false},
		"set and list":                {parse("{1}"), parse("[1]"), false},
		"dicts in another order":      {parse("{'a': 1, 'b': 2}"), parse("{'b': 2.0, 'a': True}"), true},
		"dicts with equal keys":       {parse("{1: 'a'}"), parse("{1.0: 'a'}"), true},
		"dicts with other values":     {parse("{1: 'a'}"), parse("{1: 'b'}"), false},
		"dicts with other keys":       {parse("{1: 'a', 2: 'a'}"), parse("{1: 'a', 3: 'a'}"), false},
		"nested sets":                 {frozen(frozen(Int(1)), frozen()), frozen(frozen(), frozen(Bool(true))), true},
		"tuple keys":                  {parse("{(1, 2): 3}"), parse("{(1.0, 2+0j): 3.0}"), true},
		"scalars and containers":      {parse("{1, (1,)}"), parse("{(1,), 1}"), true},
		"few scalars, one container":  {parse("{1, 2}"), parse("{1, (2,)}"), false},
		"None and False":              {None(), Bool(false), false},
		"None":                        {None(), None(), true},
		"ellipsis":                    {Ellipsis(), parse("..."), true},
		"ellipsis and None":           {Ellipsis(), None(), false},
		"many members, some replaced": {span(0, 20), span(1, 21), false},
	} {
		t.Run(name, func(t *testing.T) {
			if Equal(tt.a, tt.b) != tt.want || Equal(tt.b, tt.a) != tt.want {
				t.Errorf("Equal(%v, %v) is not %v in both directions", tt.a, tt.b, tt.want)
			}
		})
	}
}

// span returns the set of the ints from a up to b.
func span(a, b int64) Value {
	var members []Value
	for i := a; i < b; i++ {
		members = append(members, Int(i))
	}
	v, _ := Set(members...)
	return v
}

// TestEqualTakesLinearTime builds and compares what would take minutes if large
// or deep sets and dicts were compared member by member, and fails where members
// share a hash.
func TestEqualTakesLinearTime(t *testing.T) {
	const n = 100_000
	build := func(make func(i int64) Value) (set, dict Value) {
		var members, pairs []Value
		for i := range int64(n) {
			members = append(members, make(i))
			pairs = append(pairs, make(i), Int(i))
		}
		set, err := Set(members...)
		if err != nil {
			t.Fatal(err)
		}
		dict, err = Dict(pairs...)
		if err != nil {
			t.Fatal(err)
		}
		return set, dict
	}
	for name, tt := range map[string]struct {
		make func(i int64) Value
		want bool
	}{
		"ints":           {Int, true},
		"ints far apart": {func(i int64) Value { return Int(i << 32) }, true},
		"floats":         {func(i int64) Value { return Float(float64(i) / 8) }, true},
		"powers of two":  {func(i int64) Value { return BigInt(new(big.Int).Lsh(big.NewInt(i+1), 64)) }, true},
		"large neighbours": {func(i int64) Value {
			return BigInt(new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 90), big.NewInt(i)))
		}, true},
		"strings":         {func(i int64) Value { return Str(fmt.Sprint("key", i)) }, true},
		"tuples":          {func(i int64) Value { return Tuple(Int(i%500), Int(i/500)) }, true},
		"nan":             {func(int64) Value { return Float(math.NaN()) }, false},
		"nan in tuples":   {func(int64) Value { return Tuple(Int(1), Float(math.NaN())) }, false},
		"nan, imaginary":  {func(int64) Value { return Complex(complex(0, math.NaN())) }, false},
		"sets in a chain": {func(i int64) Value { v, _ := FrozenSet(Int(i), Int(-i-1)); return v }, true},
	} {
		t.Run(name, func(t *testing.T) {
			one, _ := hash(tt.make(1))
			if two, _ := hash(tt.make(2)); one == two {
				t.Fatal("members share a hash")
			}
			set, dict := build(tt.make)
			otherSet, otherDict := build(tt.make)
			if set.Len() != n || dict.Len() != n {
				t.Errorf("%d members and %d keys, want %d", set.Len(), dict.Len(), n)
			}
			hashes := slices.Clone(set.table().hashes)
			slices.Sort(hashes)
			if hashes = slices.Compact(hashes); len(hashes) != n {
				t.Errorf("%d members have %d hashes", n, len(hashes))
			}
			if Equal(set, otherSet) != tt.want || Equal(dict, otherDict) != tt.want {
				t.Errorf("equality is not %v", tt.want)
			}
		})
	}
	t.Run("sets in sets", func(t *testing.T) {
		var build func(depth, last int64) Value
		build = func(depth, last int64) Value {
			var members []Value
			for i := range int64(8) {
				if depth == 0 {
					members = append(members, Int(i), Int(100+last))
				} else {
					members = append(members, build(depth-1, last*8+i))
				}
			}
			v, err := FrozenSet(members...)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		a, b := build(5, 0), build(5, 0)
		if !Equal(a, b) || Equal(a, build(5, 1)) {
			t.Error("wrong answer")
		}
		if a.table().hashes == nil {
			t.Error("sets in a set have no hashes")
		}
	})
}

func TestConstructors(t *testing.T) {
	if _, err := Set(List()); err != ErrUnhashable {
		t.Errorf("a set of a list: %v", err)
	}
	if _, err := Dict(Tuple(List()), None()); err != ErrUnhashable {
		t.Errorf("a dict with a key that holds a list: %v", err)
	}
	if v := BigInt(big.NewInt(7)); v.p != nil || !Equal(v, Int(7)) {
		t.Errorf("BigInt(7) = %v", v)
	}
	if i, ok := BigInt(new(big.Int).Lsh(big.NewInt(1), 63)).Int64(); ok {
		t.Errorf("2**63 as an int64 is %d", i)
	}
	d, err := Dict(Str("a"), Int(1), Str("a"), Int(2))
	if err != nil || d.Len() != 1 || len(d.Items()) != 2 {
		t.Errorf("Dict = %v, %v", d, err)
	}
	var zero Value
	if zero.Kind() != KindNone || zero.Len() != 0 || zero.Text() != "" || zero.Items() != nil {
		t.Errorf("the zero Value is %v", zero)
	}
	if v := Str("é"); v.Len() != 2 || v.Text() != "é" || v.Kind().String() != "str" {
		t.Errorf("Str(é) is %v of %d bytes", v.Kind(), v.Len())
	}
}
