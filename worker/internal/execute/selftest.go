package execute

import (
	"context"
	"fmt"

	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// SelfTest runs the sandbox's self-test as a submission would run, and has the
// policy conclude from what it saw.
func (s *Slot) SelfTest(ctx context.Context, at Place, test *sandbox.SelfTest) error {
	policy, lim := s.cfg.Policy, s.cfg.Limits
	room, err := s.open(at)
	if err != nil {
		return err
	}
	defer room.Close()
	cpu := wholeSeconds(lim.CaseCPU)
	confine := room.Confine(sandbox.Limits{CPUSeconds: cpu, CPUTotal: cpu, MemoryBytes: lim.CaseMemory})
	spec := pyrunner.EvaluateSpec{
		Source: sandbox.SelfTestSource, EntryPoint: sandbox.SelfTestEntry,
		Cases:      []pyrunner.Case{{Kind: pyrunner.Keywords, Args: policy.Arguments(test)}},
		CPUSeconds: cpu, Captured: true, Limits: lim.reported(),
	}
	seen := map[string]string{}
	var failed error
	exit, lost, err := s.run(ctx, room, pyrunner.Job{
		Message: pyrunner.Evaluate(spec, confine, ""),
		Wall:    lim.CaseWall, Keep: lim.CaseOutput, Stop: lim.OutputStop, MaxFrame: 1 << 20,
		OnFrame: func(f pyrunner.Frame) (pyrunner.Message, pyrunner.Verdict) {
			if f.Kind != pyrunner.FrameValue || len(f.Body) == 0 {
				failed = fmt.Errorf("%s", f.Body)
				return nil, pyrunner.Stop
			}
			v, _, err := pyvalue.DecodeMarshal(f.Body[1:], pyvalue.Limits{})
			if err != nil || v.Kind() != pyvalue.KindDict {
				failed = fmt.Errorf("its answer makes no sense: %v", err)
				return nil, pyrunner.Stop
			}
			for items := v.Items(); len(items) >= 2; items = items[2:] {
				seen[items[0].Text()] = ""
				if items[1].Kind() == pyvalue.KindStr {
					seen[items[0].Text()] = items[1].Text()
				}
			}
			return nil, pyrunner.Continue
		},
	})
	if err == nil && failed != nil {
		err = failed
	}
	if err == nil && (lost || len(seen) == 0) {
		err = fmt.Errorf("it ended without an answer: %v %s", exit.Status, exit.Stderr)
	}
	if err != nil {
		return fmt.Errorf("self-test of the sandbox: %w", err)
	}
	return policy.Conclude(test, seen)
}
