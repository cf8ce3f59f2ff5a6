package landlock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childName is argv[0] of a process that restricts itself as ordered, tries
// things, and says how each went.
const childName = "landlock-test-child"

// order is what such a process is told.
type order struct {
	// Policies are put in force one upon the other, then the rulesets.
	Policies []Policy
	// Without, if not zero, is left out of what is handled.
	Without Access
	// Rulesets are the numbers of inherited descriptors.
	Rulesets []int
	Steps    []step
}

// step is an operation and its arguments: see ops.
type step []string

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
		// Not os.Exit: that writes coverage files, which the policy refuses, and
		// sleeps a second under the race detector.
		unix.Exit(0)
	}
	os.Exit(m.Run())
}

func (o order) run() error {
	for _, p := range o.Policies {
		if o.Without == (Access{}) {
			if err := p.Restrict(); err != nil {
				return err
			}
			continue
		}
		abi, err := ABI()
		if err != nil {
			return err
		}
		all := Best(abi)
		h, err := p.hold("", Access{all.FS &^ o.Without.FS, all.Net &^ o.Without.Net, all.Scoped &^ o.Without.Scoped})
		if err != nil {
			return err
		}
		fd, err := h.Ruleset()
		if err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if err := Enter(fd); err != nil {
			return err
		}
	}
	for _, fd := range o.Rulesets {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if err := Enter(fd); err != nil {
			return err
		}
	}
	for _, s := range o.Steps {
		fmt.Println(outcome(ops[s[0]](s[1:])))
	}
	return nil
}

// outcome is "ok", the name of an errno, or other words.
func outcome(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return strings.ReplaceAll(err.Error(), "\n", " | ")
}

var ops = map[string]func([]string) error{
	"read":     func(a []string) error { return openAndClose(a[0], unix.O_RDONLY) },
	"write":    func(a []string) error { return openAndClose(a[0], unix.O_WRONLY) },
	"readback": readBack,
	"list":     func(a []string) error { return openAndClose(a[0], unix.O_RDONLY|unix.O_DIRECTORY) },
	"truncate": func(a []string) error { return unix.Truncate(a[0], 1) },
	"mkdir":    func(a []string) error { return unix.Mkdir(a[0], 0o755) },
	"rmdir":    func(a []string) error { return unix.Rmdir(a[0]) },
	"unlink":   func(a []string) error { return unix.Unlink(a[0]) },
	"rename":   func(a []string) error { return unix.Rename(a[0], a[1]) },
	"link":     func(a []string) error { return unix.Link(a[0], a[1]) },
	"symlink":  func(a []string) error { return unix.Symlink(a[0], a[1]) },
	"mkfile":   func(a []string) error { return unix.Mknod(a[0], unix.S_IFREG|0o644, 0) },
	"mkfifo":   func(a []string) error { return unix.Mknod(a[0], unix.S_IFIFO|0o644, 0) },
	"mksock":   func(a []string) error { return unix.Mknod(a[0], unix.S_IFSOCK|0o644, 0) },
	"mkchar":   func(a []string) error { return unix.Mknod(a[0], unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) },
	"mkblock":  func(a []string) error { return unix.Mknod(a[0], unix.S_IFBLK|0o644, int(unix.Mkdev(7, 0))) },
	"stat":     func(a []string) error { var st unix.Stat_t; return unix.Stat(a[0], &st) },
	"chmod":    func(a []string) error { return unix.Chmod(a[0], 0o777) },
	"chdir":    func(a []string) error { return unix.Chdir(a[0]) },
	// entropy asks the random device for its count: an ioctl of its own.
	"entropy": func(a []string) error {
		fd, err := unix.Open(a[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		defer unix.Close(fd)
		_, err = unix.IoctlGetInt(fd, unix.RNDGETENTCNT)
		return err
	},
	"connect": func(a []string) error {
		port, err := strconv.Atoi(a[0])
		return errors.Join(err, withSocket(unix.AF_INET, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		}))
	},
	"bind": func([]string) error {
		return withSocket(unix.AF_INET, func(fd int) error {
			return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		})
	},
	// unix connects to an abstract (@) or a named socket.
	"unix": func(a []string) error {
		return withSocket(unix.AF_UNIX, func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: a[0]}) })
	},
	// ownunix makes one and connects to it.
	"ownunix": func(a []string) error {
		return withSocket(unix.AF_UNIX, func(fd int) error {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: a[0]}); err != nil {
				return fmt.Errorf("bind: %w", err)
			}
			if err := unix.Listen(fd, 1); err != nil {
				return err
			}
			return withSocket(unix.AF_UNIX, func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: a[0]}) })
		})
	},
	"kill": func(a []string) error {
		pid, err := strconv.Atoi(a[0])
		return errors.Join(err, unix.Kill(pid, 0))
	},
	"killparent": func([]string) error { return unix.Kill(os.Getppid(), 0) },
	// killchild starts a program that waits, and ends it.
	"killchild": func([]string) error {
		cmd := exec.Command("/bin/cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		defer in.Close()
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := unix.Kill(cmd.Process.Pid, unix.SIGKILL); err != nil {
			in.Close()
			return errors.Join(err, cmd.Wait())
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
			return fmt.Errorf("ended as %v", cmd.ProcessState)
		}
		return nil
	},
	// exec runs a program and wants its last argument as the output.
	"exec": func(a []string) error {
		argv, want := a[:len(a)-1], a[len(a)-1]
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if got := string(bytes.TrimSpace(out)); got != want || err != nil {
			return fmt.Errorf("%w: %s", err, got)
		}
		return nil
	},
	// become executes a program in the place of this one.
	"become": func(a []string) error { return unix.Exec(a[0], a, os.Environ()) },
	// memfd runs a program from memory.
	"memfd": func(a []string) error {
		data, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, data); err != nil {
			return err
		}
		cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
		return cmd.Run()
	},
}

