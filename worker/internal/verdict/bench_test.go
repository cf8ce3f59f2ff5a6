package verdict

import (
	"fmt"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// BenchmarkEncode writes the answer for cases that answered with a short list.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d cases", n), func(b *testing.B) {
			got, err := pyvalue.Parse("[4, 3, 'x', 1.5]")
			if err != nil {
				b.Fatal(err)
			}
			cases := make([]Case, n)
			for i := range cases {
				r := &Result{HasGot: true, Got: got, CPU: 40 * time.Microsecond, Wall: 50 * time.Microsecond, PeakKB: 9000}
				r.Judge(got)
				if r.Status != protocol.Passed {
					b.Fatal(r.Status)
				}
				cases[i] = Case{Result: r, Input: []byte(`"nums=[1, 2, 3]"`), Output: []byte(`"[4, 3, 'x', 1.5]"`)}
			}
			lim := Limits{Value: 256 << 10, Answer: 16 << 20}
			b.ReportAllocs()
			b.SetBytes(int64(len(Encode(cases, lim))))
			for b.Loop() {
				Encode(cases, lim)
			}
		})
	}
}

// BenchmarkParseExpected reads what a case expects.
func BenchmarkParseExpected(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if e, err := ParseExpected([]byte(`"[4, 3, 3, 1, 17, 0, -5]"`)); err != nil || !e.Known {
			b.Fatal(e, err)
		}
	}
}
