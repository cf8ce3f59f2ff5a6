package backlog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// view is what a feeder knows of the backlog and the bulk queue, from one
// connection to the next.
type view struct {
	feeder *Feeder
	ctx    context.Context // ends with the view
	bulk   jetstream.Consumer
	moving sync.WaitGroup
	chosen chan *move // in their turn; has room for all that are moved at a time

	mu     sync.Mutex
	closed bool
	turns  turns
	last   uint64 // the last message that was seen
	// sent are the view's jobs that are in the bulk queue, or on their way, by id.
	sent map[string]*sent
	// before counts what was in the bulk queue when the view was made, and is there
	// still: it came from another view or gateway, or from batches. All of it was
	// stored up to beforeEnd.
	before    int
	beforeEnd uint64
	moves     int // under way
	bytes     int // of these
	// failed jobs are tried again after the next look; until then stopped says that
	// others would fare no better.
	failed  []*entry
	stopped bool
	looked  time.Time // when the last look began
	limits  limits    // of one caller's line
	// waits is what is in the backlog of each caller, by subject; all are the jobs.
	waits map[string]waits
	all   int64
	// rooms are kept for jobs that are about to come, by subject and job.
	rooms map[string]map[string]room

	suspect bool // see misses, which alone uses it
}

// headerSize is what JetStream says of a message's data where it leaves it out.
const headerSize = "Nats-Msg-Size"

// entry is a job in the backlog.
type entry struct {
	sequence uint64
	subject  string
	job      string    // its id
	deadline time.Time // zero if the job can't be read
	bytes    int       // of its body
	missed   bool      // it was not there when its turn came; it is looked for twice
}

// sent is a job in the bulk queue.
type sent struct {
	sequence uint64    // in the stream of jobs; 0 until it is acknowledged
	at       time.Time // when that was
}

// start counts what is in the bulk queue. It is called once, first.
func (v *view) start(ctx context.Context) error {
	stream, err := v.feeder.cfg.Bus.Jobs.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", protocol.JobsStream, err)
	}
	if v.bulk, err = v.feeder.cfg.Bus.Jobs.Consumer(ctx, protocol.BulkConsumer); err != nil {
		return fmt.Errorf("look at consumer %s: %w", protocol.BulkConsumer, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.before, v.beforeEnd = queued(v.bulk.CachedInfo()), stream.State.LastSeq
	return nil
}

// queued is how many jobs are in the queue of a consumer, with a worker or not.
func queued(info *jetstream.ConsumerInfo) int { return int(info.NumPending) + info.NumAckPending }

// close ends all moving; stop ends the context of what is under way.
func (v *view) close(stop func()) {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	stop()
	v.moving.Wait()
}

// read takes in what is in the backlog and what comes, until that breaks or the
// view is over.
func (v *view) read(messages jetstream.MessagesContext) error {
	for {
		m, err := messages.Next(jetstream.NextContext(v.ctx))
		if err != nil {
			return fmt.Errorf("read stream %s: %w", protocol.BacklogStream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read stream %s: %w", protocol.BacklogStream, err)
		}
		e := &entry{sequence: meta.Sequence.Stream, subject: m.Subject(), job: strconv.FormatUint(meta.Sequence.Stream, 10)}
		// A job that can't be read is for workers to refuse.
		if job, err := protocol.ParseJob(m.Headers(), nil); err == nil {
			e.job, e.deadline = job.ID, job.Deadline
		}
		e.bytes, _ = strconv.Atoi(m.Headers().Get(headerSize))
		v.add(e)
	}
}

// add takes in a job that was stored.
func (v *view) add(e *entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e.sequence <= v.last {
		return
	}
	v.last = e.sequence
	v.came(e)
	v.turns.add(e)
	v.advance()
}

// room is how many more jobs may be moved into the bulk queue.
func (v *view) room() int {
	if v.stopped {
		return 0
	}
	return v.feeder.cfg.Window() - len(v.sent) - v.before
}

// advance begins to move those whose turn it is. v.mu is held.
func (v *view) advance() {
	if v.closed || !v.turns.any() {
		return
	}
	for room := v.room(); room > 0 && v.moves < maxMoves; room-- {
		// Whose turn it is is decided when there is room, not before.
		e := v.turns.next()
		if e == nil || v.moves > 0 && v.bytes+e.bytes > maxMoveBytes {
			return
		}
		v.turns.pop()
		v.moves++
		v.bytes += e.bytes
		m := &move{entry: e, sent: new(sent), fetched: make(chan fetched, 1)}
		v.sent[e.job] = m.sent
		v.chosen <- m // never waits
		v.moving.Go(func() { m.fetched <- v.fetch(m.entry) })
	}
}

// settled hears that a kept job has ended, whatever queue it was in.
func (v *view) settled(job string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ours := v.sent[job]; ours {
		delete(v.sent, job)
	} else if v.before > 0 {
		v.before--
	}
	v.advance()
}

// held reports whether jobs wait for room in the bulk queue.
func (v *view) held() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.failed) > 0 || v.turns.any() && v.room() <= 0
}

// look corrects by the bulk queue itself what is believed to be in it.
func (v *view) look() error {
	ctx, cancel := context.WithTimeout(v.ctx, opTimeout)
	defer cancel()
	begun := v.feeder.now()
	info, err := v.bulk.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at consumer %s: %w", protocol.BulkConsumer, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	total, done := queued(info), info.AckFloor.Stream
	v.before = min(v.before, total)
	if done >= v.beforeEnd {
		v.before = 0
	}
	// What was moved since the last look may not be in the numbers yet.
	var known []string
	for job, s := range v.sent {
		if s.sequence != 0 && s.sequence <= done {
			delete(v.sent, job)
		} else if s.sequence != 0 && s.at.Before(v.looked) {
			known = append(known, job)
		}
	}
	v.looked = begun
	if len(known) > total {
		slices.SortFunc(known, func(a, b string) int { return cmp.Compare(v.sent[a].sequence, v.sent[b].sequence) })
		for _, job := range known[:len(known)-total] {
			delete(v.sent, job)
		}
	}
	for _, e := range v.failed {
		v.turns.add(e)
	}
	v.failed, v.stopped = nil, false
	v.advance()
	return nil
}

// misses reports whether jobs are in the backlog, twice in a row, although the
// view knows of none: one that could not be deleted, or that it was not told of.
func (v *view) misses() (bool, error) {
	v.mu.Lock()
	idle := v.moves == 0 && !v.turns.any()
	v.mu.Unlock()
	if !idle {
		v.suspect = false
		return false, nil
	}
	ctx, cancel := context.WithTimeout(v.ctx, opTimeout)
	defer cancel()
	info, err := v.feeder.cfg.Bus.Backlog.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("look at stream %s: %w", protocol.BacklogStream, err)
	}
	before := v.suspect
	v.suspect = info.State.Msgs > 0
	return before && v.suspect, nil
}
