package workcopy

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

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
