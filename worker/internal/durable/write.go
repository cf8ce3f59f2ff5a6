package durable

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

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
