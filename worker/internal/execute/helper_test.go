package execute

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/interpreter"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// testUID is the first of the users of the jobs when the tests run as root. They
// are this run's own: with a lost fork server all that its slot's user has is
// ended, and a limit of processes counts what it has anywhere.
var testUID = 680_000 + os.Getpid()%1024*testUsers

// testUsers is how many such users a run has, one for each slot and one more.
const testUsers = 64

var findPython = sync.OnceValues(func() (*interpreter.Interpreter, error) {
	var user *syscall.Credential
	if os.Getuid() == 0 {
		user = &syscall.Credential{Uid: uint32(testUID), Gid: uint32(testUID)}
	}
	return interpreter.Find(context.Background(), "", user)
})

// newSlot returns a slot and a place of its own to run in.
func newSlot(t testing.TB, change ...func(*Limits)) (*Slot, Place) {
	t.Helper()
	return newSlotWithout(t, nil, change...)
}

// newSlotWithout is newSlot with layers of the sandbox left out.
func newSlotWithout(t testing.TB, without []sandbox.Layer, change ...func(*Limits)) (*Slot, Place) {
	t.Helper()
	return newSlotOf(t, newPolicy(t, without), without, change...)
}

// newPolicy returns a sandbox. A process may have one at a time: making one
// clears away what an earlier one left.
func newPolicy(t testing.TB, without []sandbox.Layer) *sandbox.Policy {
	t.Helper()
	python, err := findPython()
	if err != nil {
		t.Skip(err)
	}
	policy, err := sandbox.NewPolicy(sandbox.Config{
		Users: os.Getuid() == 0 && !slices.Contains(without, sandbox.Users), Without: without, Writable: []string{jobs()},
		Runtime: slices.Concat(python.Prefixes, python.SysPath), Processes: 64, OpenFiles: 256, FileBytes: 64 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// newSlotOf returns another slot of the sandbox, with a user of its own.
func newSlotOf(t testing.TB, policy *sandbox.Policy, without []sandbox.Layer, change ...func(*Limits)) (*Slot, Place) {
	t.Helper()
	return newSlotConfigured(t, policy, without, func(c *Config) {
		for _, f := range change {
			f(&c.Limits)
		}
	})
}

func newSlotConfigured(t testing.TB, policy *sandbox.Policy, without []sandbox.Layer, change func(*Config)) (*Slot, Place) {
	t.Helper()
	python, err := findPython()
	if err != nil {
		t.Skip(err)
	}
	cfg := Config{Python: python, Policy: policy, Limits: DefaultLimits(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	// A machine that others use makes answers late; who tests the limit sets it.
	cfg.Limits.CaseWall = 30 * time.Second
	change(&cfg)
	number := testSlots.Add(1)
	if number >= testUsers {
		t.Fatalf("slot %d of %d: raise testUsers", number, testUsers-1)
	}
	uid := -1
	if os.Getuid() == 0 && !slices.Contains(without, sandbox.Users) {
		uid = testUID + int(number) // a user's processes are ended together
	}
	at := newPlaceOf(t, uid)
	s, err := NewSlot(cfg, fmt.Sprintf("test-%d", number), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, at
}

// testSlots numbers the tests' slots: names are unique in a process.
var testSlots atomic.Int64

// jobs is the directory below which the tests' jobs write.
var jobs = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "gradefleet-execute-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(jobs())
	os.Exit(code)
}

func newPlace(t testing.TB) Place {
	t.Helper()
	if os.Getuid() == 0 {
		return newPlaceOf(t, testUID)
	}
	return newPlaceOf(t, -1)
}

func newPlaceOf(t testing.TB, uid int) Place {
	t.Helper()
	dir, err := os.MkdirTemp(jobs(), "place-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := Place{Place: sandbox.Place{UID: -1, GID: -1, Work: filepath.Join(dir, "work"), Tmp: filepath.Join(dir, "tmp"), Home: filepath.Join(dir, "home")}}
	os.Chmod(dir, 0o711)
	for _, d := range []string{p.Work, p.Tmp, p.Home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if uid >= 0 {
		p.UID, p.GID = uid, uid
		for _, d := range []string{p.Work, p.Tmp, p.Home} {
			if err := os.Chown(d, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

type evalAnswer struct {
	Passed bool         `json:"passed"`
	Cases  []evalResult `json:"case_results"`
	Detail string       `json:"detail"`
}

type evalResult struct {
	Passed    bool    `json:"passed"`
	Got       any     `json:"got"`
	Expected  any     `json:"expected"`
	Error     *string `json:"error"`
	Status    string  `json:"status"`
	Stdout    string  `json:"stdout"`
	Trust     string  `json:"trust"`
	MemoryKB  int     `json:"memory_kb"`
	Integrity []string
}

func (r evalResult) error() string {
	if r.Error == nil {
		return ""
	}
	return *r.Error
}

// evaluate sends code with entry point f and cases of input, output, input, …
func evaluate(t testing.TB, s *Slot, at Place, code string, extra map[string]any, io ...string) evalAnswer {
	t.Helper()
	var cases []map[string]string
	for i := 0; i < len(io); i += 2 {
		cases = append(cases, map[string]string{"input": io[i], "output": io[i+1]})
	}
	body := map[string]any{"id": "x", "code": code, "entry_point": "f", "io_cases": cases}
	for k, v := range extra {
		body[k] = v
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Evaluate(context.Background(), raw, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ans evalAnswer
	if err := json.Unmarshal(a.Body, &ans); err != nil {
		t.Fatalf("answer %s: %v", a.Body, err)
	}
	return ans
}

func statuses(a evalAnswer) string {
	var s []string
	for _, c := range a.Cases {
		s = append(s, c.Status)
	}
	return strings.Join(s, " ")
}
