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

	"github.com/gradefleet/gradefleet/worker/internal/session"
)

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
