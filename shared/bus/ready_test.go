package bus

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster that starts all at once has no leaders at first; anything else that
// goes wrong is final.
func TestUntilReady(t *testing.T) {
	final := errors.New("maximum streams reached")
	noLeader := fmt.Errorf("create stream: %w", &jetstream.APIError{Code: 503, ErrorCode: 10008})
	for _, c := range []struct {
		name  string
		errs  []error // of the attempts, in turn; the last of all further ones
		calls int     // 0: more than one
		want  error
	}{
		{"ready", []error{nil}, 1, nil},
		{"connection lost, then ready", []error{nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nil}, 3, nil},
		{"no leader, then ready", []error{noLeader, context.DeadlineExceeded, nats.ErrNoResponders, nats.ErrTimeout, nil}, 5, nil},
		{"refused", []error{final}, 1, final},
		{"refused once there is a leader", []error{noLeader, final}, 2, final},
		{"never ready", []error{nats.ErrNoResponders}, 0, nats.ErrNoResponders},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			ready := func(within time.Duration) error {
				calls = 0
				return untilReady(t.Context(), within, time.Millisecond, func() error {
					calls++
					return c.errs[min(calls, len(c.errs))-1]
				})
			}
			var err error
			if c.calls != 0 {
				err = ready(time.Hour)
			} else { // a busy machine may need longer for a second attempt
				for within := 50 * time.Millisecond; calls < 2 && within < time.Minute; within *= 2 {
					err = ready(within)
				}
			}
			if !errors.Is(err, c.want) || c.calls != 0 && calls != c.calls || c.calls == 0 && calls < 2 {
				t.Errorf("after %d attempts: %v, want %v after %d", calls, err, c.want, c.calls)
			}
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := untilReady(ctx, time.Hour, time.Hour, func() error { return nats.ErrTimeout }); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("when it is to stop: %v, want what went wrong last", err)
	}
}
