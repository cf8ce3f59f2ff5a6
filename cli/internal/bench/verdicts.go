package bench

import (
	"cmp"
	"maps"
	"slices"

	"github.com/gradefleet/gradefleet/cli/internal/workload"
)

// maxListed is how many differences are listed; all are counted.
const maxListed = 20

// wrong is the reason of an answer that doesn't say what it should.
const wrong = "wrong"

// place is a case of a workload's row.
type place struct{ row, number int }

// verdicts holds each case whose verdict differed, once, however often it was
// seen.
type verdicts struct {
	differ map[place]workload.Difference
}

func newVerdicts() verdicts { return verdicts{differ: map[place]workload.Difference{}} }

func (v verdicts) add(row int, differences []workload.Difference) {
	for _, d := range differences {
		v.differ[place{row, d.Case}] = d
	}
}

func (v verdicts) merge(o verdicts) { maps.Copy(v.differ, o.differ) }

// count returns how many cases differ, and of how many submissions.
func (v verdicts) count() (cases, submissions int) {
	rows := map[int]bool{}
	for p := range v.differ {
		rows[p.row] = true
		if p.number != workload.Whole {
			cases++
		}
	}
	return cases, len(rows)
}

// list returns the first differences, in the order of the workload.
func (v verdicts) list() []workload.Difference {
	places := slices.SortedFunc(maps.Keys(v.differ), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.number, b.number))
	})
	var listed []workload.Difference
	for _, p := range places[:min(len(places), maxListed)] {
		listed = append(listed, v.differ[p])
	}
	return listed
}
