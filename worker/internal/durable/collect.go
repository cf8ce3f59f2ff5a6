package durable

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Collector removes blobs that no journal names. One worker at a time should
// run one; two do no harm.
//
// A blob goes that is older than the grace and wasn't named by any journal in
// two passes in a row. The first rule leaves those alone that were just stored
// and whose journal is still to be written, the second those whose only journal
// was being copied to a fork during the first pass. Stored again a blob is young.
type Collector struct {
	store *Store
	// unnamed are the sequences of blobs that no journal named in the last
	// pass. Used by Collect alone.
	unnamed map[uint64]struct{}
	// now is time.Now; tests have others.
	now func() time.Time
}

// NewCollector returns a collector whose first pass removes nothing.
func (s *Store) NewCollector() *Collector { return &Collector{store: s, now: time.Now} }

// Stored is what a pass over the journals saw of one.
type Stored struct {
	Session string
	Created int64
	// Written is when the last message was.
	Written time.Time
}

const (
	// pullBatch is how many messages are asked for at a time.
	pullBatch = 500
	// pullExpiry and pullHeartbeat: in a cluster the first request may be lost,
	// the consumer having no leader yet. The client asks again after two
	// heartbeats are missing.
	pullExpiry    = 4 * time.Second
	pullHeartbeat = 500 * time.Millisecond
)

// nextTimeout bounds the wait for the next message: there may be none any more.
const nextTimeout = 30 * time.Second

// Collect makes one pass. It returns what journals there are and how many blobs
// were removed.
func (c *Collector) Collect(ctx context.Context) (journals map[string]Stored, removed int, err error) {
	named := map[Digest]struct{}{}
	journals = map[string]Stored{}
	if err := c.store.eachMessage(ctx, c.store.Bus.Manifests, false, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		return true, c.store.names(ctx, m, meta, named, journals)
	}); err != nil {
		return nil, 0, fmt.Errorf("read journals: %w", err)
	}
	unnamed := map[uint64]struct{}{}
	young := c.now().Add(-c.store.Grace)
	err = c.store.eachMessage(ctx, c.store.Bus.Blobs, true, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if meta.Timestamp.After(young) {
			return false, nil // so are all that follow
		}
		var d Digest
		if n, err := hex.Decode(d[:], []byte(protocol.LastToken(m.Subject()))); err != nil || n != len(d) {
			return true, nil // none of ours
		}
		if _, ok := named[d]; ok {
			return true, nil
		}
		sequence := meta.Sequence.Stream
		if _, before := c.unnamed[sequence]; !before {
			unnamed[sequence] = struct{}{}
			return true, nil
		}
		// By its sequence: if it was stored again it has another.
		if err := c.store.Bus.Blobs.DeleteMsg(ctx, sequence); err != nil && !gone(err) {
			return false, fmt.Errorf("remove blob: %w", err)
		}
		removed++
		c.store.Metrics.collect()
		return true, nil
	})
	if err != nil {
		return nil, removed, fmt.Errorf("collect blobs: %w", err)
	}
	c.unnamed = unnamed
	return journals, removed, nil
}

// names notes the blobs that a message of a journal names. A message that later
// ones have overtaken counts too: that keeps a blob until the next base.
func (s *Store) names(ctx context.Context, raw jetstream.Msg, meta *jetstream.MsgMetadata, named map[Digest]struct{}, journals map[string]Stored) error {
	if bus.ManifestsMarker.Is(raw.Subject()) {
		return nil
	}
	m, err := decodeMessage(raw.Data())
	if err != nil {
		return fmt.Errorf("message %d: %w", meta.Sequence.Stream, err)
	}
	journals[m.Session] = Stored{Session: m.Session, Created: m.Created, Written: meta.Timestamp}
	if len(m.Pieces) > 0 {
		for _, p := range m.Pieces {
			if len(p) == len(Digest{}) {
				named[Digest(p)] = struct{}{}
			}
		}
		m.Set, err = s.readPieces(ctx, m)
		if errors.Is(err, ErrMissing) {
			// Replaced since, or lost: either way it names nothing that
			// anybody can restore.
			return nil
		}
		if err != nil {
			return err
		}
	}
	for i := range m.Set {
		for _, b := range m.Set[i].Blobs {
			if len(b) == len(Digest{}) {
				named[Digest(b)] = struct{}{}
			}
		}
	}
	return nil
}

// eachMessage visits the messages of a stream in order, up to the last there is
// when it gets there, or until visit returns false.
func (s *Store) eachMessage(ctx context.Context, stream jetstream.Stream, headersOnly bool, visit func(jetstream.Msg, *jetstream.MsgMetadata) (bool, error)) error {
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: headersOnly, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullBatch), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		wait, cancel := context.WithTimeout(ctx, nextTimeout)
		m, err := messages.Next(jetstream.NextContext(wait))
		cancel()
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		more, err := visit(m, meta)
		if err != nil || !more || meta.NumPending == 0 {
			return err
		}
	}
}

// Records returns all records of sessions, by id.
func (s *Store) Records(ctx context.Context) (map[string]Record, error) {
	watch, err := s.Bus.Sessions.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	defer watch.Stop()
	records := map[string]Record{}
	for {
		select {
		case e, ok := <-watch.Updates():
			if !ok {
				return nil, errors.New("read records: the watch ended")
			}
			if e == nil { // that was all
				return records, nil
			}
			r := Record{Session: protocol.SessionOfKey(e.Key()), Revision: e.Revision(), Written: e.Created()}
			if err := json.Unmarshal(e.Value(), &r.SessionRecord); err != nil {
				return nil, fmt.Errorf("read record of session %s: %w", r.Session, err)
			}
			records[r.Session] = r
		case <-ctx.Done():
			return nil, fmt.Errorf("read records: %w", ctx.Err())
		}
	}
}

// LiveWorkers returns the ids of all workers that have a heartbeat.
func (s *Store) LiveWorkers(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	keys, err := s.Bus.Workers.ListKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	live := map[string]bool{}
	for key := range keys.Keys() {
		live[key] = true
	}
	return live, nil
}

// collectorKey is the key of the UPKEEP bucket that names the collector.
const collectorKey = "collector"

// upkeep is its value.
type upkeep struct {
	Worker string `json:"worker"`
}

// Collects reports whether this worker is the one that collects, and makes it
// so if the last one has not said that it is for a time. To be called more often
// than that.
func (s *Store) Collects(ctx context.Context, lease time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	value, err := json.Marshal(upkeep{s.Worker})
	if err != nil {
		return false, fmt.Errorf("encode the collector: %w", err)
	}
	m, err := bus.Last(ctx, s.Bus.NC, bus.KeyStream(protocol.UpkeepBucket), bus.KeySubject(protocol.UpkeepBucket, collectorKey))
	if err != nil && !errors.Is(err, bus.ErrNoMessage) {
		return false, fmt.Errorf("read who collects: %w", err)
	}
	if err == nil && !m.Deleted() {
		var now upkeep
		if err := json.Unmarshal(m.Data, &now); err != nil {
			return false, fmt.Errorf("read who collects: %w", err)
		}
		if now.Worker != s.Worker && time.Since(m.Time) < lease {
			return false, nil
		}
	}
	_, err = s.Bus.Upkeep.Update(ctx, collectorKey, value, m.Sequence)
	if bus.WrongRevision(err) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists) {
		return false, nil // another was quicker
	}
	if err != nil {
		return false, fmt.Errorf("become the collector: %w", err)
	}
	return true, nil
}
