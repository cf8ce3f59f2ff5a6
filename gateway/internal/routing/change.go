package routing

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/ownership"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// change is a write, a delete or a rename, which has one id however often it is
// sent. Where a session is durable its journal has the ids of what was done: so
// sending a change again does it once, and tells whether it was done.
type change struct {
	r     *Router
	op    string
	req   Request
	id    string
	begun time.Time
	// doubt is the answer to a sending that may have been carried out; nil if there
	// was none. It is what the caller is told unless a later answer says more.
	doubt *answer
}

type answer struct {
	res protocol.Result
	err error
}

func (r *Router) newChange(op string, req Request) *change {
	return &change{r: r, op: op, req: req, id: protocol.NewOperationID(), begun: r.now()}
}

// send asks an owner for the change. A worker that stores, and wasn't told by NATS
// whether the change is stored, is asked again: it then loads the journal anew, and
// knows.
func (c *change) send(ctx context.Context, owner ownership.Owner) (protocol.Result, error) {
	for sends := 1; ; sends++ {
		o := operation(c.req, owner)
		o.ID = c.id
		if c.doubt != nil {
			o.First = c.begun
		}
		res, err := c.r.askOwner(ctx, owner, c.op, o)
		unknown := err == nil && res.Status == http.StatusGatewayTimeout && owner.Durable
		if unknown || errors.Is(err, errLost) {
			c.doubt = &answer{res, err}
		}
		if !unknown || sends == maxSends {
			return res, err
		}
	}
}

// outcome is what the caller is told after the last sending. Where an earlier one
// may have been carried out, an answer other than success says nothing of that,
// unless the worker looked and says so.
func (c *change) outcome(res protocol.Result, err error) (protocol.Result, error) {
	known := err == nil && (res.Status == http.StatusOK || res.Anew && res.Status != http.StatusGatewayTimeout)
	if c.doubt != nil && !known {
		return c.doubt.res, c.doubt.err
	}
	return res, err
}
