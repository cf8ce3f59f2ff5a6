package verdict

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// Whatever the cases hold, the answer is JSON, has them all, and keeps its limit.
func TestAnswerKeepsItsLimit(t *testing.T) {
	long := strings.Repeat("é\x00\"\xff", 20_000)
	tests := []struct {
		name         string
		cases, limit int
		result       Result
	}{
		{"one plain case", 1, 1 << 20, Result{Status: protocol.Passed, HasGot: true, Got: pyvalue.Int(3)}},
		{"large texts", 200, 1 << 20, Result{Status: protocol.Failed, HasGot: true, Got: pyvalue.Str(strings.Repeat("a", 1<<20)), Error: long, Stdout: []byte(long), Stderr: []byte(long)}},
		{"opaque values", 50, 256 << 10, Result{Status: protocol.Failed, HasGot: true, Opaque: long, ShowExpected: true, WantOpaque: long}},
		{"more cases than there is room", protocol.MaxCases, 1 << 20, Result{Status: protocol.Errored, Error: long}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cases := make([]Case, tt.cases)
			for i := range cases {
				cases[i] = Case{Result: &tt.result, Input: fmt.Appendf(nil, `"x=%d"`, i), Output: []byte(`"` + strings.Repeat("b", 5000) + `"`)}
			}
			body := Encode(cases, Limits{Value: 256 << 10, Answer: tt.limit})
			var answer struct {
				Passed bool `json:"passed"`
				Cases  []struct {
					Passed bool   `json:"passed"`
					Case   int    `json:"case"`
					Status string `json:"status"`
				} `json:"case_results"`
			}
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Fatalf("no JSON: %v", err)
			}
			if len(body) > tt.limit || len(answer.Cases) != tt.cases || answer.Passed != tt.result.Passed() {
				t.Errorf("%d bytes of %d, %d cases of %d, passed %v", len(body), tt.limit, len(answer.Cases), tt.cases, answer.Passed)
			}
			for i, c := range answer.Cases {
				if c.Case != i || c.Status != string(tt.result.Status) {
					t.Fatalf("case %d is %+v", i, c)
				}
			}
		})
	}
}
