package api

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestCallersOfTheLastMinute(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := newCallers(func() time.Time { return now })
	for i, n := range map[string]int{"192.0.2.1": 3, "192.0.2.2": 5, "2001:db8::1": 1, "2001:db8::2": 1, "::ffff:192.0.2.1": 1} {
		for range n {
			c.count(callerName(i))
		}
	}
	if got := c.busiest(); got != nil {
		t.Errorf("before a minute is over: %v, want none", got)
	}
	now = now.Add(callersWindow)
	want := []callerCount{{"192.0.2.2", 5}, {"192.0.2.1", 4}, {"2001:db8::/64", 2}}
	if got := c.busiest(); !reflect.DeepEqual(got, want) {
		t.Errorf("after a minute: %v, want %v", got, want)
	}
	now = now.Add(2 * callersWindow)
	if got := c.busiest(); got != nil {
		t.Errorf("after a minute without requests: %v, want none", got)
	}
}

func TestCallersAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := newCallers(func() time.Time { return now })
	for i := range callersTracked + 500 {
		c.count(callerName(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)))
	}
	c.count(callerName("10.0.0.1")) // known already
	if len(c.counts) != callersTracked+1 {
		t.Errorf("%d callers are remembered, want %d and the others", len(c.counts), callersTracked)
	}
	now = now.Add(callersWindow)
	got := c.busiest()
	if len(got) != callersShown || got[0] != (callerCount{otherCallers, 500}) || got[1] != (callerCount{"10.0.0.1", 2}) {
		t.Errorf("busiest: %v, want %d with the others first", got, callersShown)
	}
}
