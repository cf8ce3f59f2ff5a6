package node

import (
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A submission alone on the worker gets the free slot's help, until another job
// wants it.
func TestFreeSlotsHelp(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	slow := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, untilLetGo(2))
	until(t, "the free slot helps", func() bool { return n.intake.Busy() == 2 })
	// Left alone, the helper would run as long as the job.
	quick := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", "x=1", "1"))
	if got := r.result(t); got.Job != quick || got.Status != 200 {
		t.Errorf("first result %s %d, want the quick job's", got.Job, got.Status)
	}
	until(t, "the helper's slot is clean again", func() bool { return n.intake.Busy() == 1 })
	letGo(t, n)
	if got := r.result(t); got.Job != slow || got.Status != 200 {
		t.Errorf("second result %s %d %s", got.Job, got.Status, got.Body)
	}
	r.drained(t)
}
