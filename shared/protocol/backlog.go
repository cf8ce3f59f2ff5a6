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
	// FeederKey is the key of the UPKEEP bucket that names the feeder.
	FeederKey = "feeder"
)

// BacklogSubject is where the jobs of a caller wait. Callers may be any text, so
// it has a digest.
func BacklogSubject(caller string) string {
	sum := sha256.Sum256([]byte(caller))
	return backlogPrefix + hex.EncodeToString(sum[:16])
}
