package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Settings of the stream and buckets.
type Settings struct {
	// QueueLimit is how many jobs may wait or run in one queue (the shared one,
	// or one worker's own), or wait in one caller's line of the backlog, before the
	// gateway answers 429. 0, as workers have it, keeps what the streams have, and
	// creates them with DefaultQueueLimit.
	QueueLimit int64
	// BacklogLimit is how many jobs of all callers may wait in the backlog, 0 for
	// BacklogShares times QueueLimit; and BacklogBytes what they may take up, bytes,
	// 0 for DefaultBacklogBytes. Less where the server has less room.
	BacklogLimit, BacklogBytes int64
	// Retention is how long the record of a kept job stays after its last
	// change, and KeptBytes what all of them may take up, bytes; the oldest go
	// first. 0, as workers have it, keeps what the stream has.
	Retention time.Duration
	KeptBytes int64
	// Replicas is how many copies JetStream keeps; 0 counts as 1.
	Replicas int
	// StoreBytes is how many bytes contents of sessions may take up, so that
	// they leave room for jobs; 0 keeps what is set, and else sets no limit.
	StoreBytes int64
}

// DefaultQueueLimit is the queue limit of a stream that a worker created first.
const DefaultQueueLimit = 10_000

// maxConsumers is how many workers' own queues the stream may have, those of
// workers that are gone for less than a day included. A stream that names no
// number gets the NATS server's default, which is 1,000.
const maxConsumers = 100_000

// What a stream of results has that a worker created first.
const (
	DefaultRetention = time.Hour
	DefaultKeptBytes = 1 << 30
)

// hooksAge is how long a webhook is tried at most, and then some.
const hooksAge = 24 * time.Hour

// Bus is a NATS connection with the fleet's stream and buckets at hand.
type Bus struct {
	replicas int
	confirms confirms

	NC       *nats.Conn
	JS       jetstream.JetStream
	Jobs     jetstream.Stream
	Backlog  jetstream.Stream
	Kept     jetstream.Stream
	Sessions jetstream.KeyValue
	Workers  jetstream.KeyValue
	// Manifests and Blobs are what durable sessions consist of; Upkeep says
	// who looks after them.
	Manifests jetstream.Stream
	Blobs     jetstream.Stream
	Upkeep    jetstream.KeyValue
}

// Ensure creates or updates the stream, the shared consumer and the buckets,
// and returns them. It is idempotent and safe to call from many processes. A
// cluster that is still electing its leaders is waited for.
func Ensure(ctx context.Context, nc *nats.Conn, s Settings) (b *Bus, err error) {
	err = untilReady(ctx, ensureWait, ensurePause, func() error {
		b, err = ensure(ctx, nc, s)
		return err
	})
	return b, err
}

const (
	// ensureWait is how long a cluster may take to have leaders. Each stream and
	// consumer elects one for itself, which takes some 5 seconds where both are
	// new, and they are made one after the other.
	ensureWait = 2 * time.Minute
	// ensurePause is the time between attempts.
	ensurePause = 250 * time.Millisecond
)

