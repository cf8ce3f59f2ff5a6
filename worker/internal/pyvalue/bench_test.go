package pyvalue

import (
	"fmt"
	"strings"
	"testing"
)

// benchTexts are literals as they come in answers: most are small.
func benchTexts() map[string]string {
	var rows, pairs []string
	for i := range 100 {
		rows = append(rows, fmt.Sprintf("[%d, %d, %d, %d]", i, i*7, -i, i*i*i))
		pairs = append(pairs, fmt.Sprintf("'key%d': {'n': %d, 'x': %d.5}", i, i, i))
	}
	return map[string]string{
		"int":    "42",
		"float":  "-0.30000000000000004",
		"string": "'hello, world'",
		"list":   "[4, 3, 3, 1, 17, 0, -5]",
		"matrix": "[" + strings.Join(rows, ", ") + "]",
		"dict":   "{" + strings.Join(pairs, ", ") + "}",
		"set":    "{'a', 'b', 3, 4, 5, (6, 7)}",
	}
}

func eachText(b *testing.B, run func(b *testing.B, text string, v Value)) {
	for _, name := range []string{"int", "float", "string", "list", "matrix", "dict", "set"} {
		text := benchTexts()[name]
		b.Run(name, func(b *testing.B) {
			v := must(b, text)
			b.ReportAllocs()
			run(b, text, v)
		})
	}
}

func BenchmarkParse(b *testing.B) {
	eachText(b, func(b *testing.B, text string, _ Value) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := Parse(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEqual(b *testing.B) {
	eachText(b, func(b *testing.B, text string, v Value) {
		w := must(b, text)
		for b.Loop() {
			if !Equal(v, w) {
				b.Fatal("not equal")
			}
		}
	})
}

func BenchmarkDecodeMarshal(b *testing.B) {
	eachText(b, func(b *testing.B, _ string, v Value) {
		data := AppendMarshal(nil, v)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, _, err := DecodeMarshal(data, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendMarshal(b *testing.B) {
	eachText(b, func(b *testing.B, _ string, v Value) {
		var dst []byte
		for b.Loop() {
			dst = AppendMarshal(dst[:0], v)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	eachText(b, func(b *testing.B, _ string, v Value) {
		var dst []byte
		for b.Loop() {
			dst, _ = AppendJSON(dst[:0], v, 1<<16)
		}
	})
}

func BenchmarkParseArgs(b *testing.B) {
	for name, text := range map[string]string{
		"keywords":   "nums = [3, 1, 4, 1, 5, 9, 2, 6], target = 9, s = 'abcabc'",
		"positional": "[3, 1, 4, 1, 5, 9, 2, 6]",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, ok := ParseArgs(text); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}
