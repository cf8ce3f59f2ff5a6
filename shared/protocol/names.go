package protocol

import "strings"

// Streams and buckets.
const (
	// JobsStream is the work-queue stream of evaluate and run jobs.
	JobsStream = "JOBS"
	// EvaluateConsumer is the durable consumer that all workers share.
	EvaluateConsumer = "evaluate"
	// BulkConsumer is the durable consumer of the bulk queue, which workers pull
	// from while nothing else waits.
	BulkConsumer = "bulk"
	// SessionsBucket maps a session's key (see SessionKey) to a SessionRecord.
	SessionsBucket = "SESSIONS"
	// WorkersBucket maps a worker's id to its latest Heartbeat.
	WorkersBucket = "WORKERS"
	// ConfirmToken is no worker's, session's or job's id. In place of one it names
	// what is written only to show that what was read is still so.
	ConfirmToken = "="
	// ManifestsStream holds what durable sessions consist of: a journal for
	// each, its subject ManifestSubject.
	ManifestsStream = "MANIFESTS"
	// BlobsStream holds file contents under their digests, see BlobSubject.
	BlobsStream = "BLOBS"
	// UpkeepBucket says which worker looks after what the fleet stores, and which
	// gateway feeds the bulk queue.
	UpkeepBucket = "UPKEEP"
)

// Subjects.
const (
	jobsPrefix = "gf.jobs."
	// JobsSubjects matches every queue of the JOBS stream.
	JobsSubjects = jobsPrefix + ">"
	// EvaluateQueue is the shared queue of evaluate jobs without a session.
	EvaluateQueue = jobsPrefix + "evaluate"
	// BulkQueue is the queue of evaluate jobs without a session that nobody sits
	// and waits for: batches, and asynchronous jobs whose turn it is.
	BulkQueue = jobsPrefix + "bulk"
	// CancelAll matches the cancellation of any job.
	CancelAll = "gf.cancel.*"
	// ResendAll matches every ResendSubject.
	ResendAll = "gf.resend.*"
	// ReplyPrefixAll is the subject under which all gateways get their results.
	ReplyPrefixAll = "gf.reply."
	// MaxDeliveriesAdvisories matches what JetStream says when a job of the
	// stream was delivered MaxDeliver times without an ack.
	MaxDeliveriesAdvisories = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + JobsStream + ".*"
)

const (
	manifestPrefix = "gf.manifest."
	// ManifestSubjects matches the journals of all sessions.
	ManifestSubjects = manifestPrefix + "*"
	blobPrefix       = "gf.blob."
	// BlobSubjects matches all blobs.
	BlobSubjects = blobPrefix + "*"
)

// ManifestSubject is the journal of a session.
func ManifestSubject(session string) string { return manifestPrefix + SessionKey(session) }

// BlobSubject is where the content with a digest (SHA-256, in hexadecimal) is.
func BlobSubject(digest string) string { return blobPrefix + digest }

// WorkerQueue is the queue of the jobs that only this worker may run: those of
// the sessions it owns.
func WorkerQueue(worker string) string { return jobsPrefix + "worker." + worker }

// WorkerConsumer is the durable consumer of WorkerQueue.
func WorkerConsumer(worker string) string { return "worker-" + worker }

// QueueConsumer is the durable consumer of a queue.
func QueueConsumer(queue string) string {
	switch queue {
	case EvaluateQueue:
		return EvaluateConsumer
	case BulkQueue:
		return BulkConsumer
	}
	return WorkerConsumer(LastToken(queue))
}

// CancelSubject is where the gateway says that nobody waits for a job any more.
func CancelSubject(job string) string { return "gf.cancel." + job }

// ResendSubject is where a gateway asks all workers to send it again what they sent
// of late: the results of the jobs whose ids the message has, one a line, or all.
func ResendSubject(gateway string) string { return "gf.resend." + gateway }

// ReplyPrefix is the subject under which one gateway gets its results.
func ReplyPrefix(gateway string) string { return ReplyPrefixAll + gateway + "." }

// ReplySubject is where the result of a job goes.
func ReplySubject(gateway, job string) string { return ReplyPrefix(gateway) + job }

// LastToken is the last token of a subject: the job id of a reply or a cancel.
func LastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Session operations, the last token of SessionSubject.
const (
	OpRead   = "read"
	OpWrite  = "write"
	OpDelete = "delete"
	OpRename = "rename"
	OpFork   = "fork"
)

// SessionPrefix is the subject group of a worker's session operations.
func SessionPrefix(worker string) string { return "gf.session." + worker }

// SessionSubject is where a session operation is asked of the owning worker.
func SessionSubject(worker, op string) string { return SessionPrefix(worker) + "." + op }

// ReleaseSubject is where a worker is asked to let go of a session that another
// one owns now, see Release.
func ReleaseSubject(worker string) string { return "gf.release." + worker }

// SessionKey turns a session id into a key of the SESSIONS bucket. Keys can't
// start, end or double with a dot, and session ids have no '='.
func SessionKey(id string) string { return strings.ReplaceAll(id, ".", "=") }

// SessionOfKey is the reverse of SessionKey.
func SessionOfKey(key string) string { return strings.ReplaceAll(key, "=", ".") }
