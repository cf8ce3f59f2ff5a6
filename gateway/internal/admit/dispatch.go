package admit

import (
	"context"
	"errors"

	"github.com/gradefleet/gradefleet/gateway/internal/dispatch"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Dispatcher is a dispatcher whose jobs go through a gate.
type Dispatcher struct {
	*dispatch.Dispatcher
	Gate *Gate
}

// Do waits for the caller's turn, then publishes the job and returns its result.
func (d Dispatcher) Do(ctx context.Context, job dispatch.Job) (protocol.Result, error) {
	class := Interactive
	if job.Bulk {
		class = Bulk
	}
	queue := job.Queue()
	if err := d.Gate.Enter(ctx, job.Caller, queue, class); err != nil {
		err = waited(err)
		d.Ended(job.Kind, err)
		return protocol.Result{}, err
	}
	defer d.Gate.Leave(queue)
	return d.Dispatcher.Do(ctx, job)
}

// waited turns the end of a wait into a fault.
func waited(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Timeout("The job was not done before its deadline, waiting in the queue included; it was cancelled")
	case errors.Is(err, context.Canceled):
		return fault.Gone()
	}
	return err
}
