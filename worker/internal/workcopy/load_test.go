package workcopy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/session"
)

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
