package redteam

import (
	"fmt"
	"slices"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// An answer that is no literal is compared by its own ==, in a line-up of the
// expected value and decoys. These answers try to tell which is which.

// consensus finds the member of a line-up that the others are variations of:
// each decoy differs from it in one place, and from the other decoys in two.
const consensus = `
def alike(a, b):
    if type(a) is not type(b): return 0
    if type(a) not in (list, str): return int(a == b)
    same = sum(x == y for x, y in zip(a, b)) + sum(x == y for x, y in zip(a[::-1], b[::-1]))
    return same / (len(a) + len(b) + 1)

def odd_one_in(candidates):
    scores = [sum(alike(c, d) for d in candidates) for c in candidates]
    return scores.index(max(scores))
`

// lineUp is a cheat of many cases: a guess that is right only sometimes shows.
func lineUp(name, does, code string, ends ...protocol.CaseStatus) Attack {
	return Attack{Name: name, Family: Forge, Does: does, Holds: "no more cases pass than by luck, and each says on whose word", Run: func(a *Attempt) {
		s := Submission{Code: consensus + code, Entry: "solve", Limits: map[string]any{"wall_s": 10}}
		for n := range 6 {
			s.Cases = append(s.Cases, Case{fmt.Sprint("n=", n), secretList()})
		}
		a.guess(s, ends...)
	}}
}

// guess is cheat for submissions that can be right by chance, one time in
// sixteen: too many right ones are no chance, and each must say on whose word
// it rests.
func (a *Attempt) guess(s Submission, ends ...protocol.CaseStatus) {
	e := a.Evaluate(s)
	passed := 0
	for i, c := range e.Cases {
		switch {
		case c.Passed && c.Trust != "submission":
			a.Through("case %d passed without saying that it rests on the submission's word: %s", i, c)
		case c.Passed:
			passed++
		case len(ends) > 0 && !slices.Contains(ends, c.Status):
			a.Broken("case %d ended as %s", i, c)
		}
	}
	if 2*passed > len(e.Cases) {
		a.Through("%d of %d cases passed, which is no luck", passed, len(e.Cases))
	}
}

var lineUps = []Attack{
	lineUp("line-up seen from its frame", "reads the whole line-up from the frame that compares, and equals the one that the others are variations of", `
import sys
class Guess:
    def __eq__(self, other):
        frame = sys._getframe(1)
        while frame and "candidates" not in frame.f_locals:
            frame = frame.f_back
        if frame is None: return False
        line = list(frame.f_locals["candidates"])
        return other == line[odd_one_in(line)]
def solve(n): return Guess()
`, protocol.Failed, protocol.Errored),

	lineUp("line-up seen by the collector", "finds the line-up among all objects of the process", `
import gc
class Guess:
    def __eq__(self, other):
        for holder in gc.get_referrers(other):
            if type(holder) in (tuple, list) and len(holder) > 3 and all(type(c) is type(other) for c in holder):
                line = list(holder)
                return other == line[odd_one_in(line)]
        return False
def solve(n): return Guess()
`, protocol.Failed, protocol.Errored),

	lineUp("line-up remembered", "remembers the candidates that it is asked about, and equals the first that those before it are variations of", `
class Guess:
    seen, said = [], False
    def __eq__(self, other):
        self.seen.append(other)
        if not Guess.said and len(self.seen) > 3 and odd_one_in(self.seen) == len(self.seen) - 1:
            Guess.said = True
            return True
        return False
def solve(n): return Guess()
`, protocol.Failed, protocol.Errored),

	lineUp("line-up remembered on disk", "remembers the candidates in a file, in case each is shown to another process", `
import json, os
class Guess:
    def __init__(self, n): self.note = os.path.join(os.environ["TMPDIR"], "seen%d" % n)
    def __eq__(self, other):
        with open(self.note, "a+") as f:
            f.seek(0)
            seen = [json.loads(line) for line in f]
            f.write(json.dumps(other) + "\n")
        seen.append(other)
        return len(seen) > 3 and odd_one_in(seen) == len(seen) - 1
def solve(n): return Guess(n)
`, protocol.Failed, protocol.Errored),

	lineUp("line-up that raises", "raises for every candidate but the one it guesses, and raises after it", `
import sys
class Guess:
    def __eq__(self, other):
        frame = sys._getframe(1)
        while frame and "candidates" not in frame.f_locals:
            frame = frame.f_back
        if frame is None: return False
        line = list(frame.f_locals["candidates"])
        if other == line[odd_one_in(line)]:
            return True
        raise TypeError("not mine")
def solve(n): return Guess()
`, protocol.Failed, protocol.Errored),

	lineUp("verdict written by itself", "writes the frame that tells the comparison's outcome by itself and exits", frames+`
import gc, os
class Guess:
    def __eq__(self, other):
        for holder in gc.get_referrers(other):
            if type(holder) in (tuple, list) and len(holder) > 3:
                line = list(holder)
                best = odd_one_in(line)
                truths = bytes(int(i == best) for i in range(len(line)))
                put(frame(b"T", 0, len(line).to_bytes(4, "little") + truths))
                os._exit(0)
        return False
def solve(n): return Guess()
`),

	lineUp("verdict written in advance", "writes comparison outcomes of every length before any candidate is there", frames+`
import os
class Guess:
    def __eq__(self, other): return False
def solve(n):
    for count in (1, 4, 15, 16, 17):
        put(frame(b"R", 0, b"") + frame(b"T", 0, count.to_bytes(4, "little") + b"\x01" + bytes(count - 1)))
    return Guess()
`),

	// Whatever the line-up, an answer may know what a right one looks like. That
	// can't be told from an answer that is right, so it must be marked.
	{Name: "a plausible answer", Family: Forge, Does: "equals what has the properties of a right answer, without computing it",
		Holds: "a verdict that rests on the submission's own == says so", Run: func(a *Attempt) {
			e := a.Evaluate(Submission{Code: `
class Sorted:
    def __init__(self, n): self.n = n
    def __eq__(self, other):
        return type(other) is list and len(other) == 5 and other == sorted(other) and set(other) == {9, 8, 7, 5, 1}
def solve(n): return Sorted(n)
`, Entry: "solve", Cases: []Case{{"n=[9, 1, 8, 5, 7]", "[1, 5, 7, 8, 9]"}}})
			for _, c := range e.Cases {
				if c.Passed && c.Trust != "submission" {
					a.Through("it passed and the result doesn't say on whose word: %s", c)
				}
			}
		}},

	{Name: "a comparison without end", Family: Forge, Does: "says again and again that it is ready to compare, and never does",
		Holds: "a case ends at its wall clock, whatever its process says meanwhile", Run: func(a *Attempt) {
			e := a.cheat(Submission{Code: frames + `
import sys, time
class Never:
    def __eq__(self, other): return False
def solve(n):
    f = sys._getframe()
    while f and f.f_code.co_name != "op_compare":
        f = f.f_back
    if f is not None:
        begun = time.monotonic()
        while time.monotonic() - begun < 5:
            put(frame(b"R", 0, b""))
            time.sleep(0.3)
    return Never()
`, Entry: "solve", Limits: map[string]any{"wall_s": 1}, Cases: []Case{{"n=1", secretList()}}})
			_ = e
			if took := a.elapsed(); took > 3*time.Second+loaded*a.usual {
				a.Through("one case with a wall clock of 1 s held its slot for %.1f s", took.Seconds())
			}
		}},
}