// untilReady does something again for as long as JetStream is not ready for it.
func untilReady(ctx context.Context, wait, pause time.Duration, do func() error) error {
	deadline := time.Now().Add(wait)
	for {
		err := do()
		if err == nil || !notReady(err) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// notReady reports whether an error says that JetStream may do later what it
// can't now: there is no leader yet, or it is taking a stream over.
func notReady(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 503 ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrDisconnected) // its server was lost just now
}

func ensure(ctx context.Context, nc *nats.Conn, s Settings) (*Bus, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(16<<10))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	replicas := max(s.Replicas, 1)
	b := &Bus{NC: nc, JS: js, replicas: replicas}
	stream := jetstream.StreamConfig{
		Name:        protocol.JobsStream,
		Description: "evaluate and run jobs on their way to a worker",
		Subjects:    []string{protocol.JobsSubjects},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		// A full queue refuses the newest job, so that the gateway can say 429;
		// each queue is a subject and has the limit for itself.
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxAge:               protocol.JobMaxAge,
		MaxMsgSize:           protocol.MaxMessageBytes,
		Replicas:             replicas,
		AllowDirect:          true,
		Duplicates:           2 * time.Minute,
		MaxConsumers:         maxConsumers,
	}
	if s.QueueLimit > 0 {
		err = b.lower(ctx, protocol.JobsStream, s.QueueLimit, func(limit int64) error {
			stream.MaxMsgsPerSubject = limit
			b.Jobs, err = js.CreateOrUpdateStream(ctx, stream)
			return err
		})
	} else if b.Jobs, err = js.Stream(ctx, protocol.JobsStream); errors.Is(err, jetstream.ErrStreamNotFound) {
		stream.MaxMsgsPerSubject = DefaultQueueLimit
		b.Jobs, err = js.CreateOrUpdateStream(ctx, stream)
	}
	if err != nil {
		return nil, fmt.Errorf("create stream %s: %w", protocol.JobsStream, err)
	}
	for consumer, queue := range map[string]string{protocol.EvaluateConsumer: protocol.EvaluateQueue, protocol.BulkConsumer: protocol.BulkQueue} {
		if _, err := b.ensureConsumer(ctx, consumer, queue, 0); err != nil {
			return nil, err
		}
	}
	if err := b.ensureKept(ctx, s, replicas); err != nil {
		return nil, err
	}
	sessions := jetstream.KeyValueConfig{
		Bucket:      protocol.SessionsBucket,
		Description: "session to owning worker",
		Storage:     jetstream.FileStorage,
		History:     1,
		Replicas:    replicas,
	}
	if b.markersExpire() {
		sessions.LimitMarkerTTL = MarkerTTL
	}
	if b.Sessions, err = ensureBucket(ctx, js, sessions); err != nil {
		return nil, err
	}
	if b.Workers, err = ensureBucket(ctx, js, jetstream.KeyValueConfig{
		Bucket:      protocol.WorkersBucket,
		Description: "latest heartbeat of each worker",
		Storage:     jetstream.MemoryStorage,
		History:     1,
		TTL:         2 * protocol.WorkerTTL,
		Replicas:    replicas,
	}); err != nil {
		return nil, err
	}
	if err := b.ensureDurable(ctx, replicas, s.StoreBytes); err != nil {
		return nil, err
	}
	// Last: it makes do with the room that the others leave.
	if err := b.ensureBacklog(ctx, s, replicas); err != nil {
		return nil, err
	}
	return b, nil
}

// ensureKept creates or updates the streams of kept jobs and of webhooks.
func (b *Bus) ensureKept(ctx context.Context, s Settings, replicas int) (err error) {
	stream := jetstream.StreamConfig{
		Name:              protocol.KeptStream,
		Description:       "records and answers of kept jobs",
		Subjects:          []string{protocol.KeptSubjects},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardOld,
		MaxAge:            s.Retention,
		MaxBytes:          s.KeptBytes,
		MaxMsgSize:        protocol.MaxMessageBytes,
		Replicas:          replicas,
		AllowDirect:       true,
	}
	if s.Retention > 0 && s.KeptBytes > 0 {
		stream.Duplicates = min(2*time.Minute, s.Retention)
		b.Kept, err = b.createBounded(ctx, stream, leastKeptBytes)
	} else if b.Kept, err = b.JS.Stream(ctx, protocol.KeptStream); errors.Is(err, jetstream.ErrStreamNotFound) {
		stream.MaxAge, stream.MaxBytes = DefaultRetention, DefaultKeptBytes
		b.Kept, err = b.createBounded(ctx, stream, leastKeptBytes)
	}
	if err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.KeptStream, err)
	}
	if _, err := b.JS.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        protocol.HooksStream,
		Description: "webhooks to be delivered",
		Subjects:    []string{protocol.HooksSubjects},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		MaxAge:      hooksAge,
		Replicas:    replicas,
		Duplicates:  2 * time.Minute,
	}); err != nil {
		return fmt.Errorf("create stream %s: %w", protocol.HooksStream, err)
	}
	return nil
}

