package pyvalue

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestDecoys(t *testing.T) {
	frozen, _ := FrozenSet(Int(1), Str("a"))
	for name, v := range map[string]Value{
		"None": None(), "True": Bool(true), "ellipsis": Ellipsis(), "int": Int(7), "zero": Int(0), "least": Int(math.MinInt64),
		"big": must(t, "100000000000000000000000"), "float": Float(1.5), "minus zero": must(t, "-0.0"), "inf": must(t, "1e400"),
		"nan": Float(math.NaN()), "large": Float(math.MaxFloat64), "complex": must(t, "1+2j"), "empty": Str(""), "str": Str("hello"),
		"surrogate": must(t, `'a\ud800é'`), "bytes": Bytes("ab"), "no bytes": Bytes(""), "empty list": List(), "list": must(t, "[1, 'a', [2]]"),
		"tuple": must(t, "(1, 2)"), "set": must(t, "{1, 2}"), "empty set": must(t, "set()"), "frozenset": frozen,
		"set of None": must(t, "{None}"), "dict": must(t, "{'a': 1, 'b': [2]}"), "empty dict": must(t, "{}"), "dict of None": must(t, "{None: None}"),
		"list of nan": List(Float(math.NaN())),
	} {
		t.Run(name, func(t *testing.T) {
			const n = 12
			before := v.String()
			decoys := Decoys(v, n, rand.New(rand.NewPCG(1, 2)))
			if len(decoys) != n {
				t.Fatalf("%d decoys, want %d", len(decoys), n)
			}
			same := 0
			for i, d := range decoys {
				if Equal(d, v) {
					t.Errorf("decoy %v equals %v", d, v)
				}
				for _, e := range decoys[:i] {
					if Equal(d, e) {
						t.Errorf("decoys %v and %v are equal", d, e)
					}
				}
				if d.kind == v.kind {
					same++
				}
				// What is sent to a child must be a value that marshal can carry.
				if got := decode(t, AppendMarshal(nil, d)); !identical(got, d) {
					t.Errorf("decoy %v comes back as %v", d, got)
				}
			}
			if same < n/2 && v.kind != KindNone && v.kind != KindEllipsis && v.kind != KindBool {
				t.Errorf("of %v only %d are a %v", decoys, same, v.kind)
			}
			if v.String() != before {
				t.Errorf("%s was changed to %v", before, v)
			}
			again := Decoys(v, n, rand.New(rand.NewPCG(1, 2)))
			for i := range again {
				if !identical(again[i], decoys[i]) {
					t.Errorf("the same source gives %v, then %v", decoys[i], again[i])
				}
			}
		})
	}
	if got := Decoys(Int(1), 0, rand.New(rand.NewPCG(1, 2))); len(got) != 0 {
		t.Errorf("no decoys wanted, %v made", got)
	}
}

// Whoever looks at a line-up from all sides finds v no more often than by chance.
func TestLineUpDoesNotTell(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n, rounds = 15, 2000
	distance := func(a, b Value) (d int64) {
		for i, x := range a.Items() {
			y, _ := b.Items()[i].Int64()
			z, _ := x.Int64()
			d += max(y-z, z-y)
		}
		return d
	}
	central := 0
	for range rounds {
		v := List(Int(r.Int64N(100)), Int(r.Int64N(100)), Int(r.Int64N(100)), Int(r.Int64N(100)))
		line := append(Decoys(v, n, r), v)
		best, least := 0, int64(math.MaxInt64)
		for i, a := range line {
			sum := int64(0)
			for _, b := range line {
				sum += distance(a, b)
			}
			if sum < least {
				best, least = i, sum
			}
		}
		if best == n {
			central++
		}
	}
	if share := float64(central) / rounds; share > 1.6/(n+1) {
		t.Errorf("the most central member is the right one %.3f of the time, chance is %.3f", share, 1.0/(n+1))
	}
}
