package backlog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Who comes after two hundred jobs of another waits for what is in the bulk queue
// already, and for nothing else.
func TestCallersTakeTurns(t *testing.T) {
	g := newRig(t)
	first := g.many("a", 100)
	f := g.feeder("g1", nil)
	var got []string
	for range window {
		got = append(got, within(t, "publication", g.published))
	}
	first = append(first, g.many("a", 100)...)
	one, at := g.store("b, who may be any text: *.>", time.Minute)
	f.knows(t, at)
	if n := len(g.published); n > 0 {
		t.Errorf("%d jobs more than the window were published", n)
	}
	// The window is kept all the time: nothing comes that no end made room for.
	var room atomic.Int64
	g.work(func(job protocol.Job, m jetstream.Msg) {
		room.Add(1)
		g.settle(job, m)
	})
	for len(got) < 201 {
		got = append(got, within(t, "publication", g.published))
		if more := len(got) - window; int64(more) > room.Load() {
			t.Fatalf("%d jobs were published when %d had ended", len(got), room.Load())
		}
	}
	if i := slices.Index(got, one); i < 0 || i > window {
		t.Errorf("the other caller's job was published as number %d, want one of the first %d", i+1, window+1)
	}
	if got = slices.DeleteFunc(got, func(id string) bool { return id == one }); !slices.Equal(got, first) {
		t.Error("the first caller's jobs were not published in their order")
	}
	g.empty()
}

// What was in the bulk queue before counts, until it is gone.
func TestWindowCountsWhatWasThere(t *testing.T) {
	g := newRig(t)
	for range window - 1 {
		id, m := g.job("of a version before", time.Minute)
		m.Subject = protocol.BulkQueue
		g.put(m, id+".0")
		within(t, "publication", g.published)
	}
	ids := g.many("a", 3)
	f := g.feeder("g1", nil)
	f.knows(t, 3)
	if id := within(t, "publication", g.published); id != ids[0] || len(g.published) > 0 {
		t.Errorf("%s and %d more were published, want %s only", id, len(g.published), ids[0])
	}
	g.work(func(job protocol.Job, m jetstream.Msg) { g.settle(job, m) })
	for _, want := range ids[1:] {
		if id := within(t, "publication", g.published); id != want {
			t.Errorf("%s was published, want %s", id, want)
		}
	}
	g.empty()
}

// Nobody says that jobs have ended, and one that is nothing of the backlog's is
// with a worker all the time.
func TestLostHints(t *testing.T) {
	g := newRig(t)
	id, m := g.job("of a batch", time.Minute)
	m.Subject = protocol.BulkQueue
	g.put(m, id+".0")
	within(t, "publication", g.published)
	held := false
	g.work(func(job protocol.Job, m jetstream.Msg) {
		if job.ID == id {
			held = true
			return
		}
		m.Ack()
	})
	g.many("a", 30)
	g.feeder("g1", func(c *Config) { c.lookInterval = 5 * time.Millisecond })
	for range 30 {
		within(t, "publication", g.published)
	}
	g.empty()
	if !held {
		t.Error("the batch's job was not held")
	}
}

// A gateway dies, having moved jobs that it could not take out of the backlog. The
// next goes on; none is lost, and none begun twice.
func TestFeederDies(t *testing.T) {
	g := newRig(t)
	quick := func(c *Config) {
		c.renewInterval, c.lease, c.lookInterval = 20*time.Millisecond, 200*time.Millisecond, 20*time.Millisecond
	}
	g.many("a", 20)
	one := g.feeder("g1", quick)
	for range window {
		within(t, "publication", g.published)
	}
	g.feeder("g2", quick)
	one.nc.Close()
	// Moved and not taken out, and so long ago that the stream has forgotten it.
	for _, again := range []string{".0", ".other"} {
		id, m := g.job("b", time.Minute)
		g.put(m, id+".0")
		m = &nats.Msg{Subject: protocol.BulkQueue, Header: m.Header, Data: m.Data}
		g.put(m, id+again)
	}
	begun := make(chan string, 100)
	g.work(func(job protocol.Job, m jetstream.Msg) {
		if g.settle(job, m) {
			begun <- job.ID
		}
	})
	seen := map[string]bool{}
	for range 22 {
		id := within(t, "job", begun)
		if seen[id] {
			t.Errorf("%s was begun twice", id)
		}
		seen[id] = true
	}
	g.empty()
	if len(begun) > 0 {
		t.Errorf("%d more were begun", len(begun))
	}
}

// Another gateway goes on as soon as one stops, not when its lock runs out.
func TestStoppedFeederHandsOver(t *testing.T) {
	g := newRig(t)
	one := g.feeder("g1", nil)
	first, _ := g.store("a", time.Minute)
	if id := within(t, "publication", g.published); id != first {
		t.Errorf("%s was published", id)
	}
	two := g.feeder("g2", nil)
	eventually(t, "the other has looked", func() bool { return two.lock.tries.Load() > 0 })
	if two.feeds.Load() {
		t.Error("two feed at once")
	}
	one.stop()
	second, _ := g.store("a", time.Minute)
	if id := within(t, "publication", g.published); id != second || !two.feeds.Load() {
		t.Errorf("%s was published, want %s by the other", id, second)
	}
}

