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

// Batch is changes that are written together.
type Batch struct {
	journal *Journal
	set     map[string]Entry
	deleted map[string]struct{}
	// operations are the ids of those that made the changes, as far as they have one.
	operations []string
	claim      bool // to be written although it may change nothing
	done       chan struct{}
	err        error
}

// Load reads a session's journal. If there is none it returns an empty one, to
// which the first change is the base, and an error that is ErrNone.
func (s *Store) Load(ctx context.Context, session string) (*Journal, error) {
	begun := time.Now()
	j := &Journal{store: s, entries: map[string]Entry{}}
	j.id.Session = session
	subject := protocol.ManifestSubject(session)
	last, err := s.last(ctx, session)
	if errors.Is(err, bus.ErrNoMessage) {
		return j, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read journal of session %s: %w", session, err)
	}
	if last.Header.Get(headerBase) != "" {
		if err = j.take(ctx, last); err != nil {
			return nil, err
		}
	}
	for j.sequence < last.Sequence {
		m, err := s.next(ctx, subject, j.sequence+1)
		if errors.Is(err, bus.ErrNoMessage) { // removed meanwhile
			return nil, fmt.Errorf("read journal of session %s: %w", session, ErrFenced)
		}
		if err != nil {
			return nil, fmt.Errorf("read journal of session %s: %w", session, err)
		}
		if err := j.take(ctx, m); err != nil {
			return nil, err
		}
	}
	if !j.based {
		return j, ErrNone
	}
	s.Metrics.loaded(time.Since(begun))
	return j, nil
}

// last reads a journal's last message; that there is none is certain.
func (s *Store) last(ctx context.Context, session string) (bus.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return s.Bus.LastConfirmed(ctx, protocol.ManifestsStream, bus.ManifestsMarker, protocol.ManifestSubject(session), func(bus.Message) bool { return false })
}

func (s *Store) next(ctx context.Context, subject string, from uint64) (bus.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return bus.Next(ctx, s.Bus.NC, protocol.ManifestsStream, subject, from)
}

// take reads the next message of the journal.
func (j *Journal) take(ctx context.Context, raw bus.Message) error {
	fail := func(err error) error {
		return fmt.Errorf("message %d in the journal of session %s: %w", raw.Sequence, j.id.Session, err)
	}
	m, err := decodeMessage(raw.Data)
	if err != nil {
		return fail(err)
	}
	if m.Base || m.Gone {
		j.entries, j.operations, j.based = map[string]Entry{}, operations{forgotten: m.Forgotten}, m.Base
		j.changes, j.changeBytes, j.baseBytes, j.deadBytes = 0, 0, len(raw.Data), 0
	} else {
		if !j.based {
			return fail(errors.New("changes without a base"))
		}
		j.changes++
		j.changeBytes += len(raw.Data)
	}
	if len(m.Pieces) > 0 {
		if m.Set, err = j.store.readPieces(ctx, m); err != nil {
			return fail(err)
		}
	}
	for i := range m.Delete {
		j.drop(m.Delete[i].Path + string(m.Delete[i].RawPath))
	}
	for i := range m.Set {
		e, err := m.Set[i].entry()
		if err != nil {
			return fail(err)
		}
		j.put(e)
	}
	if m.Operations == nil && !m.Gone {
		j.operations.forget(raw.Time) // written by a worker that knew of none
	}
	for _, id := range m.Operations {
		j.operations.add(id, raw.Time)
	}
	j.last = Identity{Session: m.Session, Created: m.Created, Epoch: m.Epoch}
	j.worker, j.sequence, j.written = m.Worker, raw.Sequence, raw.Time
	return nil
}

func (s *Store) readPieces(ctx context.Context, m message) (set []wireEntry, err error) {
	data := make([]byte, 0, m.Size)
	for _, p := range m.Pieces {
		if len(p) != len(Digest{}) {
			return nil, fmt.Errorf("digest of %d bytes", len(p))
		}
		piece, err := s.GetBlob(ctx, Digest(p))
		if err != nil {
			return nil, err
		}
		data = append(data, piece...)
	}
	return set, json.Unmarshal(data, &set)
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

// Stage notes changes, in the order of its calls, and the ids of the operations
// that made them; they are stored together, when Wait of the batch says so.
// Contents must be stored before.
func (j *Journal) Stage(set []Entry, deleted []string, operations ...string) *Batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.next
	if b == nil {
		b = &Batch{journal: j, set: map[string]Entry{}, deleted: map[string]struct{}{}, done: make(chan struct{})}
		j.next = b
	}
	for _, path := range deleted {
		j.drop(path)
		delete(b.set, path)
		b.deleted[path] = struct{}{}
	}
	for _, e := range set {
		j.put(e)
		delete(b.deleted, e.Path)
		b.set[e.Path] = e
	}
	for _, id := range operations {
		if id != "" {
			j.operations.add(id, time.Now())
			b.operations = append(b.operations, id)
		}
	}
	return b
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

// Claim stages a message that changes nothing but who may write.
func (j *Journal) Claim() *Batch {
	b := j.Stage(nil, nil)
	b.claim = true
	return b
}

// Staged returns the batch that holds all that was staged and isn't stored yet;
// nil if there is nothing.
func (j *Journal) Staged() *Batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next == nil && j.flushing {
		j.next = &Batch{journal: j, set: map[string]Entry{}, deleted: map[string]struct{}{}, done: make(chan struct{})}
	}
	return j.next
}