// readBack writes a file and reads what it wrote.
func readBack(a []string) error {
	if err := os.WriteFile(a[0], []byte("content"), 0o644); err != nil {
		return err
	}
	data, err := os.ReadFile(a[0])
	if err == nil && string(data) != "content" {
		err = fmt.Errorf("read %q", data)
	}
	return err
}

func withSocket(family int, do func(fd int) error) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	return do(fd)
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

// need skips a test on a kernel with less.
func need(t testing.TB, abi int) {
	t.Helper()
	if have, err := ABI(); have < abi {
		t.Skipf("needs Landlock ABI %d, the kernel has %d (%v)", abi, have, err)
	}
}

// command returns a command that carries out an order as a user, with files as
// descriptors 3 and up.
func command(t testing.TB, uid int, o order, files ...*os.File) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{childName, string(data)}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	as(cmd, uid)
	return cmd
}

// as makes cmd run as a user.
func as(cmd *exec.Cmd, uid int) {
	if uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
}

// carryOut carries out an order and returns the outcome of each step.
func carryOut(t testing.TB, uid int, o order, files ...*os.File) []string {
	t.Helper()
	out, err := command(t, uid, o, files...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(o.Steps) {
		t.Fatalf("%d steps, outcomes: %s", len(o.Steps), out)
	}
	return lines
}

// stage returns a new directory with what the steps of the tests work on, all
// of it the user's: in/ may be written under the tests' policies, out/ may not.
func stage(t testing.TB, uid int) (in, out string) {
	t.Helper()
	top := t.TempDir()
	// For the user to reach it: the directory above is the test's own.
	for _, dir := range []string{filepath.Dir(top), top} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, side := range []string{"in", "out"} {
		for _, d := range []string{"", "a", "a/deep", "b", "empty"} {
			if err := os.Mkdir(filepath.Join(top, side, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		program, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string]string{"a/file": "0123456789", "a/other": "x", "program": string(program)} {
			if err := os.WriteFile(filepath.Join(top, side, name), []byte(data), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if uid != os.Getuid() {
		err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, uid, uid))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(top, "in"), filepath.Join(top, "out")
}
