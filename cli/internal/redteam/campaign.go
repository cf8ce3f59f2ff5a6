package redteam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// tokenPrefix begins every name that an attack makes anywhere.
const tokenPrefix = "rt-"

// tag tells the fleets of a campaign apart in such names.
func (f *Fleet) tag() string { return fmt.Sprintf("%d-", f.Pid) }

// Try carries out one attack and looks at what it left.
func (f *Fleet) Try(ctx context.Context, attack Attack) (o Outcome) {
	a := &Attempt{attack: attack, fleet: f, ctx: ctx, token: tokenPrefix + f.tag() + plain(attack.Name) + "-" + random(3)}
	a.usual = f.usual
	if attack.Alone {
		a.begun = time.Now()
		f.graded(ctx)
		a.usual = a.elapsed()
	}
	a.begun = time.Now()
	result, why := a.run()
	took := a.elapsed()
	next := a.aftermath()
	o = a.outcome(took)
	o.NextMillis = next.Milliseconds()
	if result != "" && o.Result == Held {
		o.Result, o.Why = result, why
	} else if result == Broken {
		o.Why = why
	}
	return o
}

// plain is a name as session ids and files may have it.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
}

// run calls the attack and takes what it is given up with.
func (a *Attempt) run() (result Result, why string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case notHere:
			result, why = NotHere, r.why
		case broken:
			result, why = Broken, r.why
		default:
			panic(r)
		}
	}()
	a.attack.Run(a)
	return "", ""
}

// Campaign tries attacks on several fleets: those that may have company side
// by side, the others one by one.
type Campaign struct {
	Binary string
	// Fleets is how many fleets are attacked at once.
	Fleets int
	// Env are further settings of each, NAME=value.
	Env []string
}

// Run returns the outcomes in the order of the attacks.
func (c Campaign) Run(ctx context.Context, attacks []Attack) ([]Outcome, error) {
	outcomes := make([]Outcome, len(attacks))
	var shared, alone []int
	for i, a := range attacks {
		if a.Alone {
			alone = append(alone, i)
		} else {
			shared = append(shared, i)
		}
	}
	work := make(chan int)
	errs := make([]error, max(min(c.Fleets, len(shared)), 1))
	fleets := make([]*Fleet, len(errs))
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() { errs[n] = c.attack(ctx, n, &fleets[n], attacks, work, outcomes) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
feed:
	for _, i := range shared {
		select {
		case work <- i:
		case <-done:
			break feed
		}
	}
	close(work)
	wg.Wait()
	// What needs the machine for itself runs when the other fleets are gone.
	for _, f := range fleets[1:] {
		if f != nil {
			errs = append(errs, f.Stop())
		}
	}
	rest := make(chan int, len(alone))
	for _, i := range alone {
		rest <- i
	}
	close(rest)
	if err := errors.Join(errs...); err != nil {
		return outcomes, err
	}
	err := c.attack(ctx, 0, &fleets[0], attacks, rest, outcomes)
	if fleets[0] != nil {
		err = errors.Join(err, fleets[0].Stop())
	}
	return outcomes, err
}

// attack tries what it is given on one fleet; one that an attack ended is
// started anew.
func (c Campaign) attack(ctx context.Context, number int, fleet **Fleet, attacks []Attack, work <-chan int, outcomes []Outcome) error {
	for i := range work {
		if *fleet != nil && (*fleet).Ended() {
			(*fleet).Stop()
			*fleet = nil
		}
		if *fleet == nil {
			f, err := Start(ctx, Config{Binary: c.Binary, Number: number, Env: c.Env})
			if err != nil {
				return err
			}
			*fleet = f
		}
		outcomes[i] = (*fleet).Try(ctx, attacks[i])
	}
	return nil
}
