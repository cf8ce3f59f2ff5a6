package pyvalue

import (
	"encoding/json"
	"math"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendJSON(t *testing.T) {
	frozen, _ := FrozenSet(Int(3), Int(1))
	sets, _ := Set(Tuple(frozen, Int(2)), Tuple(Int(10)), Tuple(Int(9), Str("x")), frozen, Str("b"), Float(1.5), Int(2), Str("a"), None(),
		Bool(true), BigInt(new(big.Int).Lsh(big.NewInt(1), 70)), Float(1e20), Float(math.Inf(-1)), Bytes("z"))
	nans, _ := Dict(Float(math.NaN()), Int(1), Float(math.NaN()), Int(2), Str("x"), Int(3))
	for name, tt := range map[string]struct {
		v    Value
		want string
	}{
		"None":            {None(), `null`},
		"bools":           {must(t, "[True, False]"), `[true,false]`},
		"ints":            {must(t, "[1, -2, 123456789012345678901234567890]"), `[1,-2,123456789012345678901234567890]`},
		"floats":          {must(t, "[1.0, -0.0, 0.1, 1e16, 1e15, 1e-5, 0.0001, 5e-324]"), `[1.0,-0.0,0.1,1e+16,1000000000000000.0,1e-05,0.0001,5e-324]`},
		"no numbers":      {List(Float(math.NaN()), Float(math.Inf(1)), Float(math.Inf(-1))), `["nan","inf","-inf"]`},
		"complex":         {must(t, "1-2j"), `"(1-2j)"`},
		"ellipsis":        {Ellipsis(), `"Ellipsis"`},
		"strings":         {must(t, `['a"b\\c', 'é😀\x7f', '\n\r\t\b\f\0\x1f']`), `["a\"b\\c","é😀` + "\x7f" + `","\n\r\t\b\f\u0000\u001f"]`},
		"lone surrogate":  {must(t, `'a\ud800b\udfff'`), `"a\ud800b\udfff"`},
		"bytes as text":   {must(t, `b'a\n\xc3\xa9'`), `"a\né"`},
		"bytes":           {must(t, `b'a\xff"'`), `"b'a\\xff\"'"`},
		"nested":          {must(t, "[(1, [2]), {}, ()]"), `[[1,[2]],{},[]]`},
		"set of numbers":  {must(t, "{10, 9, 2.5, False, -1}"), `[-1,false,2.5,9,10]`},
		"set of strings":  {must(t, "{'b', 'B', 'a', 'é'}"), `["B","a","b","é"]`},
		"set of anything": {sets, `["-inf",true,1.5,2,1e+20,1180591620717411303424,"a","b",null,"z",[9,"x"],[10],[[1,3],2],[1,3]]`},
		"empty set":       {must(t, "set()"), `[]`},
		"dict":            {must(t, "{'b': 1, 'a': {'c': []}}"), `{"b":1,"a":{"c":[]}}`},
		"dict keys":       {must(t, "{1: 1, 2.0: 2, 1e400: 3, None: 4, False: 5, b'x': 6, (1, 'a'): 7, 1j: 8, ...: 9}"), `{"1":1,"2.0":2,"inf":3,"null":4,"false":5,"b'x'":6,"(1, 'a')":7,"1j":8,"Ellipsis":9}`},
		"dict collision":  {must(t, "{1: 'a', 'x': 'b', '1': 'c'}"), `{"1":"c","x":"b"}`},
		"dict nan keys":   {nans, `{"nan":2,"x":3}`},
		"most digits":     {must(t, "-"+strings.Repeat("7", 4300)), "-" + strings.Repeat("7", 4300)},
		"too many digits": {must(t, "-0x1"+strings.Repeat("0", 4000)), `"-` + new(big.Int).Lsh(big.NewInt(1), 16000).String() + `"`},
		"past decimal":    {BigInt(new(big.Int).Lsh(big.NewInt(-3), 1<<18)), `"-0x3` + strings.Repeat("0", 1<<16) + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, truncated := AppendJSON([]byte("x"), tt.v, 0)
			if string(got) != "x"+tt.want || truncated {
				t.Errorf("AppendJSON(%v) = %s, %v; want %s", tt.v, got[1:], truncated, tt.want)
			}
			if !json.Valid(got[1:]) {
				t.Errorf("AppendJSON(%v) = %s is no JSON", tt.v, got[1:])
			}
			if got, truncated := AppendJSON(nil, tt.v, len(tt.want)); string(got) != tt.want || truncated {
				t.Errorf("AppendJSON(%v) within its own length = %s, %v", tt.v, got, truncated)
			}
			if got, truncated := AppendJSON(nil, tt.v, len(tt.want)-1); len(tt.want) > 1 && (!truncated || !json.Valid(got)) {
				t.Errorf("AppendJSON(%v) within less = %s, %v", tt.v, got, truncated)
			}
		})
	}
}

