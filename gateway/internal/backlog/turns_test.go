package backlog

import (
	"fmt"
	"strings"
	"testing"
)

func TestTurns(t *testing.T) {
	for _, c := range []struct {
		name string
		// steps are jobs that come, a letter for each caller, and dots for turns.
		steps, want string
	}{
		{"alone", "aaa...", "a1 a2 a3"},
		{"in turns", "aaabbc......", "a1 b1 c1 a2 b2 a3"},
		{"who comes goes ahead of who had his turn", "aaa.b...", "a1 b1 a2 a3"},
		{"and behind who waits for his", "aabb.c....", "a1 b1 c1 a2 b2"},
		{"coming again is no advantage", "aaab..b.b..b..", "a1 b1 a2 b2 a3 b3 b4"},
		{"nor is it after others", "aabbcc.c......", "a1 b1 c1 a2 b2 c2 c3"},
	} {
		var q turns
		var got []string
		count := map[rune]int{}
		names := map[uint64]string{}
		for i, step := range c.steps {
			if step == '.' {
				e := q.next()
				if e == nil || !q.any() {
					t.Fatalf("%s: no turn at step %d", c.name, i)
				}
				got = append(got, names[e.sequence])
				q.pop()
				continue
			}
			count[step]++
			names[uint64(i)] = fmt.Sprint(string(step), count[step])
			q.add(&entry{sequence: uint64(i), subject: string(step)})
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if q.next() != nil || q.any() || len(q.lines) > 0 {
			t.Errorf("%s: %d lines are left", c.name, len(q.lines))
		}
	}
}

// A job that comes back goes to its place.
func TestTurnsInOrder(t *testing.T) {
	var q turns
	for _, sequence := range []uint64{2, 3, 1} {
		q.add(&entry{sequence: sequence, subject: "a"})
	}
	for want := uint64(1); want <= 3; want++ {
		if got := q.next().sequence; got != want {
			t.Errorf("job %d, want %d", got, want)
		}
		q.pop()
	}
}
