package durable

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A journal that is loaded knows whose changes it has, also after a new base.
func TestOperationsAreRemembered(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	begun := time.Now()
	const all = 2*maxChanges + 10 // two bases
	id := func(n int) string { return fmt.Sprintf("%016d", n) }
	for n := range all {
		set := []Entry{file("f", fmt.Sprint(n))}
		if n%10 == 9 { // a job's changes are nobody's
			if err := j.Stage(set, nil).Wait(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := j.Stage(set, nil, id(n)).Wait(); err != nil {
			t.Fatal(err)
		}
		if n == maxChanges/2 || n == maxChanges+1 || n == all-1 {
			loaded := mustLoad(t, s, "s")
			for _, known := range []*Journal{j, loaded} {
				if known.Forgot(begun.Add(-time.Hour)) || known.Has("") || known.Has(id(n+1)) {
					t.Errorf("after %d: something is forgotten, or known that isn't there", n)
				}
				for i := range n + 1 {
					if known.Has(id(i)) != (i%10 != 9) {
						t.Errorf("after %d: operation %d: %v", n, i, known.Has(id(i)))
					}
				}
			}
		}
	}
}

// What a journal remembers is bounded; that it forgot something it knows.
func TestOperationsAreForgotten(t *testing.T) {
	var o operations
	at := time.Unix(1_700_000_000, 0)
	for n := range maxOperations + 10 {
		o.add(fmt.Sprint(n), at.Add(time.Duration(n)*time.Second))
		o.add(fmt.Sprint(n), at.Add(time.Hour)) // known already
	}
	if len(o.latest) != maxOperations || o.has("9") || !o.has("10") || !o.has(fmt.Sprint(maxOperations+9)) {
		t.Errorf("%d are known, the first is %v", len(o.latest), o.latest[0])
	}
	j := &Journal{operations: o}
	for since, want := range map[time.Duration]bool{-time.Hour: true, 9 * time.Second: true, 9*time.Second + 1: false} {
		if got := j.Forgot(at.Add(since)); got != want {
			t.Errorf("forgot something that was stored after %v: %v, want %v", since, got, want)
		}
	}

	// A base has them, whose id is short, in some KB.
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	stored := begin(t, s, "s")
	var ids []string
	for range maxOperations + 1 {
		ids = append(ids, protocol.NewOperationID())
	}
	before := time.Now()
	if err := stored.Stage(nil, nil, ids...).Wait(); err != nil {
		t.Fatal(err)
	}
	loaded := mustLoad(t, s, "s")
	if loaded.baseBytes > 3<<10 {
		t.Errorf("a base of operations alone has %d bytes", loaded.baseBytes)
	}
	if loaded.Has(ids[0]) || !loaded.Has(ids[1]) || !loaded.Forgot(before) || loaded.Forgot(time.Now().Add(time.Hour)) {
		t.Errorf("known of the base: the first %v, the second %v", loaded.Has(ids[0]), loaded.Has(ids[1]))
	}
}

// A base has what was staged while it was made, and so it has whose changes these are.
func TestBaseHasOperationsOfItsEntries(t *testing.T) {
	s := newStore(t, newBus(t), "w", time.Hour)
	j := begin(t, s, "s")
	j.Stage([]Entry{file("a", "1")}, nil, "one")
	j.next = nil // as if it were being written
	j.Stage([]Entry{file("b", "2")}, nil, "two")
	j.mu.Lock()
	data, err := j.encodeBase(t.Context(), message{Version: messageVersion})
	j.mu.Unlock()
	m, derr := decodeMessage(data)
	if err != nil || derr != nil || len(m.Set) != 2 || !slices.Equal(m.Operations, []string{"one", "two"}) {
		t.Errorf("base %s, %v, %v; want both changes and both operations", data, err, derr)
	}
}

// A journal of a worker that knew of no ids loads as before, and doesn't know whose
// its changes are. Who knows of none ignores them.
func TestJournalWithoutOperations(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	old := func(text string, header nats.Header) {
		t.Helper()
		if _, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: protocol.ManifestSubject("s"), Data: []byte(text), Header: header}); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now()
	old(`{"v":1,"session":"s","created":7,"epoch":1,"worker":"old","base":true,"set":[{"p":"a","s":1,"i":"MQ=="}]}`, nats.Header{headerBase: {"1"}})
	old(`{"v":1,"session":"s","created":7,"epoch":1,"worker":"old","set":[{"p":"b","s":1,"i":"Mg=="}]}`, nil)
	j := mustLoad(t, s, "s")
	compare(t, s, j, map[string]Entry{"a": {Path: "a", Size: 1, Inline: []byte("1")}, "b": {Path: "b", Size: 1, Inline: []byte("2")}})
	after := time.Now().Add(time.Hour)
	if !j.Forgot(before.Add(-time.Hour)) || j.Forgot(after) {
		t.Error("it believes to know whose the changes are")
	}
	j.Begin(Identity{Session: "s", Created: 7, Epoch: 2})
	j.changes = maxChanges
	for _, id := range []string{"one", "two"} { // a base, and a change
		if err := j.Stage([]Entry{file(id, "x")}, nil, id).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	j = mustLoad(t, s, "s")
	if !j.Has("one") || !j.Has("two") || !j.Forgot(before.Add(-time.Hour)) || j.Forgot(after) {
		t.Errorf("after a new base: one %v, two %v, forgot %v", j.Has("one"), j.Has("two"), j.Forgot(before.Add(-time.Hour)))
	}
	last, err := s.last(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	var known struct {
		Version int         `json:"v"`
		Set     []wireEntry `json:"set"`
	}
	if err := json.Unmarshal(last.Data, &known); err != nil || known.Version != 1 || len(known.Set) != 1 {
		t.Errorf("read as before: %+v, %v", known, err)
	}
}
