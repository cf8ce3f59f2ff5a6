package sessionapi

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestOnce(t *testing.T) {
	var o once
	now := time.Unix(1000, 0)
	done := 0
	do := func() protocol.Result { done++; return protocol.Result{Status: done} }
	for i, c := range []struct {
		id   string
		at   time.Time
		want int
	}{
		{"a", now, 1}, {"a", now.Add(onceAge), 1}, {"b", now, 2}, {"", now, 3}, {"", now, 4},
		{"c", now.Add(onceAge + 1), 5}, // a and b are forgotten now
		{"a", now.Add(onceAge + 1), 6},
	} {
		if got := o.do(c.id, c.at, do); got.Status != c.want {
			t.Errorf("step %d: answer %d to %q, want %d", i, got.Status, c.id, c.want)
		}
	}
	for i := range 2 * onceCount {
		o.do(fmt.Sprint(i), now.Add(onceAge), do)
	}
	if len(o.byID) != onceCount || len(o.order) != onceCount {
		t.Errorf("%d and %d remembered, want %d", len(o.byID), len(o.order), onceCount)
	}
}

// Who asks while it is being done waits for the one answer.
func TestOnceMeanwhile(t *testing.T) {
	var o once
	begun, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	results := make([]protocol.Result, 4)
	wg.Go(func() {
		results[0] = o.do("a", time.Now(), func() protocol.Result {
			close(begun)
			<-end
			return protocol.Result{Status: 200}
		})
	})
	<-begun
	for i := range results[1:] {
		wg.Go(func() {
			results[i+1] = o.do("a", time.Now(), func() protocol.Result {
				t.Error("done twice")
				return protocol.Result{}
			})
		})
	}
	close(end)
	wg.Wait()
	for i, r := range results {
		if r.Status != 200 {
			t.Errorf("answer %d is %d", i, r.Status)
		}
	}
}
