package pyvalue

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// must parses a text that the tests know to be a literal.
func must(t testing.TB, text string) Value {
	t.Helper()
	v, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return v
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"int":                     {"42", "42"},
		"int with underscores":    {"1_000_000", "1000000"},
		"int of zeros":            {"0_00", "0"},
		"hexadecimal":             {"0X_fF", "255"},
		"octal":                   {"0o17", "15"},
		"binary":                  {"0b_101", "5"},
		"least int64":             {"-9223372036854775808", "-9223372036854775808"},
		"past int64":              {"9223372036854775808", "9223372036854775808"},
		"18 digits":               {"999999999999999999", "999999999999999999"},
		"negative":                {"- 1", "-1"},
		"positive":                {"+1", "1"},
		"minus zero":              {"-0", "0"},
		"float":                   {"1.50", "1.5"},
		"float without fraction":  {"5.", "5.0"},
		"float without integer":   {".5", "0.5"},
		"float with exponent":     {"1_0E-1_0", "1e-09"},
		"float with zeros":        {"007.5", "7.5"},
		"float minus zero":        {"-0.0", "-0.0"},
		"float past the range":    {"-1e400", "-inf"},
		"float below the range":   {"1e-400", "0.0"},
		"imaginary":               {"09j", "9j"},
		"complex":                 {"1+2J", "(1+2j)"},
		"complex negative":        {"-1.5 - .5j", "(-1.5-0.5j)"},
		"complex in parentheses":  {"((-(1))+(2j))", "(-1+2j)"},
		"negative imaginary":      {"-1j", "(-0-1j)"},
		"None True False":         {"[None, True, False]", "[None, True, False]"},
		"ellipsis":                {"...", "Ellipsis"},
		"empty string":            {"''", "''"},
		"string":                  {`"it's"`, `"it's"`},
		"string escapes":          {`'\a\b\f\n\r\t\v\\\'\"'`, `'\x07\x08\x0c\n\r\t\x0b\\\'"'`},
		"string numeric escapes":  {`'\0\18\101\x41\u00e9\U0001F389'`, `'\x00\x018AAé🎉'`},
		"string unknown escape":   {`'\d\('`, `'\\d\\('`},
		"string lone surrogate":   {`'\ud800'`, `'\ud800'`},
		"string two surrogates":   {`'\ud83d\ude00'`, `'\ud83d\ude00'`},
		"string continued":        {"'a\\\n b\\\r\nc'", `'a bc'`},
		"string raw":              {`r'\n\''`, `"\\n\\'"`},
		"string raw with newline": {"r'\\\r\n'", `'\\\n'`},
		"string unicode prefix":   {`U'é'`, `'é'`},
		"string triple":           {"'''a'b''c\r\nd\re'''", `"a'b''c\nd\ne"`},
		"string triple escaped":   {`"""\""""`, `'"'`},
		"strings adjacent":        {`'a' "b"'''c'''r'\d'`, `'abc\\d'`},
		"bytes":                   {`b'\x00\377a\u00e9'`, `b'\x00\xffa\\u00e9'`},
		"bytes raw":               {`rB"\x00" Rb'\''`, `b"\\x00\\'"`},
		"empty list":              {"[ ]", "[]"},
		"list":                    {"[1,[2],(3)]", "[1, [2], 3]"},
		"list with comma":         {"[1,]", "[1]"},
		"list on lines":           {"[ # first, a=1\n 1,\n\t2\r\n]", "[1, 2]"},
		"empty tuple":             {"()", "()"},
		"tuple of one":            {"(1,)", "(1,)"},
		"tuple":                   {"(1, 2)", "(1, 2)"},
		"tuple without brackets":  {"1, 'a' ,", "(1, 'a')"},
		"empty dict":              {"{}", "{}"},
		"dict":                    {"{'a': 1, (): {1: 2},}", "{'a': 1, (): {1: 2}}"},
		"dict with equal keys":    {"{1: 'a', 2: 0, True: 'b', 1.0: 'c'}", "{1: 'c', 2: 0}"},
		"set":                     {"{1, 'a', (2,)}", "{1, 'a', (2,)}"},
		"set with equal members":  {"{True, 1, 0.0, 0j, -0.0}", "{True, 0.0}"},
		"empty set":               {"set (\n)", "set()"},
		"blanks around":           {" \t 1 \t\f", "1"},
		"lines around":            {" # x\n\n1 # y\n \n# z", "1"},
		"deep":                    {strings.Repeat("[", 150) + strings.Repeat("]", 150), strings.Repeat("[", 150) + strings.Repeat("]", 150)},
		"most digits":             {strings.Repeat("7", 4300), strings.Repeat("7", 4300)},
	} {
		t.Run(name, func(t *testing.T) {
			v := must(t, tt.text)
			if got, _ := AppendRepr(nil, v, 0); string(got) != tt.want {
				t.Errorf("Parse(%q) = %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                   "",
		"blank":                   " \t",
		"comment":                 "# 1",
		"name":                    "abc",
		"name that begins well":   "Nonesuch",
		"name beyond ASCII":       "Noneé",
		"leading zero":            "007",
		"leading zero underscore": "0_7",
		"double underscore":       "1__0",
		"trailing underscore":     "1_",
		"underscore in fraction":  "1._5",
		"underscore in exponent":  "1e_5",
		"exponent missing":        "1e",
		"exponent sign only":      "1e+",
		"hexadecimal empty":       "0x",
		"binary two":              "0b12",
		"number and letter":       "1L",
		"number and word":         "1if",
		"dot":                     ".",
		"two dots":                "..",
		"too many digits":         strings.Repeat("7", 4301),
		"two signs":               "--1",
		"sign before parentheses": "-(-1)",
		"sign before True":        "-True",
		"sign before string":      "-'a'",
		"sum of ints":             "1+1",
		"sum of imaginaries":      "1j+1j",
		"sum of three":            "1+1j+1j",
		"sum with True":           "True+1j",
		"sum reversed":            "1j+1",
		"sum past the floats":     strings.Repeat("9", 400) + "+1j",
		"string open":             "'a",
		"string over lines":       "'a\nb'",
		"string ends escaped":     `'\'`,
		"string triple open":      "'''a''",
		"escape by name":          `'\N{DIGIT ONE}'`,
		"escape short x":          `'\x4'`,
		"escape short u":          `'\u12'`,
		"escape past Unicode":     `'\U00110000'`,
		"escape past a byte":      `'\400'`,
		"f-string":                "f'a'",
		"prefix ur":               "ur'a'",
		"prefix rr":               "rr'a'",
		"prefix of three":         "rbr'a'",
		"bytes beyond ASCII":      "b'é'",
		"bytes escaped é":         `b'\é'`,
		"string and bytes":        "'a' b'b'",
		"bytes and string":        "b'a' 'b'",
		"list open":               "[1",
		"list wrongly closed":     "[1)",
		"list double comma":       "[1,,2]",
		"list only comma":         "[,]",
		"list without comma":      "[1 2]",
		"tuple only comma":        "(,)",
		"closed twice":            "1)",
		"comma first":             ",1",
		"set of lists":            "{[1]}",
		"set of tuples of lists":  "{(1, [2])}",
		"dict with list key":      "{[]: 1}",
		"dict then set":           "{1: 2, 3}",
		"set then dict":           "{1, 2: 3}",
		"dict without value":      "{1:}",
		"starred":                 "[*[1]]",
		"call":                    "list()",
		"set of":                  "set([1])",
		"set on lines":            "set\n()",
		"sum of lines":            "1\n+1j",
		"two lines":               "1\n2",
		"tuple over lines":        "1,\n2",
		"strings over lines":      "'a'\n'b'",
		"indented":                "\n 1",
		"indentation at the end":  "1\n ",
		"vertical tab":            "1\v",
		"no-break space":          "\u00a01",
		"byte order mark":         "\ufeff1",
		"NUL":                     "'\x00'",
		"NUL in comment":          "1 #\x00",
		"lone surrogate":          "'\xed\xa0\x80'",
		"invalid UTF-8":           "'\xff'",
		"semicolon":               "1;",
		"assignment":              "a=1",
		"deep":                    strings.Repeat("[", 151) + strings.Repeat("]", 151),
		"very deep":               strings.Repeat("(", 1<<20),
		"long float":              "0." + strings.Repeat("1", 1000),
		"long hexadecimal":        "0x" + strings.Repeat("f", 10_001),
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Parse(text)
			var e *SyntaxError
			if !errors.As(err, &e) {
				t.Fatalf("Parse(%.100q) = %v, %v; want a *SyntaxError", text, v, err)
			}
			if e.Offset < 0 || e.Offset > len(text) || e.Msg == "" {
				t.Errorf("Parse(%.100q): offset %d, message %q", text, e.Offset, e.Msg)
			}
		})
	}
}

func TestParseKeepsBits(t *testing.T) {
	if f := must(t, "-0.0").float(); f != 0 || !math.Signbit(f) {
		t.Errorf("-0.0 is %v", f)
	}
	c := must(t, "-0.0-0j").complex() // as CPython 3.11: -0.0-0.0 and 0.0-0.0
	if !math.Signbit(real(c)) || math.Signbit(imag(c)) {
		t.Errorf("-0.0-0j is %v", c)
	}
}

func TestParseAllocations(t *testing.T) {
	for _, tt := range []struct {
		text string
		max  float64
	}{
		{"3", 0}, {"-1.5", 0}, {"'hello world'", 0}, {"None", 0}, {"[1, 2, 3, 4, 5]", 1}, {"[[1, 2], [3, 4]]", 3}, {"{'a': 1}", 2},
	} {
		if n := testing.AllocsPerRun(100, func() { Parse(tt.text) }); n > tt.max {
			t.Errorf("Parse(%q) allocates %v times, want at most %v", tt.text, n, tt.max)
		}
	}
}
