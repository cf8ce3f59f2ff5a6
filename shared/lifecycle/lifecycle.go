// Package lifecycle runs the parts of a process side by side and stops them in
// order.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
)

// Part is something that runs until its context is done.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
}

// Run runs parts until ctx is done or one of them ends, and then stops them one
// after the other, the last first: each is told to stop when the one behind it
// has ended. So list receivers before senders. It returns the errors of the
// parts, named, and nil for a requested stop.
func Run(ctx context.Context, parts ...Part) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
		err    error
	}
	base := context.WithoutCancel(ctx)
	ended := make(chan int, len(parts))
	all := make([]*running, len(parts))
	for i, p := range parts {
		partCtx, cancel := context.WithCancel(base)
		r := &running{cancel: cancel, done: make(chan struct{})}
		all[i] = r
		go func() {
			r.err = p.Run(partCtx)
			close(r.done)
			ended <- i
		}()
	}
	var errs []error
	select {
	case <-ctx.Done():
	case i := <-ended:
		if all[i].err == nil {
			errs = append(errs, fmt.Errorf("%s ended by itself", parts[i].Name))
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		all[i].cancel()
		<-all[i].done
		if err := all[i].err; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", parts[i].Name, err))
		}
	}
	return errors.Join(errs...)
}
