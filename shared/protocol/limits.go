package protocol

import "time"

// Limits of the wire, enforced by the gateway (bodies, ids) and by the
// connection to NATS (messages).
const (
	// MaxBodyBytes is the largest HTTP request body taken, in bytes. A NATS
	// server that carries less lowers it (see the gateway's body limit).
	MaxBodyBytes = 8 << 20
	// MaxMessageBytes is the largest NATS message that our own servers are
	// configured to carry, in bytes: a body or an answer, with its headers.
	MaxMessageBytes = 16 << 20
	// MessageOverheadBytes is kept free in a message for subject and headers.
	MessageOverheadBytes = 16 << 10
	// MaxSessionIDLength is the longest session id, in bytes.
	MaxSessionIDLength = 128
	// MaxRequestIDLength is the longest X-Request-ID taken, in bytes; longer
	// ones are replaced by one of our own.
	MaxRequestIDLength = 128
	// MaxOperationIDLength is the longest SessionOp.ID, in bytes; enforced by the
	// worker, whose journals keep them.
	MaxOperationIDLength = 32
	// BlobBytes is the size of the pieces in which file contents are stored,
	// in bytes: NATS carries 1 MiB a message unless configured for more.
	BlobBytes = 512 << 10
	// MaxCases is the most cases one evaluate request may carry.
	MaxCases = 10_000
)

// Times that both sides must agree on.
const (
	// HeartbeatInterval is how often a worker writes its heartbeat.
	HeartbeatInterval = 1 * time.Second
	// WorkerTTL is how long after its last heartbeat a worker counts as live.
	WorkerTTL = 3500 * time.Millisecond
	// AckWait is how long JetStream waits for an ack or an in-progress beat
	// before it gives a job to another worker.
	AckWait = 4 * time.Second
	// BeatInterval is how often a worker tells JetStream that a job is still
	// running. Less than half of AckWait, so that one lost beat does no harm.
	BeatInterval = 1500 * time.Millisecond
	// MaxDeliver is how often an evaluate job is handed to a worker before it
	// is given up, if workers began it each time. A delivery that was lost on its
	// way, or with a worker before it began, is none of the job's doing.
	MaxDeliver = 3
	// JobMaxAge is how long a job may stay in the stream at all: a net below
	// the deadlines, for jobs whose gateway died.
	JobMaxAge = 30 * time.Minute
)
