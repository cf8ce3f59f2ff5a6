package intake

import "context"

// A job whose cases take long can have the worker's free slots help it, for as
// long as no other job wants them.

// loan is a slot that helps; ok is false if there is none to spare.
type loan struct {
	slot     int
	recalled context.Context
	ok       bool
}

// Borrow takes a free slot to help a running job. The context is done when
// another job needs the slot: it is to be given back by [Intake.Return] as soon
// as possible then. ok is false if no slot is free. To be called from a handler.
func (in *Intake) Borrow() (slot int, recalled context.Context, ok bool) {
	answer := make(chan loan, 1)
	select {
	case in.asks <- answer:
		l := <-answer
		return l.slot, l.recalled, l.ok
	case <-in.stopped:
		return 0, nil, false
	}
}

// Return gives back a borrowed slot, ready for its next job.
func (in *Intake) Return(slot int) { in.returned <- slot } // has room for all slots

// lend runs in Run, as what follows.
func (in *Intake) lend() loan {
	last := len(in.free) - 1
	if in.draining || last < 0 || len(in.waiting) > 0 {
		return loan{}
	}
	slot := in.free[last]
	in.free = in.free[:last]
	ctx, cancel := context.WithCancel(context.Background())
	in.lent[slot] = cancel
	in.cfg.Metrics.busy.Inc()
	in.busy.Add(1)
	return loan{slot, ctx, true}
}

// recall asks for as many lent slots as there are jobs waiting.
func (in *Intake) recall() {
	wanted := len(in.waiting)
	for _, cancel := range in.lent {
		if wanted == 0 {
			return
		}
		cancel()
		wanted--
	}
}

func (in *Intake) takeBack(ctx context.Context, slot int) {
	in.lent[slot]()
	delete(in.lent, slot)
	in.freed(ctx, slot)
}
