package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/workload"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// rulyTime is what a submission of a workload may take to be measured.
const rulyTime = time.Second

// ruly are the statuses of cases that ran to their own end.
var ruly = []protocol.CaseStatus{protocol.Passed, protocol.Failed, protocol.Errored}

// leftOut counts the rows of a workload that are not measured, by who showed it:
// Limit, those that run into a limit or take longer than rulyTime; Original,
// those that the original answers with an error or otherwise than recorded.
type leftOut struct {
	Limit    int `json:"limit"`
	Original int `json:"original"`
}

// screen tries each row of a workload once and takes out those that would be all
// that is measured, or whose answers could not be compared.
func screen(ctx context.Context, k *kind, targets []*target, slots int) (out leftOut, err error) {
	for _, t := range targets {
		switch t.name {
		case nameEngine:
			out.Limit, err = k.keep(ctx, slots, func(row *workload.Row) (bool, error) {
				begun := time.Now()
				answer, err := t.api.Evaluate(ctx, row.Body("screen"))
				fit := time.Since(begun) < rulyTime
				for _, c := range answer.Cases {
					fit = fit && slices.Contains(ruly, c.Status())
				}
				return fit, err
			})
		case nameOriginal:
			// One after the other, so that none spoils another's answer.
			out.Original, err = k.keep(ctx, 1, func(row *workload.Row) (bool, error) {
				answer, err := t.api.Evaluate(ctx, row.Body("screen"))
				return err == nil && len(row.Compare(answer.Passed, answer.Verdicts())) == 0, nil
			})
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// keep keeps the rows that are fit, and says how many are not. So many are tried
// at a time.
func (k *kind) keep(ctx context.Context, atOnce int, try func(*workload.Row) (fit bool, err error)) (out int, err error) {
	fit, errs := make([]bool, len(k.rows)), make([]error, len(k.rows))
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, row := range k.rows {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			fit[i], errs[i] = try(row)
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	kept := make([]*workload.Row, 0, len(k.rows))
	for i, row := range k.rows {
		if errs[i] != nil {
			return 0, fmt.Errorf("try %s of %s: %w", row.TaskID, k.name, errs[i])
		}
		if fit[i] {
			kept = append(kept, row)
		}
	}
	if len(kept) == 0 {
		return 0, fmt.Errorf("try %s: no row is fit to be measured", k.name)
	}
	out = len(k.rows) - len(kept)
	k.rows = kept
	return out, nil
}
