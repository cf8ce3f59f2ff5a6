package protocol

import (
	"crypto/sha256"
	"encoding/hex"
)

// Asynchronous jobs without a session's owner wait in a stream of their own, and
// come to the bulk queue when it is their callers' turn: one gateway, the feeder,
// moves them. Their messages are those of the bulk queue.
const (
	// BacklogStream is where they wait.
	BacklogStream = "BACKLOG"
	backlogPrefix = "gf.backlog."
	// BacklogSubjects matches all of its subjects, one a caller.
	BacklogSubjects = backlogPrefix + "*"
	// BacklogFree is where a gateway says that it feeds no longer, so that another
	// begins at once. Only a hint: the UPKEEP bucket counts.
	BacklogFree = "gf.feeder.free"
	// BacklogLine is where the feeder is asked about a caller's line, with a
	// LineRequest; it replies with a Line.
	BacklogLine = "gf.feeder.line"
	// FeederKey is the key of the UPKEEP bucket that names the feeder.
	FeederKey = "feeder"
)

// BacklogSubject is where the jobs of a caller wait. Callers may be any text, so
// it has a digest.
func BacklogSubject(caller string) string {
	sum := sha256.Sum256([]byte(caller))
	return backlogPrefix + hex.EncodeToString(sum[:16])
}

// LineRequest asks the feeder about a caller's line, or to keep room in it for a
// job that is about to be stored.
type LineRequest struct {
	// Subject is the caller's, see BacklogSubject.
	Subject string `json:"subject"`
	// Job is the id of a job of so many Bytes; "" if there is none.
	Job   string `json:"job,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
}

// Line is what the feeder knows of a caller's line and of the backlog.
type Line struct {
	// Refused says that the line has no room for so many bytes.
	Refused bool `json:"refused,omitempty"`
	// Jobs and Bytes wait in the line, those that room is kept for included;
	// MaxJobs and MaxBytes are its limits, 0 for none.
	Jobs     int64 `json:"jobs"`
	Bytes    int64 `json:"bytes"`
	MaxJobs  int64 `json:"max_jobs,omitempty"`
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// All is how many jobs wait in the lines of so many Callers.
	All     int64 `json:"all"`
	Callers int64 `json:"callers"`
	// PerSecond is how many jobs had their turn, over the last seconds.
	PerSecond float64 `json:"per_second"`
}
