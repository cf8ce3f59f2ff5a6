package sessionapi

import (
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A request or its answer may be lost with a connection, and then the gateway
// asks the same again. So answers are remembered, by the attempt's id: it is carried
// out once. What is sent anew, as another attempt at the same thing, is for the
// journal to know (see workcopy).
const (
	// onceAge is how long: longer than a gateway asks for one thing by default.
	onceAge = 2 * time.Minute
	// onceCount bounds how many; the oldest go first.
	onceCount = 8192
)

// once remembers what was answered of late. Its methods may be called from any
// goroutine.
type once struct {
	mu   sync.Mutex
	byID map[string]*answered
	// order has the ids, oldest first.
	order []string
}

type answered struct {
	done   chan struct{} // closed when result is there
	result protocol.Result
	at     time.Time
}

// do answers what was asked under an id: with the answer that it had, or will
// have, or if it is new by doing it. An empty id is always new.
func (o *once) do(id string, now time.Time, do func() protocol.Result) protocol.Result {
	if id == "" {
		return do()
	}
	o.mu.Lock()
	if a := o.byID[id]; a != nil {
		o.mu.Unlock()
		<-a.done
		return a.result
	}
	a := &answered{done: make(chan struct{}), at: now}
	if o.byID == nil {
		o.byID = map[string]*answered{}
	}
	o.byID[id] = a
	o.order = append(o.order, id)
	for len(o.order) > onceCount || now.Sub(o.byID[o.order[0]].at) > onceAge {
		delete(o.byID, o.order[0])
		o.order = o.order[1:]
	}
	o.mu.Unlock()
	defer close(a.done)
	a.result = do()
	return a.result
}
