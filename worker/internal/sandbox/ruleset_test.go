package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
)

func TestRulesetsAreKept(t *testing.T) {
	policy := landlock.Runtime()
	policy.MinABI = 1
	held, err := policy.Hold()
	if err != nil {
		t.Skip(err)
	}
	defer held.Close()
	var kept rulesets
	places := make([]Place, keptRulesets+1)
	mkdirs := func(at Place) {
		for _, dir := range []string{at.Work, at.Tmp, at.Home} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range places {
		dir := filepath.Join(t.TempDir(), "session")
		places[i] = Place{Work: dir + "/work", Tmp: dir + "/tmp", Home: dir + "/home"}
		mkdirs(places[i])
	}
	of := func(i int) int {
		t.Helper()
		fd, err := kept.of(held, places[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Fatalf("place %d: descriptor %d: %v", i, fd, err)
		}
		return fd
	}
	if dir, err := identify(places[0].Work); err != nil || !dir.identification {
		t.Skipf("the file system doesn't tell times of birth: %v", err)
	}
	before := openFiles(t)
	fds := make([]int, keptRulesets)
	for i := range fds {
		fds[i] = of(i)
	}
	for i, fd := range fds {
		if again := of(i); again != fd {
			t.Errorf("place %d: descriptor %d, then %d", i, fd, again)
		}
	}
	of(0)            // 1 is now the one not used for longest
	of(keptRulesets) // and goes
	if fd := of(0); fd != fds[0] {
		t.Errorf("place 0: descriptor %d, then %d", fds[0], fd)
	}
	if got := openFiles(t) - before; got != keptRulesets {
		t.Errorf("%d descriptors are open, want %d", got, keptRulesets)
	}
	of(1)

	// Directories made anew under the same names are others.
	if err := os.RemoveAll(filepath.Dir(places[0].Work)); err != nil {
		t.Fatal(err)
	}
	mkdirs(places[0])
	old := kept[len(kept)-2].dirs
	of(0)
	if now := kept[len(kept)-1].dirs; now == old || now[0].path != places[0].Work {
		t.Errorf("directories made anew: %+v", now)
	}
	if got := openFiles(t) - before; got != keptRulesets {
		t.Errorf("%d descriptors are open, want %d", got, keptRulesets)
	}
	kept.close()
	if got := openFiles(t) - before; got != 0 {
		t.Errorf("%d descriptors are open after close", got)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