func TestAppendJSONTruncates(t *testing.T) {
	const limit = 50
	long := strings.Repeat("é\"", 1000)
	items := make([]Value, 10_000)
	pairs := make([]Value, 20_000)
	for i := range items {
		items[i] = Tuple(Int(int64(i)), Str("é"))
		pairs[2*i], pairs[2*i+1] = items[i], Str(long)
	}
	set, _ := Set(append([]Value(nil), items...)...)
	frozen, _ := FrozenSet(set.Items()...)
	dict, _ := Dict(append([]Value(nil), pairs...)...)
	keys, _ := Dict(Str(long), Int(1), Tuple(Str(long)), Int(2), Int(1), Int(3))
	for name, v := range map[string]Value{
		"str": Str(long), "bytes": Bytes(long), "odd bytes": Bytes(long + "\xff"), "list": List(items...), "tuple": Tuple(items...),
		"set": set, "set in sets": List(frozen, set), "dict": dict, "dict with long keys": keys,
		"int": BigInt(new(big.Int).Lsh(big.NewInt(1), 5000)), "surrogates": Str(strings.Repeat("\xed\xa0\x80", 100)),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, truncated := AppendJSON([]byte("x"), v, limit)
			runtime.ReadMemStats(&after)
			var text string
			if err := json.Unmarshal(got[1:], &text); err != nil || !truncated {
				t.Fatalf("AppendJSON = %s, %v: %v", got, truncated, err)
			}
			head, ok := strings.CutSuffix(text, "… (truncated)")
			full, _ := AppendRepr(nil, v, 0)
			if !ok || !strings.HasPrefix(string(full), head) || len(head) > limit || len(head) < limit-utf8.UTFMax {
				t.Errorf("AppendJSON = %q, which is not how the repr begins", text)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 100_000 {
				t.Errorf("%d bytes were allocated for a limit of %d", used, limit)
			}
		})
	}
}

func TestAppendRepr(t *testing.T) {
	huge := BigInt(new(big.Int).Lsh(big.NewInt(1), 1<<18))
	empty, _ := FrozenSet()
	for name, tt := range map[string]struct {
		v    Value
		max  int
		want string
		cut  bool
	}{
		"whole":               {must(t, "[1, 'a']"), 8, "[1, 'a']", false},
		"cut":                 {must(t, "[1, 'a']"), 7, "[1, 'a'", true},
		"cut to one":          {must(t, "[1, 'a']"), 1, "[", true},
		"cut in a character":  {must(t, "'éé'"), 4, "'é", true},
		"cut at a character":  {must(t, "'éé'"), 3, "'é", true},
		"empty frozenset":     {empty, 0, "frozenset()", false},
		"quotes":              {must(t, `['\'', '"', '\'"', b'\'', b'"', b'\'"']`), 0, `["'", '"', '\'"', b"'", b'"', b'\'"']`, false},
		"unprintable":         {must(t, `'\x7f\x80\xa0\xad\u2028\ue000\U000e0001\U0010ffff'`), 0, `'\x7f\x80\xa0\xad\u2028\ue000\U000e0001\U0010ffff'`, false},
		"printable":           {must(t, `'¡ÿĀ日😀'`), 0, `'¡ÿĀ日😀'`, false},
		"complex":             {List(Complex(complex(math.NaN(), math.NaN())), Complex(complex(0, math.Inf(-1))), Complex(complex(math.Copysign(0, -1), 1e16)), Complex(complex(1, math.Copysign(math.NaN(), -1)))), 0, "[(nan+nanj), -infj, (-0+1e+16j), (1+nanj)]", false},
		"negative nan":        {Float(math.Copysign(math.NaN(), -1)), 0, "nan", false},
		"int past decimal":    {huge, 0, "0x1" + strings.Repeat("0", 1<<16), false},
		"int past, cut":       {huge, 6, "0x1000", true},
		"string of a newline": {must(t, `"'\n'"`), 0, `"'\n'"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, cut := AppendRepr([]byte("x"), tt.v, tt.max)
			if string(got) != "x"+tt.want || cut != tt.cut {
				t.Errorf("AppendRepr = %.200s, %v; want %.200s, %v", got[1:], cut, tt.want, tt.cut)
			}
		})
	}
	if s := Str(strings.Repeat("a", 2000)).String(); len(s) != 1000+len("…") {
		t.Errorf("String gives %d bytes", len(s))
	}
}