// leastKeptBytes is the smallest stream of results that is made, bytes.
const leastKeptBytes = 16 << 20

// createBounded creates or updates a stream, smaller than asked for where the
// server has no room to set so much aside.
func (b *Bus) createBounded(ctx context.Context, cfg jetstream.StreamConfig, least int64) (jetstream.Stream, error) {
	for {
		s, err := b.JS.CreateOrUpdateStream(ctx, cfg)
		if err == nil || !StoreFull(err) || cfg.MaxBytes/2 < least {
			return s, err
		}
		cfg.MaxBytes /= 2
	}
}

// WorkerConsumer creates or updates the consumer of one worker's own queue. It
// outlives a restart of the worker, not a worker that is gone for good.
// A worker may start while the stream is without a leader: see Ensure.
func (b *Bus) WorkerConsumer(ctx context.Context, worker string) (c jetstream.Consumer, err error) {
	err = untilReady(ctx, ensureWait, ensurePause, func() error {
		c, err = b.ensureConsumer(ctx, protocol.WorkerConsumer(worker), protocol.WorkerQueue(worker), 24*time.Hour)
		return err
	})
	return c, err
}

// EvaluateConsumer returns the consumer of the shared queue.
func (b *Bus) EvaluateConsumer(ctx context.Context) (jetstream.Consumer, error) {
	return b.Jobs.Consumer(ctx, protocol.EvaluateConsumer)
}

func (b *Bus) ensureConsumer(ctx context.Context, name, subject string, inactive time.Duration) (jetstream.Consumer, error) {
	c, err := b.Jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:           name,
		FilterSubject:     subject,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           protocol.AckWait,
		MaxDeliver:        protocol.MaxDeliver,
		MaxAckPending:     -1, // what may be in flight is bounded by the workers' free slots
		MaxWaiting:        16 << 10,
		InactiveThreshold: inactive,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", name, err)
	}
	return c, nil
}

// ensureBucket creates a bucket, or updates it when its settings differ.
func ensureBucket(ctx context.Context, js jetstream.JetStream, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := js.CreateOrUpdateKeyValue(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("create bucket %s: %w", cfg.Bucket, err)
	}
	return kv, nil
}

// QueueFull reports whether a publish failed because the queue, or its stream, is
// at its limit; LimitOf says at which.
func QueueFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == errCodeStoreFailed
}

// errCodeStoreFailed is JetStream's code for a message the stream could not
// take: at our settings, it or the subject is at a limit. Source: nats-server
// server/errors.json, JSStreamStoreFailedF.
const errCodeStoreFailed = 10077

// Limit is one of a stream.
type Limit int

// Limits of a stream.
const (
	NoLimit      Limit = iota
	SubjectLimit       // messages of one subject
	StreamLimit        // messages
	ByteLimit          // bytes
)

// LimitOf returns which limit it was that a publish failed for; see QueueFull.
func LimitOf(err error) Limit {
	var api *jetstream.APIError
	if !QueueFull(err) || !errors.As(err, &api) {
		return NoLimit
	}
	// They share a code. Source: nats-server server/store.go.
	switch api.Description {
	case "maximum messages per subject exceeded":
		return SubjectLimit
	case "maximum bytes exceeded":
		return ByteLimit
	}
	return StreamLimit
}

// MaxPayload is the largest message, in bytes, that the connected server takes
// and we send.
func MaxPayload(nc *nats.Conn) int64 {
	return min(nc.MaxPayload(), protocol.MaxMessageBytes)
}