// The lock is taken from who doesn't renew it, and from nobody else; and who lost
// it notices.
func TestLock(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	a, b := newLock(g.Bus, "a", time.Millisecond, 20*time.Millisecond), newLock(g.Bus, "b", time.Millisecond, 20*time.Millisecond)
	try := func(l *lock) bool {
		t.Helper()
		got, err := l.try(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if !try(a) || try(b) {
		t.Fatal("the first who comes has the lock, the second hasn't")
	}
	b.seenSince = b.seenSince.Add(-b.lease)
	if ok, err := a.write(ctx, a.revision); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if try(b) {
		t.Error("a lock was taken that was renewed")
	}
	b.seenSince = b.seenSince.Add(-b.lease)
	if !try(b) {
		t.Error("a lock was not taken that wasn't renewed")
	}
	a.hold(ctx, slog.New(slog.DiscardHandler)) // returns
	if a.revision != 0 {
		t.Error("who lost the lock believes that it has it")
	}
	if err := a.release(); err != nil {
		t.Error(err)
	}
	if try(a) {
		t.Error("who lost the lock gave up another's")
	}
	if err := b.release(); err != nil {
		t.Error(err)
	}
	if !try(a) {
		t.Error("a lock that was given up is not free")
	}
	// A renewal was written, and the gateway not told.
	if _, err := g.Upkeep.Update(ctx, protocol.FeederKey, []byte(`{"gateway":"a","life":"`+a.value.Life+`"}`), a.revision); err != nil {
		t.Fatal(err)
	}
	if err := a.release(); err != nil || !try(b) {
		t.Errorf("not given up: %v", err)
	}
}

// What nobody wants any more is taken out, and takes no room in the bulk queue.
func TestUnwantedJobs(t *testing.T) {
	g := newRig(t)
	for range window {
		g.store("a", -time.Second)
		id, _ := g.store("a", time.Minute)
		if _, err := g.records.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		_, m := g.job("a", time.Minute)
		m.Header.Set(protocol.HeaderJob, "forgotten"+id)
		g.put(m, "forgotten"+id)
	}
	last, _ := g.store("a", time.Minute)
	g.feeder("g1", nil)
	if id := within(t, "publication", g.published); id != last {
		t.Errorf("%s was published, want %s", id, last)
	}
	g.empty()
}

// shaky are records that can't be read now and then.
type shaky struct {
	*kept.Store
	fail atomic.Int64
}

func (s *shaky) Get(ctx context.Context, job string) (kept.Record, error) {
	if s.fail.Add(-1) >= 0 {
		return kept.Record{}, errors.New("not now")
	}
	return s.Store.Get(ctx, job)
}

// What can't be moved now is moved later, in its place.
func TestFailedMovesAreTriedAgain(t *testing.T) {
	g := newRig(t)
	ids := g.many("a", 3)
	records := &shaky{Store: g.records}
	records.fail.Store(3)
	f := g.feeder("g1", func(c *Config) {
		c.Records, c.Window, c.lookInterval = records, func() int { return 1 }, 5*time.Millisecond
	})
	f.knows(t, 3)
	first := f.present()
	g.work(func(job protocol.Job, m jetstream.Msg) { g.settle(job, m) })
	for _, want := range ids {
		if id := within(t, "publication", g.published); id != want {
			t.Errorf("%s was published, want %s", id, want)
		}
	}
	g.empty()
	if f.present() != first {
		t.Error("it took another view of the backlog")
	}
}

// The bulk queue is full, with what others put there.
func TestBulkQueueIsFull(t *testing.T) {
	g := newRig(t)
	cfg := g.Jobs.CachedInfo().Config
	cfg.MaxMsgsPerSubject = 2
	if _, err := g.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	g.many("a", 10)
	f := g.feeder("g1", func(c *Config) { c.lookInterval = 5 * time.Millisecond })
	f.knows(t, 10)
	done := make(chan string, 100)
	g.work(func(job protocol.Job, m jetstream.Msg) {
		if g.settle(job, m) {
			done <- job.ID
		}
	})
	for range 10 {
		within(t, "job", done)
	}
	g.empty()
}

// The connection is lost and comes back, and a view may miss what it was not told.
func TestViewsAreMadeAnew(t *testing.T) {
	g := newRig(t)
	f := g.feeder("g1", func(c *Config) { c.lookInterval = time.Millisecond })
	g.work(func(job protocol.Job, m jetstream.Msg) { g.settle(job, m) })
	expect := func() {
		t.Helper()
		want, _ := g.store("a", time.Minute)
		if id := within(t, "publication", g.published); id != want {
			t.Errorf("%s was published, want %s", id, want)
		}
		g.empty()
	}
	expect()
	first := f.present()
	if err := f.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is another view", func() bool { v := f.present(); return v != nil && v != first })
	expect()
	v := f.present()
	v.mu.Lock()
	v.last = 1 << 40 // it sees nothing that comes
	v.mu.Unlock()
	expect()
}
