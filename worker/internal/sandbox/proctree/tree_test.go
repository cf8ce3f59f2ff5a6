package proctree

import (
	"io/fs"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " 0 -1 4194304 1 2 3 4 150 50 7 3 20 0 5 0 987654 1 2"
	for name, line := range map[string]string{
		"plain":                  "42 (sh) S 7 1 1" + rest,
		"parentheses and blanks": "42 (a) R 1 (b) S 7 1 1" + rest,
		"line break":             "42 (a\n1) S 7 1 1" + rest,
	} {
		t.Run(name, func(t *testing.T) {
			want := stat{pid: 42, ppid: 7, threads: 5, state: 'S', cpu: 2 * time.Second, reaped: 100 * time.Millisecond, start: 987654}
			if got, ok := parseStat([]byte(line)); !ok || got != want {
				t.Errorf("got %+v, %v; want %+v", got, ok, want)
			}
		})
	}
	for _, line := range []string{"", "42", "42 (sh", "42 (sh)", "42 (sh) S 7 1"} {
		if got, ok := parseStat([]byte(line)); ok {
			t.Errorf("%q is taken as %+v", line, got)
		}
	}
}

// family is a tree with every way of being a descendant. It says the pids.
const family = `
def parent():
    child(lambda: (say(os.getpid()), stay()))
    say(os.getpid())
    stay()
def threaded():
    def other():
        child(lambda: (say(os.getpid()), stay()))
        stay_thread.wait()
    stay_thread = threading.Event()
    threading.Thread(target=other).start()
    say(os.getpid())
    stay()
def orphaning():
    child(lambda: (os.setsid(), child(lambda: (say(os.getpid()), stay())), os._exit(0)))
    os.wait()
    os._exit(0)
child(parent)
child(threaded)
orphaning = child(orphaning)
zombie = child(lambda: os._exit(0))
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
os.waitpid(orphaning, 0)
say(zombie)
stay()
`

func TestDescendants(t *testing.T) {
	tr := plant(t, family)
	var want []int
	for range 6 {
		pid, err := strconv.Atoi(tr.hear()[0])
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, pid)
	}
	slices.Sort(want)
	if !haveChildren() {
		t.Error("the kernel has no lists of children: not tested")
	}
	for _, scan := range []bool{false, true} {
		t.Run(map[bool]string{false: "by lists of children", true: "by a scan"}[scan], func(t *testing.T) {
			r := readers.New().(*reader)
			r.scan = scan
			top, procs, err := r.walk(tr.pid)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, p := range procs {
				got = append(got, p.pid)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if top.ppid != os.Getpid() {
				t.Errorf("root's parent is %d, want %d", top.ppid, os.Getpid())
			}
		})
	}
	got, err := Descendants(tr.pid)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Descendants: got %v, %v; want %v", got, err, want)
	}
}

func TestRootGone(t *testing.T) {
	tr := plant(t, "")
	tr.wait()
	for name, do := range map[string]func() error{
		"Descendants":  func() error { _, err := Descendants(tr.pid); return err },
		"Measure":      func() error { _, err := Measure(tr.pid); return err },
		"MeasureExact": func() error { _, err := MeasureExact(tr.pid); return err },
		"DeletedFiles": func() error { _, _, err := DeletedFiles(tr.pid); return err },
		"End":          func() error { _, err := End(tr.pid, time.Second); return err },
	} {
		if err := do(); !gone(err) {
			t.Errorf("%s: got %v, want %v", name, err, fs.ErrNotExist)
		}
	}
}
