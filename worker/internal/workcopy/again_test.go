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

	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// ask asks for a change under an id, sent for the first time or again.
func (w *worker) ask(id string, epoch uint64, operation string, first time.Time, do func(h *Hold) error) error {
	w.t.Helper()
	h := w.use(id, epoch)
	defer h.Release()
	h.Operation, h.First = operation, first
	return do(h)
}

// A change whose worker died when it was stored, and not answered yet, is asked for
// again at the next owner, after another was acknowledged there: it isn't made
// again, and is answered as done.
func TestAskedAgainElsewhere(t *testing.T) {
	write := func(path, content string) func(h *Hold) error {
		return func(h *Hold) error { return h.WriteFile(t.Context(), path, []byte(content)) }
	}
	remove := func(path string) func(h *Hold) error {
		return func(h *Hold) error { return h.DeleteFile(t.Context(), path) }
	}
	rename := func(from, to string) func(h *Hold) error {
		return func(h *Hold) error { return h.RenameFile(t.Context(), from, to) }
	}
	for name, c := range map[string]struct {
		change, since func(h *Hold) error
		rolls         bool // the new owner makes a new base before it is asked
	}{
		"write":                    {write("f", "first"), write("f", "since"), false},
		"write, and a new base":    {write("f", "first"), write("f", "since"), true},
		"write to a new file":      {write("new/f", "first"), remove("new/f"), false},
		"write through a link":     {write("link", "first"), write("f", "since"), false},
		"write to one of two":      {write("two", "first"), write("one", "since"), false},
		"delete":                   {remove("f"), write("g", "since"), false},
		"delete, made anew since":  {remove("f"), write("f", "since"), false},
		"delete, and a new base":   {remove("f"), write("f", "since"), true},
		"delete a link":            {remove("link"), write("link", "since"), false},
		"rename":                   {rename("f", "g"), write("h", "since"), false},
		"rename, both changed":     {rename("f", "g"), func(h *Hold) error { return errors.Join(write("f", "since")(h), write("g", "since")(h)) }, false},
		"rename a link":            {rename("link", "l"), write("f", "since"), false},
		"rename one of two":        {rename("one", "three"), write("three", "since"), false},
		"rename into a new folder": {rename("f", "new/g"), rename("new/g", "f"), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.worker("a"), r.worker("b")
			r.own("s", "a", 1, true)
			for _, path := range []string{"f", "one"} {
				a.write("s", 1, path, "before")
			}
			a.job("s", 1, func(work string) error {
				return errors.Join(os.Symlink("f", filepath.Join(work, "link")), os.Link(filepath.Join(work, "one"), filepath.Join(work, "two")))
			})
			first := time.Now()
			if err := a.ask("s", 1, "op", time.Time{}, c.change); err != nil {
				t.Fatal(err)
			}
			r.own("s", "b", 2, true)
			b.with("s", 2, c.since)
			if c.rolls {
				for i := range 80 {
					b.write("s", 2, "other", fmt.Sprint(i))
				}
				r.own("s", "a", 3, true)
				r.own("s", "b", 4, true)
			}
			epoch := map[bool]uint64{false: 2, true: 4}[c.rolls]
			want, messages := b.tree("s", epoch), r.messages()
			for range 2 {
				if err := b.ask("s", epoch, "op", first, c.change); err != nil {
					t.Errorf("asked again: %v, want it done", err)
				}
			}
			if got := b.tree("s", epoch); got != want {
				t.Errorf("the session is\n%s, want\n%s", got, want)
			}
			if n := r.messages() - messages; n != 0 {
				t.Errorf("%d messages for what was done before", n)
			}
		})
	}
}

// A change that was not stored before is decided anew, and the answer says that
// there was no other.
func TestAskedAgainInVain(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	first := time.Now()
	remove := func(h *Hold) error { return h.DeleteFile(t.Context(), "g") }
	for when, want := range map[time.Time]bool{{}: false, first: true} {
		err := a.ask("s", 1, "op", when, remove)
		if _, anew := errors.AsType[*Anew](err); !errors.Is(err, session.ErrNotExist) || anew != want {
			t.Errorf("sent at %v: %v (anew %v), want ErrNotExist, anew %v", when, err, anew, want)
		}
	}
	a.write("s", 1, "g", "two")
	for range 2 {
		if err := a.ask("s", 1, "op", first, remove); err != nil {
			t.Errorf("now that it can be done: %v", err)
		}
	}
	// A rename that changes nothing leaves no id, and is done as often as it is asked.
	same := func(h *Hold) error { return h.RenameFile(t.Context(), "f", "f") }
	if err := a.ask("s", 1, "same", time.Time{}, same); err != nil {
		t.Fatal(err)
	}
	a.with("s", 1, func(h *Hold) error { return h.DeleteFile(t.Context(), "f") })
	err := a.ask("s", 1, "same", first, same)
	if _, anew := errors.AsType[*Anew](err); !errors.Is(err, session.ErrNotExist) || !anew {
		t.Errorf("a rename that did nothing, of what is not there now: %v, want ErrNotExist, anew", err)
	}
}

