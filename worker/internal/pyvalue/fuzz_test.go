package pyvalue

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// seeds are texts of every form, right and wrong.
var seeds = []string{
	"", "1", "-1.5e3", "0x1F", "007", "1_000", "1+2j", "--1", "1e400", "'a'", `"a\x41\u00e9"`, "r'\\d'", "b'\\xff'", "'a' 'b'", "'''a\nb'''",
	"[1, 2]", "(1,)", "1, 2", "{'a': [1]}", "{1, 1.0, True}", "{[1]}", "set()", "...", "None", "[1, # x\n 2]", "'\\ud800'", "((((1))))",
	"a=1, b='x, n=3'", "a = [1,\n 2],\nb={'k': 'v'}", "a==1", "a=1,", "for=1", "a=1 # b=2", "'a=1'", "x=abc", "\xed\xa0\x80",
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		if got := decode(t, AppendMarshal(nil, v)); !identical(got, v) {
			t.Fatalf("%v comes back as %v", v, got)
		}
		if !Equal(v, v) { // no literal spells a nan
			t.Fatalf("%v does not equal itself", v)
		}
		// The repr of a literal is one too, of the same value, save for inf,
		// which repr spells as a name, and for zeros in complex numbers.
		repr, _ := AppendRepr(nil, v, 0)
		if w, err := Parse(string(repr)); err == nil && !Equal(v, w) {
			t.Fatalf("%s is read as %v", repr, w)
		} else if err != nil && !strings.Contains(string(repr), "inf") && !strings.Contains(string(repr), "j") &&
			!strings.Contains(string(repr), "Ellipsis") && len(repr) < maxDecimal {
			t.Fatalf("%s is refused: %v", repr, err)
		}
		if js, _ := AppendJSON(nil, v, 1000); !json.Valid(js) {
			t.Fatalf("%s is no JSON", js)
		}
	})
}

func FuzzDecodeMarshal(f *testing.F) {
	for _, s := range seeds {
		if v, err := Parse(s); err == nil {
			f.Add(AppendMarshal(nil, v))
		}
	}
	f.Add([]byte("l\x02\x00\x00\x00\x01\x00\x00\x00"))
	f.Add([]byte(">\x02\x00\x00\x00>\x00\x00\x00\x00g\x00\x00\x00\x00\x00\x00\xf8\x7f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, rest, err := DecodeMarshal(data, Limits{Nodes: 10_000, Depth: 100})
		if err != nil {
			return
		}
		if len(rest) >= len(data) {
			t.Fatalf("%v out of nothing", v)
		}
		if got := decode(t, AppendMarshal(nil, v)); !identical(got, v) {
			t.Fatalf("%v comes back as %v", v, got)
		}
		Equal(v, v)
		for _, max := range []int{0, 100} {
			if js, _ := AppendJSON(nil, v, max); !json.Valid(js) {
				t.Fatalf("%s is no JSON", js)
			}
			if repr, cut := AppendRepr(nil, v, max); !utf8.Valid(repr) || cut && len(repr) > max {
				t.Fatalf("repr of %d bytes, cut %v: %q", len(repr), cut, repr)
			}
		}
	})
}

func FuzzParseArgs(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args, ok := ParseArgs(text)
		if !ok {
			return
		}
		if len(args.Keywords) > 0 && len(args.Positional) > 0 || len(args.Positional) > 1 {
			t.Fatalf("ParseArgs(%q) = %+v", text, args)
		}
		for _, kw := range args.Keywords {
			if !isName(kw.Name) || !strings.Contains(text, kw.Name) {
				t.Fatalf("ParseArgs(%q) names %q", text, kw.Name)
			}
		}
		if len(args.Positional) == 1 {
			if v, err := Parse(strings.Trim(text, " \t\n\v\f\r")); err != nil || !identical(v, args.Positional[0]) {
				t.Fatalf("ParseArgs(%q) = %+v, Parse gives %v, %v", text, args, v, err)
			}
		}
		decode(t, args.AppendMarshal(nil))
	})
}

func FuzzUnquoteJSON(f *testing.F) {
	for _, s := range append(seeds, "\\ud83d\\ude00", "\\ud800", "\\n\\/\\u0041") {
		f.Add([]byte(`"` + s + `"`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := UnquoteJSON(raw)
		valid := json.Valid(raw) && utf8.Valid(raw) && len(raw) > 0 && raw[0] == '"' && raw[len(raw)-1] == '"'
		if (err == nil) != valid {
			t.Fatalf("UnquoteJSON(%q) = %q, %v; valid JSON is %v", raw, got, err, valid)
		}
		if err != nil {
			return
		}
		if !validText(got) {
			t.Fatalf("UnquoteJSON(%q) = %q", raw, got)
		}
		var want string
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(got) && got != want {
			t.Fatalf("UnquoteJSON(%q) = %q, want %q", raw, got, want)
		}
		if again, err := UnquoteJSON(mustJSON(t, got)); err != nil || again != got {
			t.Fatalf("%q comes back as %q, %v", got, again, err)
		}
	})
}

func mustJSON(t *testing.T, s string) []byte {
	b, truncated := AppendJSON(nil, Str(s), 0)
	if truncated {
		t.Fatalf("%q is truncated", s)
	}
	return b
}
