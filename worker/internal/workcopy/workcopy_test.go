package workcopy

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// A session goes on at another worker as it was when the last change was
// acknowledged, and the worker before can do nothing any more.
func TestSessionGoesOnElsewhere(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s.1", "a", 1, true)
	a.write("s.1", 1, "f", "one")
	a.write("s.1", 1, "deep/er/g", strings.Repeat("large ", 200_000))
	a.with("s.1", 1, func(h *Hold) error { return h.RenameFile(t.Context(), "f", "new/f") })
	a.write("s.1", 1, "f", "two")
	a.with("s.1", 1, func(h *Hold) error { return h.DeleteFile(t.Context(), "deep/er/g") })
	before := a.tree("s.1", 1)

	r.own("s.1", "b", 2, true)
	if after := b.tree("s.1", 2); after != before {
		t.Errorf("the session is\n%s, want\n%s", after, before)
	}
	b.write("s.1", 2, "f", "three")
	a.refused("s.1", 1, ErrElsewhere)
	a.refused("s.1", 2, ErrElsewhere)
	if _, ok := a.Sessions.Get("s.1"); ok {
		t.Error("the worker before has its copy still")
	}
	r.own("s.1", "a", 3, true)
	if got := a.read("s.1", 3, "f"); got != "three" {
		t.Errorf("back at the first worker: %q", got)
	}
	b.refused("s.1", 2, ErrElsewhere)
}

// One that knows nothing of its loss yet, because its heartbeats count.
func TestFencedWorkerCantWrite(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.Beat()()
	a.write("s", 1, "f", "one")
	h := a.use("s", 1)
	r.own("s", "b", 2, true)
	b.read("s", 2, "f") // no write is needed to shut the other out
	if err := h.WriteFile(t.Context(), "f", []byte("old")); !errors.Is(err, ErrElsewhere) {
		t.Errorf("write: %v, want ErrElsewhere", err)
	}
	if _, err := h.ReadFile("f"); !errors.Is(err, ErrElsewhere) {
		t.Errorf("read after that: %v, want ErrElsewhere", err)
	}
	if err := h.Save(t.Context()); !errors.Is(err, ErrElsewhere) {
		t.Errorf("save: %v, want ErrElsewhere", err)
	}
	h.Release()
	a.Close()
	if _, ok := a.Sessions.Get("s"); ok {
		t.Error("the fenced worker keeps its copy")
	}
	if got := b.read("s", 2, "f"); got != "one" {
		t.Errorf("f is %q", got)
	}
}

// A heartbeat that was held up on its way is a gap, however soon it was begun.
func TestHeartbeatHeldUpIsAGap(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	a.Beat()()
	before, _ := a.lease()
	written := a.Beat()
	const late = 200 * time.Millisecond
	a.beaten.Add(-int64(protocol.WorkerTTL - late/2)) // this one was begun in time
	time.Sleep(late)                                  // and is there too late
	written()
	if after, holds := a.lease(); after == before || !holds {
		t.Errorf("lease %d, holds %v; want another than %d that holds", after, holds, before)
	}
}

// A worker whose heartbeats were missing looks before it serves.
func TestLapsedWorkerLooksBeforeItServes(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.Beat()()
	a.write("s", 1, "f", "one")
	r.own("s", "b", 2, true)
	b.write("s", 2, "f", "two")
	if got := a.read("s", 1, "f"); got != "one" {
		t.Fatalf("while its heartbeats count: %q; the test shows nothing", got)
	}
	a.beaten.Add(-int64(time.Hour)) // it was stopped for long
	a.refused("s", 1, ErrElsewhere)

	// It beats again before anybody asks it.
	r.own("t", "a", 1, true)
	a.Beat()()
	a.write("t", 1, "f", "one")
	r.own("t", "b", 2, true)
	b.write("t", 2, "f", "two")
	a.beaten.Add(-int64(time.Hour))
	a.Beat()()
	a.refused("t", 1, ErrElsewhere)

	// One that was not replaced goes on, and looks once.
	r.own("u", "a", 1, true)
	a.write("u", 1, "f", "one")
	a.beaten.Add(-int64(time.Hour))
	a.Beat()()
	if got := a.read("u", 1, "f"); got != "one" {
		t.Errorf("u: %q", got)
	}
}