// Copies of one request that come at once are one change.
func TestAskedTwiceAtOnce(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	a.Beat()()
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := a.ask("s", 1, "op", time.Time{}, func(h *Hold) error { return h.RenameFile(t.Context(), "f", "g") }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := a.read("s", 1, "g"); got != "one" {
		t.Errorf("g is %q", got)
	}
}

// One that was held up on its way, and has been done meanwhile, is not overtaken.
func TestDoneIsNotOvertaken(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	sent := time.Now()
	for i, operation := range []string{"op", "other", "op"} {
		err := a.ask("s", 1, operation, time.Time{}, func(h *Hold) error {
			h.Sent = sent
			if operation == "other" {
				h.Sent = sent.Add(time.Second)
			}
			return h.WriteFile(t.Context(), "f", []byte(operation))
		})
		if err != nil {
			t.Errorf("change %d: %v", i, err)
		}
	}
	if got := a.read("s", 1, "f"); got != "other" {
		t.Errorf("f is %q", got)
	}
}

// What is staged under an id is not done until it is stored; when that fails it is
// asked again at the copy made anew.
func TestAskedAgainBeforeItIsStored(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	a.Beat()()
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "one")
	first := time.Now()
	write := func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte("two")) }
	remove := func(h *Hold) error { return h.DeleteFile(t.Context(), "f") }
	fails := func(why string, want error) {
		t.Helper()
		h := a.use("s", 1)
		defer h.Release()
		h.journal.Stage(nil, []string{"f"}, "op") // by another request, which waits
		h.Operation = "op"
		err := remove(h)
		if _, anew := errors.AsType[*Anew](err); !errors.Is(err, want) || anew {
			t.Errorf("%s: %v (anew %v), want %v", why, err, anew, want)
		}
	}
	r.refuseWrites(true)
	fails("refused", durable.ErrDoubt)
	r.refuseWrites(false)
	if got := a.read("s", 1, "f"); got != "one" {
		t.Fatalf("f is %q after a change that was not stored", got)
	}
	if err := a.ask("s", 1, "op", first, write); err != nil || a.read("s", 1, "f") != "two" {
		t.Errorf("asked again: %v", err)
	}
	a.use("s", 1).Release()
	r.own("s", "b", 2, true)
	b.read("s", 2, "f")
	fails("another owner", ErrElsewhere)
}

// So much has changed since that nobody knows.
func TestAskedAgainTooLate(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	a.Beat()()
	r.own("s", "a", 1, true)
	first := time.Now()
	write := func(content string) func(h *Hold) error {
		return func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte(content)) }
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := a.ask("s", 1, fmt.Sprint("op", i), time.Time{}, write("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	err := a.ask("s", 1, "late", first, write("late"))
	if _, anew := errors.AsType[*Anew](err); !errors.Is(err, ErrForgotten) || anew {
		t.Errorf("%v (anew %v), want ErrForgotten", err, anew)
	}
	if got := a.read("s", 1, "f"); got != "x" {
		t.Errorf("f is %q", got)
	}
	if err := a.ask("s", 1, "later", time.Now().Add(2*clockSlack), write("later")); err != nil || a.read("s", 1, "f") != "later" {
		t.Errorf("first sent when all that is forgotten was done: %v", err)
	}
	if err := a.ask("s", 1, "new", time.Time{}, write("new")); err != nil {
		t.Errorf("sent for the first time: %v", err)
	}
}

// A fork is another session: what was done to its original is not done to it.
func TestForkHasNoOperations(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	write := func(h *Hold) error { return h.WriteFile(t.Context(), "f", []byte("one")) }
	if err := a.ask("s", 1, "op", time.Time{}, write); err != nil {
		t.Fatal(err)
	}
	r.own("fork", "a", 1, true)
	a.with("s", 1, func(h *Hold) error { return h.Fork(t.Context(), "fork", 1) })
	a.with("fork", 1, func(h *Hold) error { return h.DeleteFile(t.Context(), "f") })
	if err := a.ask("fork", 1, "op", time.Now(), write); err != nil || !strings.Contains(a.tree("fork", 1), `"one"`) {
		t.Errorf("asked of the fork: %v, it is %s", err, a.tree("fork", 1))
	}
}
