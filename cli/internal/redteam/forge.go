package redteam

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// holdsNoPass is what must hold of every cheat.
const holdsNoPass = "no case passes, the answer is a 200 with a status for each case"

// cheat makes an attack of a submission whose solve(n) is wrong. What it is
// asked for is random, so nobody can guess it. ends are the statuses that its
// cases must come to: any other means that the cheat is not what it says.
func cheat(name, does, code string, ends ...protocol.CaseStatus) Attack {
	return Attack{Name: name, Family: Forge, Does: does, Holds: holdsNoPass, Run: func(a *Attempt) {
		for _, isolation := range []string{"", "process"} {
			a.cheat(Submission{Code: code, Entry: "solve", Isolation: isolation, Limits: map[string]any{"wall_s": 5},
				Cases: []Case{{"n=3", secretList()}, {"n=4", secretList()}, {"n=5", secretList()}}}, ends...)
		}
	}}
}

// cheat sends a wrong submission, of which nothing may pass.
func (a *Attempt) cheat(s Submission, ends ...protocol.CaseStatus) Evaluation {
	e := a.Evaluate(s)
	if e.Passed {
		a.Through("the submission passed as a whole")
	}
	for i, c := range e.Cases {
		if c.Passed || c.Status == protocol.Passed {
			a.Through("case %d passed (isolation %q): %s, trust %q, integrity %v", i, s.Isolation, c, c.Trust, c.Integrity)
		} else if len(ends) > 0 && !slices.Contains(ends, c.Status) {
			a.Broken("case %d ended as %s", i, c)
		}
	}
	return e
}

// secretList is a list that nobody guesses, as Python and JSON write it.
func secretList() string {
	parts := make([]string, 8)
	for i := range parts {
		parts[i] = fmt.Sprint(1_000_000 + rand.IntN(9_000_000))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// secretWord is a text that only an expected output holds; searches look for
// its form. Nothing that a submission is sent holds such a word as a whole.
func secretWord() string { return "GF-" + "EXPECTED-" + random(12) }

// controlWord has the same form but for its name and is sent as an argument: a
// search that doesn't find it searched nothing.
func controlWord() string { return "GF-" + "CONTROL-" + random(12) }

// search makes an attack of a submission that looks for the expected output.
// Its look(text) returns everything it could read; what of it has the form of
// the expected output is the answer. The argument has that form too, but for
// its name: a look that doesn't see it is none.
func search(name, does, look string) Attack {
	return searchFor(name, does, look, func(word string) string { return "'" + word + "'" }, true)
}

// searchFor is search with a way to spell the expected output; control says
// that the look must see the argument.
func searchFor(name, does, look string, spell func(word string) string, control bool) Attack {
	code := `
import re
def words(chunks, *names):
    patterns = [re.compile(("GF-%s-[0-9a-f]{24}" % name).encode()) for name in names]
    found, n = set(), 0
    for chunk in chunks:
        if isinstance(chunk, str):
            chunk = chunk.encode("utf-8", "replace")
        for pattern in patterns:
            found.update(m.decode() for m in pattern.findall(chunk))
        n += 1
    return sorted(found), n

def solve(text, n=0):
    found, chunks = words(look(text), "EXPECTED", "CONTROL")
    hit = [w for w in found if "EXPECTED" in w]
    if hit:
        return hit[0]
    return {"control": found, "chunks": chunks}
` + look
	return Attack{Name: name, Family: Forge, Does: does, Holds: "the expected output is nowhere within reach", Run: func(a *Attempt) {
		word, control_ := secretWord(), controlWord()
		e := a.cheat(Submission{Code: code, Entry: "solve", Limits: map[string]any{"wall_s": 20, "cpu_s": 20}, Cases: []Case{
			{"text='" + control_ + "', n=1", spell(word)}, {"text='" + control_ + "', n=2", spell(secretWord())},
		}})
		for _, c := range e.Cases {
			if strings.Contains(string(c.Got), "EXPECTED-") {
				a.Through("it found the expected output: %s", c.Got)
				continue
			}
			var got struct {
				Control []string `json:"control"`
				Chunks  int      `json:"chunks"`
			}
			if json.Unmarshal(c.Got, &got) != nil || got.Chunks == 0 || control && len(got.Control) == 0 {
				a.Broken("the search saw nothing: %s", c)
			}
		}
	}}
}
