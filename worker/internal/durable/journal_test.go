package durable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A journal says after any number of changes what there is.
func TestJournalIsWhatWasStaged(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s.1")
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]Entry{}
	for step := range 400 {
		path := fmt.Sprintf("d/%d\xff.txt", random.IntN(40))
		if step%3 == 0 {
			path = fmt.Sprint("f", random.IntN(40))
		}
		var batch *Batch
		if _, ok := want[path]; ok && random.IntN(3) == 0 {
			delete(want, path)
			batch = j.Stage(nil, []string{path})
		} else {
			e := file(path, strings.Repeat("x", random.IntN(3000)))
			switch random.IntN(5) {
			case 0:
				e = Entry{Path: path, Kind: Link, Target: "../\xfe"}
			case 1:
				e = Entry{Path: path, Kind: Dir, Mode: 0o700}
			case 2:
				c, err := s.Put(t.Context(), strings.NewReader(strings.Repeat("y", random.IntN(9000))))
				if err != nil {
					t.Fatal(err)
				}
				e.SetContent(c)
			}
			want[path] = e
			batch = j.Stage([]Entry{e}, nil)
		}
		if step%7 != 0 || step%50 == 49 {
			if err := batch.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if step%50 == 49 {
			got := mustLoad(t, s, "s.1")
			compare(t, s, got, want)
		}
	}
	if n := stored(t, b.Manifests); n > maxChanges+1 {
		t.Errorf("%d messages in the journal, want %d at most", n, maxChanges+1)
	}
}

// Who claims a journal shuts out whoever had it.
func TestClaimFences(t *testing.T) {
	b := newBus(t)
	one, two := newStore(t, b, "one", time.Hour), newStore(t, b, "two", time.Hour)
	old := begin(t, one, "s")
	if err := old.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	next := mustLoad(t, two, "s")
	next.Begin(Identity{Session: "s", Created: 7, Epoch: 2})
	if current, err := old.Current(t.Context()); !current || err != nil {
		t.Fatalf("before the claim: current %v, %v", current, err)
	}
	if err := next.Claim().Wait(); err != nil {
		t.Fatal(err)
	}
	if current, err := old.Current(t.Context()); current || err != nil {
		t.Errorf("after the claim: current %v, %v", current, err)
	}
	if err := old.Stage([]Entry{file("a", "2")}, nil).Wait(); !errors.Is(err, ErrFenced) {
		t.Errorf("the old owner writes: %v, want ErrFenced", err)
	}
	if err := old.Stage([]Entry{file("a", "3")}, nil).Wait(); !errors.Is(err, ErrFenced) {
		t.Errorf("the old owner writes again: %v, want ErrFenced", err)
	}
	got := mustLoad(t, one, "s")
	if id, worker, _ := got.Last(); id.Epoch != 2 || worker != "two" {
		t.Errorf("last written by %s in epoch %d", worker, id.Epoch)
	}
	if e, _ := got.Entry("a"); string(e.Inline) != "1" {
		t.Errorf("a is %q", e.Inline)
	}
	// A claim in the same epoch, of a worker that was started anew, does it too.
	again := mustLoad(t, two, "s")
	again.Begin(Identity{Session: "s", Created: 7, Epoch: 2})
	if err := again.Claim().Wait(); err != nil {
		t.Fatal(err)
	}
	if err := next.Stage([]Entry{file("a", "2")}, nil).Wait(); !errors.Is(err, ErrFenced) {
		t.Errorf("the process before writes: %v, want ErrFenced", err)
	}
}

// Two who begin the same session: one of them has it.
func TestBeginFences(t *testing.T) {
	b := newBus(t)
	one, two := begin(t, newStore(t, b, "one", time.Hour), "s"), begin(t, newStore(t, b, "two", time.Hour), "s")
	if err := one.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := two.Stage([]Entry{file("a", "2")}, nil).Wait(); !errors.Is(err, ErrFenced) {
		t.Errorf("error %v, want ErrFenced", err)
	}
}

// Changes that come at once are written together.
func TestGroupCommit(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	if err := j.Stage(nil, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	want := map[string]Entry{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for n := range 20 {
				e := file(fmt.Sprint(i, "/", n), fmt.Sprint(i, n))
				mu.Lock()
				want[e.Path] = e
				mu.Unlock()
				if err := j.Stage([]Entry{e}, nil).Wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	compare(t, s, mustLoad(t, s, "s"), want)
	info, err := b.Manifests.Info(t.Context())
	if err != nil || info.State.LastSeq > 320 {
		t.Errorf("%d messages for 640 changes of 32 at a time (%v)", info.State.LastSeq, err)
	}
}

// A base that is too much for a message, and contents that are too much for a base.
func TestLargeBases(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	want := map[string]Entry{}
	var set []Entry
	for i := range 12_000 {
		e := file(fmt.Sprintf("directory/of/many/files/%d", i), strings.Repeat("z", i%100))
		want[e.Path] = e
		set = append(set, e)
	}
	if err := j.Stage(set, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	compare(t, s, mustLoad(t, s, "s"), want)
	if n := stored(t, b.Manifests); n != 1 {
		t.Errorf("%d messages in the journal, want the base", n)
	}
	if got := mustLoad(t, s, "s"); got.baseBytes > maxMessageBytes {
		t.Errorf("the base has %d bytes", got.baseBytes)
	}
	// Many changes at once become a base themselves.
	clear(want)
	for i := range set {
		set[i].Mode = 0o600
		want[set[i].Path] = set[i]
	}
	if err := j.Stage(set, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	compare(t, s, mustLoad(t, s, "s"), want)
}

func TestForkAndRemove(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := j.Fork(Identity{Session: fmt.Sprint("fork", i), Created: 9, Epoch: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := j.Fork(Identity{Session: "fork0", Created: 9, Epoch: 1}); !errors.Is(err, ErrFenced) {
		t.Errorf("a fork to a session that is there: %v, want ErrFenced", err)
	}
	if err := j.Stage([]Entry{file("a", "2")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if e, _ := mustLoad(t, s, fmt.Sprint("fork", i)).Entry("a"); string(e.Inline) != "1" {
			t.Errorf("fork %d has %q", i, e.Inline)
		}
	}
	stale := mustLoad(t, s, "s")
	if err := j.Stage([]Entry{file("a", "3")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := stale.Remove(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("removed by one who doesn't know the last change: %v, want ErrFenced", err)
	}
	if err := j.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Stage([]Entry{file("a", "4")}, nil).Wait(); err == nil {
		t.Error("a removed journal was written")
	}
	if n := stored(t, b.Manifests); n != 8 {
		t.Errorf("%d messages, want one of each fork", n)
	}
	begin(t, s, "s") // anew
}

// Of a format that this worker doesn't know it leaves a journal alone.
func TestUnknownVersion(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	if _, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: protocol.ManifestSubject("s"), Data: []byte(`{"v":2,"base":true}`), Header: nats.Header{headerBase: {"1"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "s"); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("load: %v", err)
	}
	if _, _, err := s.NewCollector().Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("collect: %v, want it to give up: it can't tell what is named", err)
	}
}
