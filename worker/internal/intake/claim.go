package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// claimTries and claimTimeout bound a claim: so often it is tried to get an
	// answer, each time for so long.
	claimTries   = 3
	claimTimeout = 3 * time.Second
	// errCodeSequenceNotFound is JetStream's code for a message that is not in the
	// stream. Source: nats-server server/errors.json, JSSequenceNotFoundErrF.
	errCodeSequenceNotFound = 10043
	// errCodeDeleteFailed is its code for a deletion that failed in the store, and
	// for a message that is not there when its neighbours aren't, either. Source:
	// the same, JSStreamMsgDeleteFailedF.
	errCodeDeleteFailed = 10057
)

// errTakenBack says that the job is not in the queue any more: a gateway took it
// back, or a claim whose answer was lost took it out. Nobody has begun it, and
// nobody will.
var errTakenBack = errors.New("the job is not in the queue any more")

// claim takes a job that must run at most once out of the queue, for certain,
// before it begins. A gateway that gives up on this worker takes it back the
// same way, by deleting it, and the stream lets one of them have it. An
// acknowledgement wouldn't do: a consumer accepts one for a job that is gone.
func (in *Intake) claim(f *flight) error {
	meta, err := f.msg.Metadata()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	for range claimTries {
		if err = in.deleteJob(meta.Sequence.Stream); !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	if err != nil {
		return err
	}
	// For the consumer's books: what was deleted doesn't come again anyway.
	if err := f.msg.Ack(); err != nil {
		in.cfg.Log.Warn("ack claimed job", "job", f.job.ID, "error", err)
	}
	return nil
}

// deleteJob deletes a message of the stream, without writing over it. The
// client's own call doesn't tell why it failed.
func (in *Intake) deleteJob(sequence uint64) error {
	body, err := json.Marshal(struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{sequence, true})
	if err != nil {
		return fmt.Errorf("encode claim: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	m, err := in.bus.NC.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+protocol.JobsStream, body)
	if err != nil {
		return fmt.Errorf("claim job: %w", err)
	}
	var answer struct {
		Success bool                `json:"success"`
		Error   *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return fmt.Errorf("claim job: %w", err)
	case answer.Error != nil && answer.Error.ErrorCode == errCodeSequenceNotFound:
		return errTakenBack
	case answer.Error != nil && answer.Error.ErrorCode == errCodeDeleteFailed && in.gone(ctx, sequence):
		return errTakenBack
	case answer.Error != nil:
		return fmt.Errorf("claim job: %w", answer.Error)
	case !answer.Success:
		return errors.New("claim job: refused without a reason")
	}
	return nil
}

// gone reports whether a message is not in the stream, for certain.
func (in *Intake) gone(ctx context.Context, sequence uint64) bool {
	// Of the leader: a replica may not have it yet.
	_, err := bus.At(ctx, in.bus.NC, protocol.JobsStream, sequence)
	return errors.Is(err, bus.ErrNoMessage)
}
