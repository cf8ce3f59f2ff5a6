package pyvalue

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"one":                       {"a=1", "{'a': 1}"},
		"several":                   {"a=1, b = 'x' ,c=[1, 2]", "{'a': 1, 'b': 'x', 'c': [1, 2]}"},
		"without blanks":            {"a=1,b=2", "{'a': 1, 'b': 2}"},
		"on lines":                  {"\n a = 1,\n b =\n 2\n", "{'a': 1, 'b': 2}"},
		"line end before a comma":   {"a=1\n, b=2", "{'a': 1, 'b': 2}"},
		"value on lines":            {"grid=[\n [1, 2], # x=1\n [3, 4]\n], k=2", "{'grid': [[1, 2], [3, 4]], 'k': 2}"},
		"assignment in a string":    {"s='x, n=3', n=2", "{'s': 'x, n=3', 'n': 2}"},
		"equals in a string":        {"s='a==b'", "{'s': 'a==b'}"},
		"assignment in a list":      {`ops=["a=1", "b=2"], k=1`, "{'ops': ['a=1', 'b=2'], 'k': 1}"},
		"brackets in a string":      {"s='([{', t=']'", "{'s': '([{', 't': ']'}"},
		"quotes in a string":        {`s='it\'s, a=1', t="'", n=1`, `{'s': "it's, a=1", 't': "'", 'n': 1}`},
		"dict":                      {"d={'a': [1, 2], 'b': (3,)}, n=1", "{'d': {'a': [1, 2], 'b': (3,)}, 'n': 1}"},
		"adjacent strings":          {"s='a' 'b', n=1", "{'s': 'ab', 'n': 1}"},
		"signs and complex":         {"x=-1.5, y=+2, z=1-2j", "{'x': -1.5, 'y': 2, 'z': (1-2j)}"},
		"a name twice":              {"a=1, b=2, a=3", "{'a': 3, 'b': 2}"},
		"names":                     {"_=1, match=2, A1_b=3, nonesuch=4", "{'_': 1, 'match': 2, 'A1_b': 3, 'nonesuch': 4}"},
		"empty":                     {"", "()"},
		"blank":                     {" \n\t", "()"},
		"positional list":           {"[1, 2, 3]", "([1, 2, 3],)"},
		"positional on lines":       {"\n  [1,\n 2]\n  ", "([1, 2],)"},
		"positional tuple":          {"1, 2", "((1, 2),)"},
		"positional string":         {"'a'", "('a',)"},
		"positional with equals":    {"'a=1'", "('a=1',)"},
		"positional with equals 2":  {"'a=1, b'", "('a=1, b',)"},
		"positional list of equals": {`["a==b", "b!=a", "x = 5"]`, "(['a==b', 'b!=a', 'x = 5'],)"},
		"positional commented":      {"[1, # a=2\n 2]", "([1, 2],)"},
	} {
		t.Run(name, func(t *testing.T) {
			args, ok := ParseArgs(tt.text)
			if !ok {
				t.Fatalf("ParseArgs(%q) refuses it", tt.text)
			}
			v := decode(t, args.AppendMarshal(nil))
			if got, _ := AppendRepr(nil, v, 0); string(got) != tt.want {
				t.Errorf("ParseArgs(%q) = %s, want %s", tt.text, got, tt.want)
			}
			if len(args.Keywords)+len(args.Positional) != v.Len() {
				t.Errorf("ParseArgs(%q) = %+v", tt.text, args)
			}
		})
	}
}

func TestParseArgsLeavesToPython(t *testing.T) {
	for name, text := range map[string]string{
		"no literal":             "hello world",
		"value that is a name":   "x=abc",
		"value that is a sum":    "x=[1]*3",
		"value open":             "x=foo(",
		"value missing":          "a=, b=1",
		"two equals signs":       "a==1",
		"trailing comma":         "a=1,",
		"value with comma":       "a=1, 2, b=3",
		"mixed":                  "1, a=2",
		"keyword":                "for=1",
		"None as a name":         "None=1",
		"name beyond ASCII":      "é=1",
		"name with a digit":      "1a=1",
		"name with a dot":        "a.b=1",
		"no name":                "=1",
		"comment":                "a=1 # b=2",
		"comment on a literal":   "1 # a=2",
		"comment before":         "# a=1\n2",
		"strings on two lines":   "a='x'\n'y'",
		"semicolon":              "a=1; b=2",
		"value without a comma":  "a=1 b=2",
		"lone surrogate":         "a='\xed\xa0\x80', b=1",
		"NUL":                    "a=1\x00",
		"more than can be meant": strings.Repeat("a=1,", maxKeywords) + "b=2",
	} {
		t.Run(name, func(t *testing.T) {
			if args, ok := ParseArgs(text); ok {
				t.Errorf("ParseArgs(%q) = %+v, want it refused", text, args)
			}
		})
	}
}

func TestParseArgsMany(t *testing.T) {
	var parts []string
	for i := range maxKeywords {
		parts = append(parts, fmt.Sprintf("a%d=%d", i, i))
	}
	args, ok := ParseArgs(strings.Join(parts, ", "))
	if !ok || len(args.Keywords) != maxKeywords || !Equal(args.Keywords[maxKeywords-1].Value, Int(maxKeywords-1)) {
		t.Errorf("ok %v, %d keywords", ok, len(args.Keywords))
	}
}