// Whatever a job or an operation does, by whatever path, is stored: a model test
// against the directory itself.
func TestAllChangesAreStored(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.write("s", 1, "d0/x", "begin")
	a.job("s", 1, func(work string) error {
		for _, l := range [][2]string{{"d0", "dirlink"}, {"d0/x", "filelink"}, {"nowhere", "dangling"}, {"\xff\xfe", "odd\xff"}} {
			if err := os.Symlink(l[0], filepath.Join(work, l[1])); err != nil {
				return err
			}
		}
		return os.Link(filepath.Join(work, "d0/x"), filepath.Join(work, "hard"))
	})
	random := rand.New(rand.NewPCG(3, 4))
	pick := func() string {
		dir := []string{"", "d0/", "d1/", "d0/sub/", "dirlink/"}[random.IntN(5)]
		return dir + []string{"x", "y", "filelink", "hard", "dangling", "z"}[random.IntN(6)]
	}
	epoch := uint64(1)
	at := []*worker{a, b}
	for step := range 300 {
		w := at[epoch%2^1]
		path, other := pick(), pick()
		content := bytes.Repeat([]byte{byte('a' + step%26)}, []int{0, 1, 100, 5000, 9000}[random.IntN(5)])
		w.with("s", epoch, func(h *Hold) error {
			var err error
			switch random.IntN(5) {
			case 0, 1:
				err = h.WriteFile(t.Context(), path, content)
			case 2:
				err = h.DeleteFile(t.Context(), path)
			case 3:
				err = h.RenameFile(t.Context(), path, other)
			case 4:
				do(h.Session.WorkDir(), random, path, other, content)
				own(t, h.Session)
				return h.Save(t.Context())
			}
			if _, ok := errors.AsType[*session.Error](err); ok {
				return nil // as the directory's state has it
			}
			return err
		})
		if step%10 == 9 {
			before := w.tree("s", epoch)
			epoch++
			next := at[epoch%2^1]
			r.own("s", next.Worker, epoch, true)
			if after := next.tree("s", epoch); after != before {
				t.Fatalf("step %d: the session is\n%s, want\n%s", step, after, before)
			}
		}
	}
}

// do is what a job might.
func do(work string, random *rand.Rand, path, other string, content []byte) {
	path, other = filepath.Join(work, path), filepath.Join(work, other)
	switch random.IntN(8) {
	case 0:
		os.WriteFile(path, content, 0o600)
	case 1:
		os.Chmod(path, os.FileMode(random.IntN(0o1000))&0o777)
	case 2:
		os.RemoveAll(path)
	case 3:
		os.Rename(path, other)
	case 4:
		os.Symlink(filepath.Base(other), path)
	case 5:
		os.Link(path, other)
	case 6:
		os.MkdirAll(path, 0o711)
	case 7:
		unix.Mkfifo(path, 0o600) // is not kept
		os.Remove(path)
		now := time.Unix(int64(random.IntN(1e9)), 5)
		os.Chtimes(other, now, now)
	}
}

// A write through one name of a file changes what is stored under the others.
func TestWriteToAFileWithTwoNames(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	a.job("s", 1, func(work string) error { return os.Link(filepath.Join(work, "f"), filepath.Join(work, "g")) })
	a.write("s", 1, "g", "two")
	r.own("s", "b", 2, true)
	if got := b.read("s", 2, "f") + b.read("s", 2, "g"); got != "twotwo" {
		t.Errorf("f and g are %q", got)
	}
}