// Wait returns when the batch is stored, or an error if it may not be: then
// nothing more can be written, and the journal has to be loaded again to know.
// Changes that several callers wait for are written in one message.
func (b *Batch) Wait() error {
	j := b.journal
	j.mu.Lock()
	if j.flushing {
		j.mu.Unlock()
		<-b.done
		return b.err
	}
	j.flushing = true
	for j.next != nil {
		batch := j.next
		j.next = nil
		j.flush(batch)
	}
	j.flushing = false
	j.mu.Unlock()
	<-b.done // it may have been written by the one before
	return b.err
}

// flush writes a batch; j.mu is held, but not while it writes.
func (j *Journal) flush(b *Batch) {
	defer close(b.done)
	if j.broken != nil {
		if b.err = j.broken; errors.Is(b.err, ErrDoubt) { // this one isn't stored, for certain
			b.err = fmt.Errorf("what comes after a change that may be lost isn't written: %v", j.broken)
		}
		return
	}
	if len(b.set) == 0 && len(b.deleted) == 0 && j.based && !b.claim {
		return // somebody only waited for those before
	}
	if b.err = j.write(b); b.err != nil {
		j.broken = b.err
	}
}

func (j *Journal) write(b *Batch) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*opTimeout)
	defer cancel()
	m := message{Version: messageVersion, Session: j.id.Session, Created: j.id.Created, Epoch: j.id.Epoch, Worker: j.store.Worker}
	var data []byte
	var err error
	m.Base = !j.based || j.changes >= maxChanges || j.changeBytes > max(minChangeBytes, j.baseBytes) || j.deadBytes > maxDeadBytes
	if !m.Base {
		for _, e := range b.set {
			m.Set = append(m.Set, e.wire())
		}
		m.Operations = append([]string{}, b.operations...)
		for path := range b.deleted {
			var w wireEntry
			w.Path, w.RawPath = wirePath(path)
			m.Delete = append(m.Delete, w)
		}
		if data, err = json.Marshal(m); err != nil {
			return fmt.Errorf("encode changes: %w", err)
		}
		m.Base = len(data) > maxMessageBytes
	}
	msg := &nats.Msg{Subject: protocol.ManifestSubject(j.id.Session), Header: nats.Header{}}
	if m.Base {
		// What others stage meanwhile is in it too, if they were quick; it
		// holds for them as soon as their own batch does.
		if data, err = j.encodeBase(ctx, m); err != nil {
			return err
		}
		msg.Header.Set(headerBase, "1")
		msg.Header.Set(headerRollup, "sub")
	}
	msg.Data = data
	id, sequence := j.id, j.sequence
	j.mu.Unlock()
	begun := time.Now()
	ack, err := j.store.publish(ctx, msg, sequence)
	took := time.Since(begun)
	j.mu.Lock()
	if err != nil {
		return fmt.Errorf("write journal of session %s: %w", id.Session, err)
	}
	j.store.Metrics.put(journalPut, len(data), took)
	j.sequence, j.written, j.last, j.worker = ack.Sequence, begun, id, j.store.Worker
	if m.Base {
		j.based, j.changes, j.changeBytes, j.baseBytes, j.deadBytes = true, 0, 0, len(data), 0
	} else {
		j.changes++
		j.changeBytes += len(data)
	}
	return nil
}

// encodeBase encodes all entries, with contents and itself moved into blobs
// where they are too much; j.mu is held, but not while blobs are stored.
func (j *Journal) encodeBase(ctx context.Context, m message) ([]byte, error) {
	if err := j.spill(ctx); err != nil {
		return nil, err
	}
	m.Base, m.Set, m.Delete = true, make([]wireEntry, 0, len(j.entries)), nil
	for _, e := range j.sorted() {
		m.Set = append(m.Set, e.wire())
	}
	m.Operations, m.Forgotten = j.operations.ids(), j.operations.forgotten
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode base: %w", err)
	}
	if len(data) <= maxMessageBytes {
		return data, nil
	}
	set, err := json.Marshal(m.Set)
	if err != nil {
		return nil, fmt.Errorf("encode base: %w", err)
	}
	m.Set, m.Size = nil, int64(len(set))
	j.mu.Unlock()
	defer j.mu.Lock()
	for piece := range slices.Chunk(set, protocol.BlobBytes) {
		d, err := j.store.PutBlob(ctx, piece)
		if err != nil {
			return nil, err
		}
		m.Pieces = append(m.Pieces, d[:])
	}
	return json.Marshal(m)
}

// spill moves the largest contents out of the journal until the rest is little
// enough for a base.
func (j *Journal) spill(ctx context.Context) error {
	var inline []Entry
	total := 0
	for _, e := range j.entries {
		if len(e.Inline) > 0 {
			inline = append(inline, e)
			total += len(e.Inline)
		}
	}
	if total <= baseInlineBytes {
		return nil
	}
	slices.SortFunc(inline, func(a, b Entry) int { return len(b.Inline) - len(a.Inline) })
	// To half, so that the next base doesn't have to do it again.
	n := 0
	for ; n < len(inline) && total > baseInlineBytes/2; n++ {
		total -= len(inline[n].Inline)
	}
	j.mu.Unlock()
	var err error
	for i := range inline[:n] {
		var d Digest
		if d, err = j.store.PutBlob(ctx, inline[i].Inline); err != nil {
			break
		}
		inline[i].Blobs = []Digest{d}
	}
	j.mu.Lock()
	if err != nil {
		return err
	}
	for _, e := range inline[:n] {
		if now, ok := j.entries[e.Path]; ok && len(now.Inline) > 0 && &now.Inline[0] == &e.Inline[0] {
			e.Inline = nil
			j.entries[e.Path] = e
		}
	}
	return nil
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
