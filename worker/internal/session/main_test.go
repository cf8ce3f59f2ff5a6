package session

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run as whoever runs them: as root with a pool of user ids, else
// without. TestAsOrdinaryUser runs them all again without when they run as root.
// No fleet that other tests start beside these has such ids: a process of theirs
// would be ended with the fleet's own.
const (
	testUIDBase  = 830_000
	testUIDCount = 50
)

// roleVar makes the test binary play another process instead.
const roleVar = "GRADEFLEET_SESSION_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" && role != roleUser {
		if err := playRole(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		unix.Exit(0) // quicker with the race detector, which sleeps for a second before
	}
	os.Exit(m.Run())
}

const (
	roleUser  = "user"  // the tests, as an ordinary user
	roleLease = "lease" // holds a write lease on args[0] until its input ends
)

func playRole(role string, args []string) error {
	if role != roleLease {
		return fmt.Errorf("unknown role %q", role)
	}
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return fmt.Errorf("take lease: %w", err)
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startRole starts the test binary in a role, as a user, and waits until it says
// that it is ready. It ends with the test.
func startRole(t *testing.T, uid int, role string, args ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	if uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	in, err := cmd.StdinPipe()
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("role %s: %v", role, err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("role %s said %q, %v", role, line, err)
	}
}

func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // these tests are that run
	}
	tmp := reachable(t)
	ok(t, os.Chown(tmp, nobody, nobody))
	// By way of /proc: the binary lies in a directory that only root can enter.
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=4m")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), roleVar+"="+roleUser, "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the tests as user %d: %v\n%s", nobody, err, out)
	}
	if n := strings.Count(string(out), "--- PASS: Test"); n < 20 {
		t.Fatalf("only %d tests passed as user %d:\n%s", n, nobody, out)
	}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error is %v, want one of kind %q", err, kind)
	}
	e, typed := errors.AsType[*Error](err)
	if !typed || e.Text == "" {
		t.Fatalf("error %v is no *Error with a text", err)
	}
	if strings.Contains(e.Text, os.TempDir()) || strings.Contains(e.Text, "/proc/") {
		t.Fatalf("text %q holds a host path", e.Text)
	}
}

func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Fatalf("error is %v, want %q", err, text)
	}
}

// reachable is t.TempDir, but other users can pass through to it.
func reachable(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		ok(t, err)
		if info.Mode()&1 == 0 {
			ok(t, os.Chmod(at, info.Mode()|0o011))
		}
	}
	return dir
}

func testConfig(root string) Config {
	c := Config{Root: root}
	if os.Geteuid() == 0 {
		c.UIDBase, c.UIDCount = testUIDBase, testUIDCount
	}
	return c
}

func openStore(t *testing.T, c Config) *Store {
	t.Helper()
	before := descriptors(t)
	st, err := Open(c)
	ok(t, err)
	t.Cleanup(func() {
		ok(t, st.Close())
		if after := descriptors(t); len(after) > len(before) {
			t.Errorf("descriptors leaked: before %q, after %q", before, after)
		}
	})
	return st
}

// newStore opens a store in a new directory; adjust may change its config.
func newStore(t *testing.T, adjust ...func(*Config)) *Store {
	t.Helper()
	c := testConfig(filepath.Join(reachable(t), "data"))
	for _, fn := range adjust {
		fn(&c)
	}
	return openStore(t, c)
}

func newSession(t *testing.T, st *Store) *Session {
	t.Helper()
	s, err := st.Create("session", 1)
	ok(t, err)
	return s
}

// descriptors lists what the process has open, but for the runtime's own.
func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	var open []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/proc/") {
			open = append(open, target)
		}
	}
	slices.Sort(open)
	return open
}

// as does what a job of the session would, as its user.
func as(t *testing.T, p interface{ UID() int }, fn func() error) {
	t.Helper()
	ok(t, asUser(p.UID(), fn))
}

// patience is how long something may take that doesn't wait for anything, on a
// machine that others use.
const patience = 2 * time.Minute

// within ends the tests if fn takes so long that it must be stuck.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	watchdog := time.AfterFunc(patience, func() { panic(t.Name() + ": " + what + " blocks") })
	defer watchdog.Stop()
	fn()
}

// exists says whether there is anything of that name.
func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func owner(t *testing.T, path string) (uid, gid int, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	ok(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), info.Mode()
}