// A change that leaves size and times as they were, within one tick of the clock.
func TestChangeThatDoesNotShow(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	for i := range 30 {
		content := fmt.Sprintf("%04d", i)
		a.job("s", 1, func(work string) error {
			path := filepath.Join(work, "f")
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				return err
			}
			return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))
		})
	}
	r.own("s", "b", 2, true)
	if got := b.read("s", 2, "f"); got != "0029" {
		t.Errorf("f is %q", got)
	}
}

// A job that changes nothing costs no message; nor does reading.
func TestUnchangedSessionWritesNothing(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "d/f", "one")
	before := r.messages()
	for range 3 {
		a.job("s", 1, func(work string) error {
			_, err := os.ReadFile(filepath.Join(work, "d/f"))
			return err
		})
		a.read("s", 1, "d/f")
	}
	if after := r.messages(); after != before {
		t.Errorf("%d messages for nothing", after-before)
	}
}

// What can't be stored isn't there afterwards, and the caller knows.
func TestFailedWriteIsUndone(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	a.write("s", 1, "g", "keep")
	for name, change := range map[string]func(h *Hold) error{
		"write":  func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte("two")) },
		"delete": func(h *Hold) error { return h.DeleteFile(t.Context(), "f") },
		"rename": func(h *Hold) error { return h.RenameFile(t.Context(), "g", "f") },
		"job": func(h *Hold) error {
			if err := os.WriteFile(filepath.Join(h.Session.WorkDir(), "f"), []byte("two"), 0o644); err != nil {
				return err
			}
			return h.Save(t.Context())
		},
	} {
		h := a.use("s", 1)
		r.refuseWrites(true)
		if err := change(h); !errors.Is(err, ErrNotStored) {
			t.Errorf("%s: %v, want ErrNotStored", name, err)
		}
		if _, err := h.ReadFile("f"); !errors.Is(err, ErrNotStored) {
			t.Errorf("read after a failed %s: %v, want ErrNotStored", name, err)
		}
		h.Release()
		r.refuseWrites(false)
		if got := a.read("s", 1, "f") + a.read("s", 1, "g"); got != "onekeep" {
			t.Errorf("after a failed %s: %q, want what was there", name, got)
		}
	}
}

// What was held up on its way doesn't undo what was acknowledged since, with and
// without a journal.
func TestOvertakenChange(t *testing.T) {
	r := newRig(t)
	for name, stores := range map[string]bool{"stored": true, "local": false} {
		w := r.start(name, r.dir(), stores)
		r.own(name, name, 1, stores)
		w.write(name, 1, "f", "one")
		w.write(name, 1, "g", "two")
		now := time.Now()
		change := func(sent time.Time, do func(h *Hold) error) error {
			h := w.use(name, 1)
			defer h.Release()
			h.Sent = sent
			return do(h)
		}
		write := func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte("new")) }
		if err := change(now, write); err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func(h *Hold) error{
			"write":  func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte("old")) },
			"delete": func(h *Hold) error { return h.DeleteFile(t.Context(), "f") },
			"rename": func(h *Hold) error { return h.RenameFile(t.Context(), "g", "f") },
		} {
			if err := change(now.Add(-time.Microsecond), do); !errors.Is(err, ErrOvertaken) {
				t.Errorf("%s, %s that was sent before: %v, want ErrOvertaken", name, what, err)
			}
		}
		if got := w.read(name, 1, "f") + w.read(name, 1, "g"); got != "newtwo" {
			t.Errorf("%s: %q after changes that were overtaken", name, got)
		}
		if err := change(now, write); err != nil {
			t.Errorf("%s: a change of the same time: %v", name, err)
		}
		if err := change(time.Time{}, write); err != nil {
			t.Errorf("%s: a change of an unknown time: %v", name, err)
		}
	}
}

