package execute

import (
	"context"
	"sync"
	"time"
)

// Loan is another slot that helps with an evaluation.
type Loan struct {
	Slot *Slot
	// At is where the slot runs its part.
	At Place
	// Recalled is done when another job needs the slot.
	Recalled context.Context
	// Return gives the slot back.
	Return func()
}

// Lender lends a slot that is free now, or nil.
type Lender func() *Loan

const (
	// spreadAfter is how long an evaluation runs before it asks for help: a
	// part of it costs a process, some 2 ms of work that one slot saves.
	spreadAfter = 30 * time.Millisecond
	// spreadWorth is how much work, by the cases so far, must be left.
	spreadWorth = 15 * time.Millisecond
)

// spread is an evaluation's cases while several slots run them. The evaluation's
// own slot goes through them in order; helpers take from the end.
type spread struct {
	e     *evaluation
	lend  Lender
	begun time.Time
	parts sync.WaitGroup

	mu      sync.Mutex
	timer   *time.Timer
	wait    time.Duration
	over    bool
	next    int // in e.todo: the case that the evaluation's own slot runs
	end     int // and where it is to stop
	helpers int
	back    []int // cases that a helper gave back
}

// startSpread has the evaluation helped once it has run for a while.
func startSpread(e *evaluation, lend Lender, after time.Duration) *spread {
	s := &spread{e: e, lend: lend, begun: time.Now(), end: len(e.todo), wait: after}
	s.mu.Lock() // on a busy machine the timer may fire before it is known here
	s.timer = time.AfterFunc(after, s.recruit)
	s.mu.Unlock()
	return s
}

// recruit borrows the slots that are free, and looks again later.
func (s *spread) recruit() {
	for {
		s.mu.Lock()
		worth := !s.over && s.share(s.helpers+1) > 0
		s.mu.Unlock()
		if !worth {
			break
		}
		loan := s.lend()
		if loan == nil {
			break
		}
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			loan.Return()
			return
		}
		s.helpers++
		s.parts.Add(1)
		s.mu.Unlock()
		go s.help(loan)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.end-s.next > 1 {
		s.wait *= 2
		s.timer.Reset(s.wait)
	}
}

// share is how many cases one of so many helpers is to take. Called with the
// lock held.
func (s *spread) share(helpers int) int {
	left := s.end - s.next - 1
	if left <= 0 {
		return 0
	}
	if s.next > 0 && time.Duration(left)*time.Since(s.begun)/time.Duration(s.next) < spreadWorth {
		return 0
	}
	return (left + helpers) / (helpers + 1)
}

// steal takes cases from the end.
func (s *spread) steal() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	n := s.share(s.helpers)
	s.end -= n
	return s.e.todo[s.end : s.end+n]
}

// help runs parts of the evaluation on a borrowed slot until none is left.
func (s *spread) help(loan *Loan) {
	defer s.parts.Done()
	defer loan.Return()
	ctx, cancel := context.WithCancel(s.e.ctx)
	defer cancel()
	defer context.AfterFunc(loan.Recalled, cancel)()
	for loan.Recalled.Err() == nil {
		list := s.steal()
		if len(list) == 0 {
			break
		}
		done, err := s.e.part(ctx, loan, list)
		if err != nil {
			// Recalled, or the platform failed there: the evaluation's own slot
			// does it.
			s.giveBack(list[done:])
			break
		}
	}
	s.mu.Lock()
	s.helpers--
	s.mu.Unlock()
}

func (s *spread) giveBack(list []int) {
	for _, i := range list {
		s.e.cases[i].progress = progress{}
	}
	s.mu.Lock()
	s.back = append(s.back, list...)
	s.mu.Unlock()
}

// reached tells that the evaluation's own slot is at a case, and whether it is
// to stop there.
func (s *spread) reached(next int) (stop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
	return next >= s.end
}

// bound is where the evaluation's own slot is to stop.
func (s *spread) bound() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// finish waits for the helpers and returns the cases that none of them did.
func (s *spread) finish() []int {
	s.mu.Lock()
	s.over = true
	s.timer.Stop()
	s.mu.Unlock()
	s.parts.Wait()
	return s.back
}

// part runs some of the cases on another slot. It returns how many of the list
// were dealt with.
func (e *evaluation) part(ctx context.Context, loan *Loan, list []int) (done int, err error) {
	loan.Slot.choose(e.req.code)
	room, err := loan.Slot.open(loan.At)
	if err != nil {
		return 0, err
	}
	defer room.Close()
	p := &evaluation{
		slot: loan.Slot, ctx: ctx, req: e.req, at: loan.At, room: room, start: e.start,
		wall: e.wall, cpu: e.cpu, memory: e.memory, cases: e.cases, todo: list,
	}
	return p.runList()
}
