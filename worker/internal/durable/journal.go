package durable

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// InlineBytes is the largest content kept in the journal itself, in bytes.
	InlineBytes = 4 << 10
	// baseInlineBytes is how much content a base holds in all; more is moved
	// into blobs, the largest first, so that a base stays cheap to write.
	baseInlineBytes = 64 << 10
	// maxChanges is how many messages may follow a base: each costs whoever
	// takes the session over a round trip.
	maxChanges = 64
	// minChangeBytes is how many bytes of changes may follow a base, however
	// small that is.
	minChangeBytes = 128 << 10
	// maxDeadBytes is how many bytes of blobs may be named by messages that
	// later ones have overtaken.
	maxDeadBytes = 32 << 20
	// maxMessageBytes is the largest message; more goes into blobs.
	maxMessageBytes = protocol.BlobBytes
	// headerBase marks a base, so that it is known for one without its text.
	headerBase = "Gf-Base"
	// headerRollup makes a message replace all before it of its subject.
	headerRollup = "Nats-Rollup"
)

// Identity names a session and the epoch in which its journal is written.
type Identity struct {
	Session string
	// Created tells sessions of one id apart, in nanoseconds since 1970: it is
	// that of the session's record.
	Created int64
	Epoch   uint64
}

// Journal is a session's journal as its owner has it. Its methods may be called
// from any goroutine.
type Journal struct {
	store *Store

	mu sync.Mutex // guards what follows
	id Identity   // of the messages to come
	// last is what the last message said.
	last Identity
	// worker is who wrote it.
	worker  string
	entries map[string]Entry
	// operations are those whose changes are in entries.
	operations operations
	// sequence is the last message's; 0 if there is none.
	sequence uint64
	written  time.Time // when
	// based says that there is a base for changes to follow.
	based bool
	// What has followed the base.
	changes                int
	changeBytes, baseBytes int
	deadBytes              int64
	// next is what waits to be written; flushing says that somebody is writing
	// and will look for it.
	next     *Batch
	flushing bool
	broken   error // nothing can be written any more
}

// drop and put change the entries; j.mu is held, or nobody else has j.
func (j *Journal) drop(path string) {
	if old, ok := j.entries[path]; ok {
		if len(old.Blobs) > 0 {
			j.deadBytes += old.Size
		}
		delete(j.entries, path)
	}
}

func (j *Journal) put(e Entry) {
	j.drop(e.Path)
	j.entries[e.Path] = e
}

// Last says who wrote last, in which epoch, and when.
func (j *Journal) Last() (id Identity, worker string, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last, j.worker, j.written
}

// Begin says in whose name the messages to come are written.
func (j *Journal) Begin(id Identity) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.id = id
}

// Reset makes the next message a base without any of the entries so far.
func (j *Journal) Reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries, j.operations, j.based = map[string]Entry{}, operations{}, false
}

// Entry returns what there is at a path.
func (j *Journal) Entry(path string) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[path]
	return e, ok
}

// Entries returns all, by path.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sorted()
}

func (j *Journal) sorted() []Entry {
	all := make([]Entry, 0, len(j.entries))
	for _, e := range j.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// Missing returns the paths of all entries that are not in a set.
func (j *Journal) Missing(seen map[string]struct{}) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var missing []string
	for path := range j.entries {
		if _, ok := seen[path]; !ok {
			missing = append(missing, path)
		}
	}
	return missing
}

// Current reports whether the journal's last message is the one that this
// owner knows; nothing may be staged.
func (j *Journal) Current(ctx context.Context) (bool, error) {
	j.mu.Lock()
	sequence, session := j.sequence, j.id.Session
	j.mu.Unlock()
	if j.store.Bus.Confirms() {
		// A server that was frozen may not know of those who wrote since.
		return j.store.Bus.Confirm(ctx, bus.ManifestsMarker, protocol.ManifestSubject(session), sequence)
	}
	m, err := j.store.last(ctx, session)
	if errors.Is(err, bus.ErrNoMessage) {
		return sequence == 0, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at journal of session %s: %w", session, err)
	}
	return m.Sequence == sequence, nil
}

// Broken returns why nothing can be written any more, or nil.
func (j *Journal) Broken() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Fork writes a new session's first base: the entries of this one as stored or
// staged; wait for what is staged before.
func (j *Journal) Fork(id Identity) error {
	copied := &Journal{store: j.store, entries: map[string]Entry{}, id: id}
	for _, e := range j.Entries() {
		copied.entries[e.Path] = e
	}
	return copied.Stage(nil, nil).Wait()
}

// Remove removes a session's journal, unless somebody has written to it since
// it was loaded (ErrFenced).
func (j *Journal) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	j.mu.Lock()
	id, sequence := j.last, j.sequence
	j.broken = ErrNone
	j.mu.Unlock()
	if sequence == 0 {
		return nil
	}
	data, err := json.Marshal(message{Version: messageVersion, Session: id.Session, Created: id.Created, Epoch: id.Epoch, Worker: j.store.Worker, Gone: true})
	if err != nil {
		return fmt.Errorf("encode the end of a journal: %w", err)
	}
	ack, err := j.store.publish(ctx, &nats.Msg{
		Subject: protocol.ManifestSubject(id.Session), Data: data,
		Header: nats.Header{headerRollup: {"sub"}, headerBase: {"1"}},
	}, sequence)
	if err != nil {
		return fmt.Errorf("remove journal of session %s: %w", id.Session, err)
	}
	// The message that says so has done its work: nobody can write any more who
	// knows an older one. If this fails it stays, and counts as no journal.
	if err := j.store.Bus.Manifests.DeleteMsg(ctx, ack.Sequence); err != nil && !gone(err) {
		return fmt.Errorf("remove the end of the journal of session %s: %w", id.Session, err)
	}
	return nil
}
