package spawner

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/pymarshal"
	"github.com/gradefleet/gradefleet/worker/internal/pyrunner"
)

// confinement is as sandbox.Room.Confine writes it.
func confinement(uid int64, link bool) []byte {
	b := pymarshal.AppendTuple(nil, 6)
	b = pymarshal.AppendInt(pymarshal.AppendInt(b, uid), uid)
	b = pymarshal.AppendString(b, "/work")
	b = pymarshal.AppendTuple(b, 2)
	for _, limit := range [][3]int64{{unix.RLIMIT_CPU, 120, 121}, {unix.RLIMIT_AS, 4 << 30, 4 << 30}} {
		b = pymarshal.AppendTuple(b, 3)
		for _, n := range limit {
			b = pymarshal.AppendInt(b, n)
		}
	}
	b = pymarshal.AppendDict(b, [][2]string{{"HOME", "/home"}, {"TMPDIR", "/tmp"}})
	if !link {
		return pymarshal.AppendNone(b)
	}
	return pymarshal.AppendString(pymarshal.AppendString(pymarshal.AppendTuple(b, 2), "/job/tmp"), "/sessions/tmp")
}

func message(command string, uid int64, link bool) []byte {
	return pyrunner.Run(command, confinement(uid, link))[4:]
}

func TestJobIsRead(t *testing.T) {
	var j job
	for _, uid := range []int64{-1, 219000} {
		if err := j.decode(message("echo hi", uid, uid < 0)); err != nil {
			t.Fatal(err)
		}
		if string(j.command) != "echo hi" || j.uid != uid || j.gid != uid || string(j.work) != "/work" || len(j.token) != 16 {
			t.Errorf("job %+v", j)
		}
		if link := string(j.link) + " " + string(j.linkedTo); (uid < 0) != (link == "/job/tmp /sessions/tmp") {
			t.Errorf("link %q", link)
		}
		want := []resourceLimit{{unix.RLIMIT_CPU, unix.Rlimit{Cur: 120, Max: 121}}, {unix.RLIMIT_AS, unix.Rlimit{Cur: 4 << 30, Max: 4 << 30}}}
		if got := j.limits[:j.nlimits]; !slices.Equal(got, want) {
			t.Errorf("limits %v, want %v", got, want)
		}
	}
	whole := message("echo hi", 219000, true)
	for n := range whole {
		if err := j.decode(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are a job", n, len(whole))
		}
	}
	other := pyrunner.Evaluate(pyrunner.EvaluateSpec{Source: "x", EntryPoint: "f"}, confinement(1, false), "")
	if err := j.decode(other[4:]); err == nil {
		t.Error("an evaluation is a job")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message("echo hi", -1, true))
	f.Add(message("", 219000, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		var j job
		if j.decode(b) == nil {
			new(plan).prepare(&j, nil, []string{"PATH=/bin"})
		}
	})
}

func TestPlan(t *testing.T) {
	var j job
	if err := j.decode(message("echo hi", 7, false)); err != nil {
		t.Fatal(err)
	}
	var p plan
	base := []string{"PATH=/bin", "HOME=/elsewhere", "LANG=C.UTF-8"}
	arena := p.prepare(&j, nil, base)
	if got := texts(p.argv); got != "/bin/sh|-c|echo hi" {
		t.Errorf("arguments %s", got)
	}
	if got := texts(p.envv); got != "HOME=/home|TMPDIR=/tmp|PATH=/bin|LANG=C.UTF-8" {
		t.Errorf("environment %s", got)
	}
	if texts([]*byte{p.path, p.work, nil}) != "/bin/sh|/work" || !p.users || p.uid != 7 || p.gid != 7 || p.nlimits != 2 {
		t.Errorf("plan %+v", p)
	}
	// The collector of garbage is off: a job is not to make any.
	raw := message("echo hi", 7, false)
	if n := testing.AllocsPerRun(100, func() {
		if j.decode(raw) == nil {
			arena = p.prepare(&j, arena, base)
		}
	}); n > 0 {
		t.Errorf("%v allocations a job", n)
	}
}

// texts joins C strings, up to the nil at the end.
func texts(list []*byte) string {
	var all []string
	for _, p := range list[:slices.Index(list, nil)] {
		all = append(all, unix.BytePtrToString(p))
	}
	return strings.Join(all, "|")
}

// A message may come in parts, and bring a descriptor with the first. The rest is
// written by another process: receiving keeps a processor without the Go
// runtime's knowledge, so that a goroutine might never get to write, be it for
// want of one or because the runtime waits for all of them to stop.
func TestReceiveJob(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "channel")
	defer theirs.Close()
	s := &server{message: make([]byte, usualMessage), channel: pair[0]}
	long := bytes.Repeat([]byte("long "), 20_000)
	for _, want := range [][]byte{[]byte("short"), long, []byte("again")} {
		whole := append(binary.LittleEndian.AppendUint32(nil, uint32(len(want))), want...)
		if err := unix.Sendmsg(pair[1], whole[:2], unix.UnixRights(0), nil, 0); err != nil {
			t.Fatal(err)
		}
		rest := filepath.Join(t.TempDir(), "rest")
		if err := os.WriteFile(rest, whole[2:], 0o600); err != nil {
			t.Fatal(err)
		}
		writer := exec.Command("cat", rest)
		writer.Stdout = theirs // a file: there is no goroutine that copies
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		s.plan.ruleset = -1
		got, err := s.receiveJob()
		if err := writer.Wait(); err != nil {
			t.Fatal(err)
		}
		if err != nil || !bytes.Equal(got, want) || s.plan.ruleset < 0 {
			t.Fatalf("received %d bytes with descriptor %d, error %v; want %d", len(got), s.plan.ruleset, err, len(want))
		}
		unix.Close(s.plan.ruleset)
	}
	unix.Shutdown(pair[1], unix.SHUT_WR)
	if got, err := s.receiveJob(); got != nil || err != nil {
		t.Errorf("at the end: %q, error %v", got, err)
	}
	unix.Close(pair[0])
}
