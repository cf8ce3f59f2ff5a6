package load

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// submission is an evaluate request without its id, and the verdicts it must get.
type submission struct {
	code  string
	cases []map[string]string
	want  string
}

func (s submission) body(id string) map[string]any {
	return map[string]any{"id": id, "code": s.code, "entry_point": "f", "io_cases": s.cases}
}

// newSubmission makes one whose answers depend on numbers that no other has.
// A slow one takes long enough to be killed in its midst.
func newSubmission(r *rand.Rand, slow bool) submission {
	k := r.IntN(1 << 30)
	pause := ""
	if slow {
		pause = fmt.Sprintf("    import time; time.sleep(%.2f)\n", 0.1+0.5*r.Float64())
	}
	s := submission{code: fmt.Sprintf("def f(x):\n%s    if x %% 5 == 4:\n        raise ValueError(x)\n    return x * x + %d\n", pause, k)}
	cases := 1 + r.IntN(3)
	if pause != "" {
		cases = 1
	}
	var want []string
	for range cases {
		x := r.IntN(1000)
		y, verdict := x*x+k, "passed"
		switch {
		case x%5 == 4:
			verdict = "error"
		case r.IntN(3) == 0:
			y, verdict = y+1, "failed"
		}
		s.cases = append(s.cases, map[string]string{"input": fmt.Sprint("x=", x), "output": fmt.Sprint(y)})
		want = append(want, verdict)
	}
	s.want = strings.Join(want, " ")
	return s
}

// submission makes one, and one of four slow.
func (c *client) submission() submission { return newSubmission(c.rand, c.rand.IntN(4) == 0) }

// graded is the part of an evaluate answer that is checked.
type graded struct {
	Passed *bool `json:"passed"`
	Cases  []struct {
		Passed *bool           `json:"passed"`
		Status string          `json:"status"`
		Got    json.RawMessage `json:"got"`
		Error  *string         `json:"error"`
	} `json:"case_results"`
	Error *string `json:"error"`
}

// verdicts are the statuses of all cases; an answer that contradicts itself has none.
func (g *graded) verdicts() string {
	var all []string
	passed := len(g.Cases) > 0
	for _, c := range g.Cases {
		if c.Passed == nil || *c.Passed != (c.Status == "passed") {
			return "contradictory"
		}
		passed = passed && *c.Passed
		all = append(all, c.Status)
	}
	if g.Passed == nil || *g.Passed != passed {
		return "contradictory"
	}
	return strings.Join(all, " ")
}

func readGraded(body []byte) (g graded, err error) {
	if err = json.Unmarshal(body, &g); err != nil {
		return g, fmt.Errorf("read answer: %w", err)
	}
	return g, nil
}
