package durable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

func newBus(t testing.TB) *bus.Bus {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(context.Background(), nc, bus.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newStore(t testing.TB, b *bus.Bus, worker string, grace time.Duration) *Store {
	t.Helper()
	s, err := New(Config{Bus: b, Worker: worker, Grace: grace, Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustLoad(t testing.TB, s *Store, session string) *Journal {
	t.Helper()
	j, err := s.Load(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// begin returns the journal of a new session.
func begin(t testing.TB, s *Store, session string) *Journal {
	t.Helper()
	j, err := s.Load(t.Context(), session)
	if !errors.Is(err, ErrNone) {
		t.Fatalf("load: %v, want ErrNone", err)
	}
	j.Begin(Identity{Session: session, Created: 7, Epoch: 1})
	return j
}

func file(path, content string) Entry {
	return Entry{Path: path, Mode: 0o644, MTime: 5, Size: int64(len(content)), Inline: []byte(content)}
}

func stored(t testing.TB, s jetstream.Stream) uint64 {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

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

// compare holds a journal's entries against others, contents by what they are.
func compare(t *testing.T, s *Store, j *Journal, want map[string]Entry) {
	t.Helper()
	got := j.Entries()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for _, e := range got {
		w := want[e.Path]
		a, b := content(t, s, e), content(t, s, w)
		e.Inline, e.Blobs, w.Inline, w.Blobs = nil, nil, nil, nil
		if !reflect.DeepEqual(e, w) || !bytes.Equal(a, b) {
			t.Fatalf("%q is %+v (%d bytes), want %+v (%d bytes)", e.Path, e, len(a), w, len(b))
		}
	}
}

func content(t *testing.T, s *Store, e Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Get(t.Context(), e.Content(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestContents(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, InlineBytes, InlineBytes + 1, protocol.BlobBytes, protocol.BlobBytes + 1, 3 * protocol.BlobBytes, 5*protocol.BlobBytes + 17} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		c, err := s.Put(t.Context(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if c.Size != int64(size) || (size <= InlineBytes) != (len(c.Blobs) == 0) {
			t.Errorf("%d bytes: size %d, %d blobs", size, c.Size, len(c.Blobs))
		}
		var got bytes.Buffer
		if err := s.Get(t.Context(), c, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes: got %d others, %v", size, got.Len(), err)
		}
		for name, other := range map[string][]byte{"the same": data, "longer": append(slices.Clone(data), 1), "shorter": data[:max(0, size-1)], "changed": flip(data)} {
			same, err := c.Same(bytes.NewReader(other))
			if err != nil || same != bytes.Equal(other, data) {
				t.Errorf("%d bytes, %s: same %v, %v", size, name, same, err)
			}
		}
	}
	before, err := b.Blobs.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(make([]byte, 3*protocol.BlobBytes))); err != nil {
		t.Fatal(err)
	}
	after, err := b.Blobs.Info(t.Context())
	if err != nil || after.State.LastSeq != before.State.LastSeq+1 && after.State.Msgs != before.State.Msgs+1 {
		t.Errorf("three pieces of zeros are %d messages, want one (%v)", after.State.Msgs-before.State.Msgs, err)
	}
	broken := errors.New("broken disk")
	if _, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, protocol.BlobBytes)), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
	if err := s.Get(t.Context(), Content{Size: 5, Blobs: []Digest{{1}}}, io.Discard); !errors.Is(err, ErrMissing) {
		t.Errorf("a content that isn't there: %v, want ErrMissing", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func flip(data []byte) []byte {
	other := slices.Clone(data)
	if len(other) > 0 {
		other[len(other)-1]++
	}
	return other
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

// A write that fails leaves nothing in doubt: no more can be written.
func TestFailedWrite(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	cfg := b.Manifests.CachedInfo().Config
	refuse := cfg
	refuse.MaxMsgSize = 10
	if _, err := b.JS.UpdateStream(t.Context(), refuse); err != nil {
		t.Fatal(err)
	}
	first := j.Stage([]Entry{file("a", "2")}, nil)
	if err := first.Wait(); err == nil || errors.Is(err, ErrFenced) {
		t.Errorf("error %v, want one that is not ErrFenced", err)
	}
	cfg.MaxMsgSize = -1
	if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := j.Stage([]Entry{file("b", "3")}, nil).Wait(); err == nil || j.Broken() == nil {
		t.Error("a change after one that may be lost was stored")
	}
	if e, _ := mustLoad(t, s, "s").Entry("a"); string(e.Inline) != "1" {
		t.Errorf("a is %q", e.Inline)
	}
}

// An acknowledgement that is lost leaves no doubt: the message is sent again, and
// what is there says that the first arrived. If somebody else has written
// meanwhile, it did not.
func TestLostAcknowledgement(t *testing.T) {
	b := newBus(t)
	mute := func(noAck bool) {
		t.Helper()
		cfg := b.Manifests.CachedInfo().Config
		cfg.NoAck = noAck
		if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, b, "w", time.Hour)
	s.patience = 20 * time.Millisecond
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{file("a", "1")}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	before := stored(t, b.Manifests)
	mute(true)
	done := make(chan error, 1)
	go func() { done <- j.Stage([]Entry{file("a", "2")}, nil).Wait() }()
	for stored(t, b.Manifests) == before {
		time.Sleep(time.Millisecond)
	}
	mute(false)
	if err := <-done; err != nil {
		t.Fatalf("stored, and its acknowledgement lost: %v", err)
	}
	if err := j.Stage([]Entry{file("b", "3")}, nil).Wait(); err != nil {
		t.Fatalf("the next one: %v", err)
	}
	if n := stored(t, b.Manifests); n != before+2 {
		t.Errorf("%d messages, want %d", n, before+2)
	}
	if e, _ := mustLoad(t, s, "s").Entry("a"); string(e.Inline) != "2" {
		t.Errorf("a is %q", e.Inline)
	}

	j.mu.Lock()
	j.sequence-- // as if another owner's message had come when this one's was lost
	j.mu.Unlock()
	msg := &nats.Msg{Subject: protocol.ManifestSubject("s"), Data: []byte("mine"), Header: nats.Header{}}
	if _, err := s.settle(t.Context(), msg, j.sequence); !errors.Is(err, ErrFenced) {
		t.Errorf("another's message is there: %v, want ErrFenced", err)
	}
	// Another's base has replaced what was before it: nobody knows.
	j = mustLoad(t, s, "s")
	j.Begin(Identity{Session: "s", Created: 7, Epoch: 2})
	lost := j.sequence
	for range 2 {
		j.changes = maxChanges
		if err := j.Claim().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.settle(t.Context(), msg, lost); !errors.Is(err, ErrDoubt) {
		t.Errorf("another's base is there: %v, want ErrDoubt", err)
	}
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

func TestRecords(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	if _, err := s.Record(t.Context(), "a.b"); !errors.Is(err, ErrNone) {
		t.Fatalf("no record: %v", err)
	}
	if _, err := b.Sessions.Put(t.Context(), protocol.SessionKey("a.b"), []byte(`{"worker":"w","epoch":3}`)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Record(t.Context(), "a.b")
	if err != nil || r.Worker != "w" || r.Epoch != 3 || r.Durable {
		t.Fatalf("record %+v, %v", r, err)
	}
	if err := s.MarkDurable(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkDurable(t.Context(), r); !errors.Is(err, ErrFenced) {
		t.Errorf("with an old revision: %v, want ErrFenced", err)
	}
	if err := s.RemoveRecord(t.Context(), r); !errors.Is(err, ErrFenced) {
		t.Errorf("removed with an old revision: %v, want ErrFenced", err)
	}
	all, err := s.Records(t.Context())
	if err != nil || len(all) != 1 || !all["a.b"].Durable {
		t.Fatalf("records %+v, %v", all, err)
	}
	if err := s.RemoveRecord(t.Context(), all["a.b"]); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Records(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("records %+v, %v", all, err)
	}
	// What is left of the key goes by itself.
	left, err := bus.Last(t.Context(), b.NC, bus.KeyStream(protocol.SessionsBucket), bus.KeySubject(protocol.SessionsBucket, "a=b"))
	if err != nil || !left.Deleted() || left.Header.Get("Nats-TTL") != bus.MarkerTTL.String() {
		t.Errorf("left of the record: %v, %v", left.Header, err)
	}
	// The id can be used again.
	if _, err := b.Sessions.Create(t.Context(), "a=b", []byte(`{}`)); err != nil {
		t.Error(err)
	}
}

func TestOneCollector(t *testing.T) {
	b := newBus(t)
	one, two := newStore(t, b, "one", time.Hour), newStore(t, b, "two", time.Hour)
	ask := func(s *Store, lease time.Duration, want bool) {
		t.Helper()
		if got, err := s.Collects(t.Context(), lease); err != nil || got != want {
			t.Errorf("%s collects: %v, %v; want %v", s.Worker, got, err, want)
		}
	}
	ask(one, time.Hour, true)
	ask(two, time.Hour, false)
	ask(one, time.Hour, true)
	time.Sleep(2 * time.Millisecond)
	ask(two, time.Millisecond, true)
	ask(one, time.Hour, false)
}

// What is named stays, what isn't goes, in the second pass and after the grace.
func TestCollect(t *testing.T) {
	b := newBus(t)
	const grace = time.Second
	s := newStore(t, b, "w", grace)
	put := func(c byte) Entry {
		t.Helper()
		content, err := s.Put(t.Context(), bytes.NewReader(bytes.Repeat([]byte{c}, 10_000)))
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{Path: string(c), Mode: 0o644}
		e.SetContent(content)
		return e
	}
	c := s.NewCollector()
	pass := func(want int) {
		t.Helper()
		if _, removed, err := c.Collect(t.Context()); err != nil || removed != want {
			t.Errorf("%d removed, %v; want %d", removed, err, want)
		}
	}
	pass(0) // nothing is there at all
	kept, dropped, again := put('k'), put('d'), put('a')
	put('n') // never named
	j := begin(t, s, "s")
	if err := j.Stage([]Entry{kept, dropped}, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := j.Fork(Identity{Session: "fork", Created: 9, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if err := j.Stage(nil, []string{kept.Path, dropped.Path}).Wait(); err != nil {
		t.Fatal(err)
	}
	f := mustLoad(t, s, "fork")
	f.Begin(Identity{Session: "fork", Created: 9, Epoch: 1})
	if err := f.Stage(nil, []string{dropped.Path}).Wait(); err != nil {
		t.Fatal(err)
	}
	pass(0)
	pass(0) // all are younger than the grace
	time.Sleep(grace + 50*time.Millisecond)
	pass(0) // the first time they are seen unnamed
	put('a')
	pass(1) // 'n'; 'd' is named by changes still, 'a' is young again
	if _, err := s.GetBlob(t.Context(), again.Blobs[0]); err != nil {
		t.Error(err)
	}
	// New bases, which overtake the changes that named it.
	for _, j := range []*Journal{j, f} {
		j.mu.Lock()
		j.changes = maxChanges
		j.mu.Unlock()
		if err := j.Stage([]Entry{file("other", "")}, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(grace + 50*time.Millisecond)
	pass(0)
	pass(2) // 'd' and 'a'
	if _, err := s.GetBlob(t.Context(), kept.Blobs[0]); err != nil {
		t.Errorf("what a fork names: %v", err)
	}
	journals, _, err := c.Collect(t.Context())
	if got := slices.Sorted(maps.Keys(journals)); err != nil || !slices.Equal(got, []string{"fork", "s"}) {
		t.Errorf("journals %v, %v", got, err)
	}
}

// The pieces of a large base, and what it names, are named.
func TestCollectKeepsLargeBases(t *testing.T) {
	b := newBus(t)
	const grace = 50 * time.Millisecond
	s := newStore(t, b, "w", grace)
	j := begin(t, s, "s")
	var set []Entry
	for i := range 4000 {
		e := Entry{Path: fmt.Sprintf("%0100d", i), Mode: 0o644}
		c, err := s.Put(t.Context(), bytes.NewReader(bytes.Repeat([]byte{byte(i % 3)}, 5000)))
		if err != nil {
			t.Fatal(err)
		}
		e.SetContent(c)
		set = append(set, e)
	}
	if err := j.Stage(set, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * grace)
	c := s.NewCollector()
	for range 3 {
		if _, removed, err := c.Collect(t.Context()); err != nil || removed != 0 {
			t.Fatalf("%d removed, %v", removed, err)
		}
	}
	if got := mustLoad(t, s, "s"); len(got.Entries()) != len(set) {
		t.Errorf("%d entries", len(got.Entries()))
	}
}

// What was stored lately isn't stored again, and is before it could be collected.
func TestRecentlyStored(t *testing.T) {
	r := recent{turn: time.Minute}
	now := time.Unix(1000, 0)
	r.add(Digest{1}, now)
	for after, want := range map[time.Duration]bool{0: true, 59 * time.Second: true, 61 * time.Second: true, 3 * time.Minute: false} {
		fresh := recent{turn: time.Minute}
		fresh.add(Digest{1}, now)
		if got := fresh.has(Digest{1}, now.Add(after)); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	// The longest that one can stay: asked for just before each turn would end.
	late := recent{turn: time.Minute}
	late.add(Digest{1}, now)
	late.has(Digest{2}, now.Add(2*time.Minute-1))
	if late.has(Digest{1}, now.Add(3*time.Minute)) {
		t.Error("still there after three turns")
	}
	for i := range 500 { // looked for again and again it doesn't get younger
		if at := now.Add(time.Duration(i) * time.Second); r.has(Digest{1}, at) && at.Sub(now) > 2*r.turn {
			t.Fatalf("still there after %v", at.Sub(now))
		}
	}
}
