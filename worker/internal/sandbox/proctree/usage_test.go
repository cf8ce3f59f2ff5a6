package proctree

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// between fails unless a number of bytes is in a range.
func between(t *testing.T, what string, got, from, to int64) {
	t.Helper()
	if got < from || got > to {
		t.Errorf("%s is %.1f MiB, want %.1f to %.1f", what, float64(got)/mib, float64(from)/mib, float64(to)/mib)
	}
}

func measure(t *testing.T, root int) (cheap, exact Usage) {
	t.Helper()
	cheap, err := Measure(root)
	if err != nil {
		t.Fatal(err)
	}
	if exact, err = MeasureExact(root); err != nil {
		t.Fatal(err)
	}
	return cheap, exact
}

func TestCountsProcessesAndThreads(t *testing.T) {
	tr := plant(t, `
def work():
    for _ in range(3):
        threading.Thread(target=threading.Event().wait).start()
    say("ready")
    stay()
child(work)
child(work)
zombie = child(lambda: os._exit(0))
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
say("ready")
stay()
`)
	tr.hears(3)
	u, err := Measure(tr.pid)
	if err != nil || u.Processes != 2 || u.Threads != 8 {
		t.Errorf("got %+v, %v; want 2 processes, 8 threads", u, err)
	}
}

func TestMemoryOfForksCountsOnceWhenExact(t *testing.T) {
	tr := plant(t, `
def work():
    m = touch(64 << 20)
    for _ in range(4):
        child(lambda: (say("ready"), stay()))
    stay()
child(work)
stay()
`)
	tr.hears(4)
	cheap, exact := measure(t, tr.pid)
	between(t, "cheap sum", cheap.MemoryBytes, 5*64*mib, 5*128*mib)
	between(t, "exact sum", exact.MemoryBytes, 64*mib, 128*mib)
}

func TestMemoryOutsideProcesses(t *testing.T) {
	for name, program := range map[string]string{
		"memfd that is open": `
fd = os.memfd_create("x")
for _ in range(64): os.write(fd, bytes(1 << 20))
`,
		"deleted file of /dev/shm that is open": `
fd = os.open("/dev/shm/proctree-test-%d" % os.getpid(), os.O_RDWR | os.O_CREAT)
os.unlink("/dev/shm/proctree-test-%d" % os.getpid())
for _ in range(64): os.write(fd, bytes(1 << 20))
`,
		"memfd of which one page is mapped": `
fd = os.memfd_create("x")
for _ in range(64): os.write(fd, bytes(1 << 20))
m = mmap.mmap(fd, 4096)
os.close(fd)
libc.close(int(fd) + 1)  # mmap keeps a copy
`,
		"shared mapping": `
m = mmap.mmap(-1, 64 << 20)
for at in range(0, 64 << 20, 4096): m[at] = 1
child(lambda: stay())
`,
	} {
		t.Run(name, func(t *testing.T) {
			tr := plant(t, "def work():\n    global m, fd\n    "+indent(program)+"\n    say('ready')\n    stay()\nchild(work)\nstay()\n")
			tr.hears(1)
			_, exact := measure(t, tr.pid)
			between(t, "exact sum", exact.MemoryBytes, 64*mib, 96*mib)
			if size, files, err := DeletedFiles(tr.pid); size != 0 || files != 0 || err != nil {
				t.Errorf("on disk: %d bytes, %d files, %v; want nothing", size, files, err)
			}
		})
	}
}

// A program whose first thread ended has nothing under its pid.
func TestMemoryWithoutFirstThread(t *testing.T) {
	tr := plant(t, headless)
	waitForHeadless(t, tr)
	cheap, exact := measure(t, tr.pid)
	if cheap.Processes != 1 {
		t.Errorf("%d processes live, want 1", cheap.Processes)
	}
	between(t, "cheap sum", cheap.MemoryBytes, 64*mib, 96*mib)
	between(t, "exact sum", exact.MemoryBytes, 64*mib, 96*mib)
}

// headless is a process without its first thread, with memory and a deleted
// file.
const headless = `
def work():
    global m
    m = touch(64 << 20)
    fd = os.open(dir + "/file", os.O_RDWR | os.O_CREAT)
    os.unlink(dir + "/file")
    os.write(fd, bytes(8 << 20))
    threading.Thread(target=signal.pause).start()
    say(os.getpid())
    behead()
child(work)
stay()
`

func waitForHeadless(t *testing.T, tr *tree) {
	t.Helper()
	tr.hears(1)
	r := readers.New().(*reader)
	for deadline := time.Now().Add(patience); ; {
		if _, procs, err := r.walk(tr.pid); err == nil && len(procs) == 1 && procs[0].headless() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the first thread doesn't end")
		}
	}
}

func TestCPU(t *testing.T) {
	tr := plant(t, `
def work():
    burn(0.3)
    say("burnt")
    hear()
    os._exit(0)
pid = child(work)
os.waitpid(pid, 0)
say("reaped")
stay()
`)
	tr.hears(1)
	running, err := Measure(tr.pid)
	if err != nil {
		t.Fatal(err)
	}
	tr.goOn()
	tr.hears(1)
	reaped, err := Measure(tr.pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]Usage{"running": running, "reaped": reaped} {
		if u.CPU < 280*time.Millisecond || u.CPU > 2*time.Second {
			t.Errorf("%s: CPU is %v, want about 300ms", name, u.CPU)
		}
	}
	if reaped.Processes != 0 {
		t.Errorf("%d processes left", reaped.Processes)
	}
}

func TestWrittenBytes(t *testing.T) {
	tr := plant(t, `
def work():
    fd = os.open(dir + "/file", os.O_RDWR | os.O_CREAT)
    for _ in range(8): os.write(fd, bytes(1 << 20))
    say("ready")
    stay()
child(work)
stay()
`)
	var fs unix.Statfs_t
	if err := unix.Statfs(tr.dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skipf("the temporary directory is on no disk (%v)", err)
	}
	tr.hears(1)
	u, err := MeasureExact(tr.pid)
	if err != nil {
		t.Fatal(err)
	}
	between(t, "written", u.WrittenBytes, 8*mib, 16*mib)
}

// As root in a plain container, which may trace nobody.
func TestMeasureWithoutTracing(t *testing.T) {
	uid := user(t, 1)
	for _, c := range []struct {
		name, program string
		memory        [2]int64 // MiB
		files         int
	}{
		{"dumpable", "libc.prctl(4, 1, 0, 0, 0)", [2]int64{64, 128}, 1},
		{"not dumpable", "libc.prctl(4, 0, 0, 0, 0)", [2]int64{5 * 64, 5 * 96}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, fmt.Sprintf(`
def work():
    become(%d)
    %s
    m = touch(64 << 20)
    fd = os.open(dir + "/file", os.O_RDWR | os.O_CREAT)
    os.unlink(dir + "/file")
    os.write(fd, bytes(1 << 20))
    for _ in range(4):
        child(lambda: (say("ready"), stay()))
    stay()
child(work)
stay()
`, uid, c.program))
			tr.hears(4)
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{untracing, fmt.Sprint(tr.pid)}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var memory, size int64
			var files int
			if _, err := fmt.Sscan(string(out), &memory, &size, &files); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			between(t, "exact sum", memory, c.memory[0]*mib, c.memory[1]*mib)
			if files != c.files {
				t.Errorf("%d deleted files (%d bytes), want %d", files, size, c.files)
			}
		})
	}
}

func indent(s string) string {
	out := []byte{}
	for _, c := range []byte(s) {
		if out = append(out, c); c == '\n' {
			out = append(out, "    "...)
		}
	}
	return string(out)
}
