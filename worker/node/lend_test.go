package node

import (
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A submission alone on the worker gets the free slot's help, until another job
// wants it.
func TestFreeSlotsHelp(t *testing.T) {
	r := newRig(t)
	n, _ := r.start(t, testConfig(t, publicDir(t)))
	body := evaluateBody("import time\ndef f(x):\n    time.sleep(0.1)\n    return x", "x=1", "1")
	one := body["io_cases"].([]map[string]string)[0]
	var cases []map[string]string
	for range 30 {
		cases = append(cases, one)
	}
	body["io_cases"] = cases
	slow := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, body)
	deadline := time.Now().Add(10 * time.Second)
	for n.intake.Busy() < 2 {
		if time.Now().After(deadline) {
			t.Fatal("the free slot doesn't help")
		}
		time.Sleep(time.Millisecond)
	}
	// Left alone, the helper would run as long as the job.
	quick := r.publish(t, protocol.EvaluateQueue, protocol.Evaluate, "s", 0, evaluateBody("def f(x): return x", "x=1", "1"))
	if got := r.result(t); got.Job != quick || got.Status != 200 {
		t.Errorf("first result %s %d, want the quick job's", got.Job, got.Status)
	}
	if got := r.result(t); got.Job != slow || got.Status != 200 {
		t.Errorf("second result %s %d %s", got.Job, got.Status, got.Body)
	}
	r.drained(t)
}