// NATS has no room: the caller is told so, jobs can still be queued.
func TestFullStore(t *testing.T) {
	r := newRig(t)
	var err error
	if r.bus, err = bus.Ensure(t.Context(), r.bus.NC, bus.Settings{StoreBytes: 200_000}); err != nil {
		t.Fatal(err)
	}
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	h := a.use("s", 1)
	err = h.WriteFile(t.Context(), "large", bytes.Repeat([]byte("x"), 300_000))
	if !errors.Is(err, durable.ErrFull) || !errors.Is(err, ErrNotStored) {
		t.Errorf("error %v, want ErrFull", err)
	}
	h.Release()
	if got := a.tree("s", 1); strings.Count(got, "\n") != 1 {
		t.Errorf("the session is\n%s, want f alone", got)
	}
	// Another gateway or worker that has no such setting leaves it.
	if r.bus, err = bus.Ensure(t.Context(), r.bus.NC, bus.Settings{}); err != nil || r.bus.Blobs.CachedInfo().Config.MaxBytes != 200_000 {
		t.Errorf("the limit is gone (%v)", err)
	}
}

// A session too unpleasant to store goes back to what it was.
func TestUnstorableSession(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	for name, do := range map[string]func(work string) error{
		"deep": func(work string) error { return os.MkdirAll(filepath.Join(work, strings.Repeat("d/", 200)), 0o755) },
		"long": func(work string) error {
			if err := os.WriteFile(filepath.Join(work, "sparse"), nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(filepath.Join(work, "sparse"), 1<<40)
		},
	} {
		h := a.use("s", 1)
		if err := do(h.Session.WorkDir()); err != nil {
			t.Fatal(err)
		}
		own(t, h.Session)
		if err := h.Save(t.Context()); !errors.Is(err, session.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
		h.Release()
		if got := a.tree("s", 1); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"one"`) {
			t.Errorf("%s: the session is\n%.300s, want f alone", name, got)
		}
	}
}

// A worker that starts again on its directory has a cache, not the truth.
func TestRestartedWorker(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	r.own("t", "a", 1, true)
	a.write("s", 1, "d/f", strings.Repeat("one", 5000))
	r.own("u", "a", 1, true)
	a.write("t", 1, "f", "one")
	a.write("u", 1, "f", "one")
	inode := func(w *worker, id string) uint64 {
		var st unix.Stat_t
		s, ok := w.Sessions.Get(id)
		if !ok {
			t.Fatalf("no directory of %s", id)
		}
		if err := unix.Stat(s.WorkDir(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	before := inode(a, "s")
	// A job was running when the worker was killed.
	s, _ := a.Sessions.Get("t")
	if err := os.WriteFile(filepath.Join(s.WorkDir(), "half"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	own(t, s)
	// And somebody looked after the disk.
	s, _ = a.Sessions.Get("u")
	if err := os.Chtimes(filepath.Join(s.WorkDir(), "f"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	times := a.tree("u", 1)
	old := a.Manager
	a.stop()
	a = r.start("a", a.dir, true)
	if got := a.read("s", 1, "d/f"); got != strings.Repeat("one", 5000) || inode(a, "s") != before {
		t.Error("the unchanged copy was not kept")
	}
	if got := a.tree("t", 1); strings.Count(got, "\n") != 1 {
		t.Errorf("t is\n%s, want f alone", got)
	}
	if got := a.tree("u", 1); got == times {
		t.Errorf("u has times that were never stored: %s", got)
	}
	// The process before, if it lived somewhere still, could not write.
	if c := old.copies["s"]; c.journal.Stage(nil, []string{"d/f"}).Wait() == nil {
		t.Error("the process before can write")
	}
}

// A session that was only a directory is stored at its first use.
func TestLocalSessionIsAdopted(t *testing.T) {
	r := newRig(t)
	dir := r.dir()
	a := r.start("a", dir, false)
	r.own("s", "a", 1, false)
	a.write("s", 1, "f", "one")
	a.with("s", 1, func(h *Hold) error { return h.Save(t.Context()) })
	if n := r.messages(); n != 0 {
		t.Fatalf("a worker that doesn't store wrote %d messages", n)
	}
	a.stop()
	a = r.start("a", dir, true)
	a.read("s", 1, "f")
	if rec, err := a.Store.Record(t.Context(), "s"); err != nil || !rec.Durable {
		t.Fatalf("record %+v, %v; want it durable", rec, err)
	}
	b := r.worker("b")
	r.own("s", "b", 2, true)
	if got := b.read("s", 2, "f"); got != "one" {
		t.Errorf("f is %q", got)
	}
	// A worker that doesn't store has no business with it.
	c := r.start("c", r.dir(), false)
	r.own("s", "c", 3, true)
	c.refused("s", 3, ErrElsewhere)
}

func TestForks(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	a.write("s", 1, "large", strings.Repeat("x", 100_000))
	h := a.use("s", 1)
	var wg sync.WaitGroup
	for i := range 10 {
		id := fmt.Sprint("fork", i)
		r.own(id, "a", 1, true)
		wg.Go(func() {
			if err := h.Fork(t.Context(), id, 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.Release()
	a.write("s", 1, "f", "two")
	for i := range 10 {
		id := fmt.Sprint("fork", i)
		if got := a.read(id, 1, "f"); got != "one" {
			t.Errorf("%s: f is %q", id, got)
		}
		a.write(id, 1, "f", id)
	}
	r.own("fork3", "b", 2, true)
	if got := b.read("fork3", 2, "f") + b.read("fork3", 2, "large")[:3]; got != "fork3xxx" {
		t.Errorf("a fork elsewhere: %q", got)
	}
	if got := a.read("s", 1, "f"); got != "two" {
		t.Errorf("the original: %q", got)
	}
}

// Many ask at once for a session that has to be restored.
func TestOneRestoreForMany(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	r.own("s", "a", 1, true)
	for i := range 50 {
		a.write("s", 1, fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i), 3000))
	}
	r.own("s", "b", 2, true)
	before := r.messages()
	b.Beat()()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if got := b.read("s", 2, fmt.Sprint("f", i)); got != strings.Repeat(fmt.Sprint(i), 3000) {
				t.Errorf("f%d has %d bytes", i, len(got))
			}
		})
	}
	wg.Wait()
	if n := r.messages() - before; n != 1 {
		t.Errorf("%d claims, want one", n)
	}
}

// Concurrent writers of one session, and a job beside them: all is stored.
func TestConcurrentChanges(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	a.Beat()()
	r.own("s", "a", 1, true)
	a.write("s", 1, "begin", "x")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := range 25 {
				a.write("s", 1, fmt.Sprintf("w%d/%d", i, n), fmt.Sprint(i, n))
			}
		})
	}
	for i := range 2 {
		wg.Go(func() {
			for n := range 10 {
				a.with("s", 1, func(h *Hold) error {
					h.Session.WriteFile(fmt.Sprintf("job%d/%d", i, n), []byte("job")) // unknown to the journal
					return h.Save(t.Context())
				})
			}
		})
	}
	wg.Wait()
	before := a.tree("s", 1)
	if n := strings.Count(before, "\n"); n != 1+6*26+2*11 {
		t.Errorf("%d entries", n)
	}
	r.own("s", "b", 2, true)
	if after := b.tree("s", 2); after != before {
		t.Errorf("the session is\n%s, want\n%s", after, before)
	}
}

func TestSessionsThatAreNot(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	a.refused("none", 1, ErrElsewhere)
	r.own("s", "b", 1, true)
	a.refused("s", 1, ErrElsewhere)
	r.own("t", "a", 3, true)
	a.refused("t", 2, ErrElsewhere)
	a.refused("t", 4, ErrElsewhere)
	if _, err := a.Acquire(t.Context(), "t", 3, false); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("a session of which nothing was written: %v, want ErrNoSession", err)
	}
	a.write("t", 3, "f", "x")
	a.refused("t", 2, ErrElsewhere)
	if n := len(a.copies); n != 1 {
		t.Errorf("%d copies in memory, want that of t", n)
	}
}
