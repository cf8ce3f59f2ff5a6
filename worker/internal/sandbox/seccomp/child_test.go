package seccomp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childName is argv[0] of a process that filters itself as ordered, tries
// things, and says how each went.
const childName = "seccomp-test-child"

// order is what such a process is told.
type order struct {
	Policy Policy
	// Unfiltered leaves the filter out, for comparison.
	Unfiltered bool
	// KeepPrivileges leaves no_new_privs out.
	KeepPrivileges bool
	// Listen has the filter tell, and says the listener's descriptor first.
	Listen bool
	// Times is how often the filter is installed, 0 as 1.
	Times int
	// Threads are started before the filter. The calls are made on each.
	Threads int
	Calls   []rawCall
	// Exec replaces the process.
	Exec []string
}

type rawCall struct {
	Number uintptr
	Args   [6]uintptr
}

func TestMain(m *testing.M) {
	if os.Args[0] == childName {
		runtime.LockOSThread()
		var o order
		if err := json.Unmarshal([]byte(os.Args[1]), &o); err != nil {
			panic(err)
		}
		if err := o.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			unix.Exit(1)
		}
		unix.Exit(0) // quicker with the race detector, which sleeps for a second before
	}
	os.Exit(m.Run())
}

func (o order) run() error {
	var started, done sync.WaitGroup
	filtered := make(chan struct{})
	said := make([]bytes.Buffer, o.Threads)
	for i := range said {
		started.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			started.Done()
			<-filtered
			o.call(&said[i])
		})
	}
	started.Wait()
	if !o.KeepPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if o.Listen {
		fd, err := o.Policy.InstallListener()
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0) // it stays open in the program
		}
		if err != nil {
			return err
		}
		fmt.Println(fd)
	} else if !o.Unfiltered {
		for range max(1, o.Times) {
			if err := o.Policy.Install(); err != nil {
				return err
			}
		}
		// Some of the calls would do harm.
		status, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			return err
		}
		if !bytes.Contains(status, []byte("Seccomp:\t2\n")) {
			return fmt.Errorf("no filter in force: %s", status)
		}
	}
	close(filtered)
	var main bytes.Buffer
	o.call(&main)
	done.Wait()
	for i := range said {
		main.Write(said[i].Bytes())
	}
	if _, err := os.Stdout.Write(main.Bytes()); err != nil {
		return err
	}
	if len(o.Exec) > 0 {
		return unix.Exec(o.Exec[0], o.Exec, os.Environ())
	}
	return nil
}

func (o order) call(out *bytes.Buffer) {
	for _, c := range o.Calls {
		_, _, e := unix.RawSyscall6(c.Number, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
		if name := unix.ErrnoName(e); e != 0 {
			fmt.Fprintln(out, name)
		} else {
			fmt.Fprintln(out, "ok")
		}
	}
}

// nobody is the user that has no rights of its own.
const nobody = 65534

// users calls test for each user that tests can be run as.
func users(t *testing.T, test func(t *testing.T, uid int)) {
	if os.Getuid() != 0 {
		t.Run("as oneself", func(t *testing.T) { test(t, os.Getuid()) })
		return
	}
	t.Run("as root", func(t *testing.T) { test(t, 0) })
	t.Run("as nobody", func(t *testing.T) { test(t, nobody) })
}

// need skips a test where there are no filters.
func need(t testing.TB) {
	t.Helper()
	if err := probed(); err != nil {
		t.Skip(err)
	}
}

var probed = sync.OnceValue(func() error { return Probe(context.Background()) })

// child returns a command that carries out an order as a user, in a session
// without a terminal.
func child(t testing.TB, uid int, o order) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{childName, string(data)}
	cmd.Dir = "/"
	// The race detector would sleep for a second at each exit.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return cmd
}

// carryOut carries out an order and returns the lines it printed.
func carryOut(t testing.TB, uid int, o order) []string {
	t.Helper()
	out, err := child(t, uid, o).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// directory returns a new directory of a user's, which the test removes.
func directory(t testing.TB, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "seccomp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, uid); err != nil && uid != os.Getuid() {
		t.Fatal(err)
	}
	return dir
}
