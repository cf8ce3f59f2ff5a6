package seccomp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attempt is a call and what has to come of it.
type attempt struct {
	Name string
	Call rawCall
	Want string
}

// refusedOutright returns the calls that this machine has and the policy
// refuses whatever their arguments. They are tried with arguments of which no
// kernel makes anything.
func refusedOutright() []attempt {
	names := map[uint32]string{eperm: "EPERM", enosys: "ENOSYS", eopnotsupp: "EOPNOTSUPP"}
	machine := architectures[runtime.GOARCH]
	var list []attempt
	for _, c := range (Policy{}).classes() {
		for name := range strings.FieldsSeq(c.calls) {
			for number, n := range machine.calls {
				if n == name && c.verdict.otherwise != allowed {
					none := ^uintptr(0)
					list = append(list, attempt{name, rawCall{uintptr(number), [6]uintptr{none, none, none, none, none, none}}, names[c.verdict.otherwise]})
				}
			}
		}
	}
	return list
}

// by returns an attempt at one call with arguments.
func by(name, want string, number uintptr, args ...uintptr) attempt {
	a := attempt{Name: fmt.Sprintf("%s%#x", name, args), Call: rawCall{Number: number}, Want: want}
	copy(a.Call.Args[:], args)
	return a
}

// byArguments are attempts at calls that depend on their arguments, with pairs
// that differ in what matters only.
var byArguments = []attempt{
	by("socketpair stream", "EFAULT", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0, 0),
	by("socketpair seqpacket", "EFAULT", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, 0),
	by("socketpair datagram", "EPERM", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM, 0, 0),
	by("socketpair raw", "EPERM", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_RAW|unix.SOCK_NONBLOCK, 0, 0),
	by("socketpair internet", "EPERM", unix.SYS_SOCKETPAIR, unix.AF_INET, unix.SOCK_STREAM, 0, 0),
	by("sendto out of band", "EOPNOTSUPP", unix.SYS_SENDTO, ^uintptr(0), 0, 0, unix.MSG_OOB),
	by("sendto", "EBADF", unix.SYS_SENDTO, ^uintptr(0), 0, 0, 0),
	by("recvmsg out of band", "EOPNOTSUPP", unix.SYS_RECVMSG, ^uintptr(0), 0, unix.MSG_OOB|unix.MSG_DONTWAIT),
	by("clone with a user namespace", "EPERM", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)),
	by("clone with a network namespace", "EPERM", unix.SYS_CLONE, unix.CLONE_NEWNET|unix.CLONE_NEWUSER),
	by("clone of a sibling", "EPERM", unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD)),
	by("clone, impossible", "EINVAL", unix.SYS_CLONE, unix.CLONE_THREAD),
	by("prlimit64 of oneself", "ok", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CPU, 0, 0),
	by("prlimit64 asking init", "EFAULT", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CPU, 0, 1),
	by("prlimit64 of init", "EPERM", unix.SYS_PRLIMIT64, 1, unix.RLIMIT_CPU, 1),
	by("prlimit64 of oneself, bad pointer", "EFAULT", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CPU, 1),
	by("setpriority of a user", "EPERM", unix.SYS_SETPRIORITY, unix.PRIO_USER, 0, 19),
	by("setpriority of init", "EPERM", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 1, 19),
	by("setpriority of oneself", "ok", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, 19),
	by("sched_setaffinity of init", "EPERM", unix.SYS_SCHED_SETAFFINITY, 1, 8, 0),
	by("sched_setaffinity of oneself, bad pointer", "EFAULT", unix.SYS_SCHED_SETAFFINITY, 0, 8, 1),
	by("ioctl TIOCSTI", "EPERM", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCSTI),
	by("ioctl TIOCSTI, hidden", "EPERM", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCSTI|1<<40),
	by("ioctl TIOCLINUX", "EPERM", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCLINUX),
	by("ioctl TIOCSETD", "EPERM", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCSETD),
	by("ioctl TCGETS", "EBADF", unix.SYS_IOCTL, ^uintptr(0), unix.TCGETS),
	by("prctl PR_SET_MM", "EPERM", unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_BRK, 1),
	by("prctl PR_SCHED_CORE", "EPERM", unix.SYS_PRCTL, unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, 0, 0),
	by("prctl, newer", "EINVAL", unix.SYS_PRCTL, newestOption+1),
	by("prctl PR_SET_PDEATHSIG", "ok", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0),
	by("personality of 32-bit Linux", "EPERM", unix.SYS_PERSONALITY, 8),
	by("personality, asking", "ok", unix.SYS_PERSONALITY, queryPersonality),
	by("mknodat of a device", "EPERM", unix.SYS_MKNODAT, ^uintptr(0), 0, unix.S_IFCHR|0o600, 0x103),
	by("mknodat of a pipe", "EFAULT", unix.SYS_MKNODAT, ^uintptr(0), 0, unix.S_IFIFO|0o600, 0),
	by("getpid", "ok", unix.SYS_GETPID),
	by("a number without a call", "ENOSYS", 4000),
}

// TestRefused makes all attempts with a filter, from this program and from
// Python.
func TestRefused(t *testing.T) {
	need(t)
	attempts := append(refusedOutright(), byArguments...)
	var o order
	for _, a := range attempts {
		o.Calls = append(o.Calls, a.Call)
	}
	if len(attempts) < 120 {
		t.Fatalf("only %d attempts", len(attempts))
	}
	users(t, func(t *testing.T, uid int) {
		t.Run("from Go", func(t *testing.T) {
			compare(t, attempts, carryOut(t, uid, o))
		})
		t.Run("from Python", func(t *testing.T) {
			needProgram(t, python)
			data, err := json.Marshal(attempts)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, attempts, carryOut(t, uid, order{Exec: []string{python, "-c", `
import ctypes, errno, json, sys
syscall = ctypes.CDLL(None, use_errno=True).syscall
for a in json.loads(sys.argv[1]):
    args = [ctypes.c_ulong(v) for v in [a["Call"]["Number"]] + a["Call"]["Args"]]
    r = syscall(*args)
    print(errno.errorcode[ctypes.get_errno()] if r == -1 else "ok")
`, string(data)}}))
		})
	})
}

func compare(t *testing.T, attempts []attempt, got []string) {
	t.Helper()
	if len(got) != len(attempts) {
		t.Fatalf("%d attempts, outcomes: %v", len(attempts), got)
	}
	for i, a := range attempts {
		// Linux has two names for one number.
		if got[i] == "ENOTSUP" {
			got[i] = "EOPNOTSUPP"
		}
		if got[i] != a.Want {
			t.Errorf("%s: %s, want %s", a.Name, got[i], a.Want)
		}
	}
}

// TestRefusalsAreTheFilters makes attempts that work without the filter, so
// that the outcomes of TestRefused can't all be something else's doing.
func TestRefusalsAreTheFilters(t *testing.T) {
	need(t)
	attempts := []attempt{
		by("socket internet", "", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0),
		by("socket unix", "", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0),
		by("socket netlink", "", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0),
		by("ptrace", "", unix.SYS_PTRACE, unix.PTRACE_TRACEME),
		by("personality", "", unix.SYS_PERSONALITY, 8),
		by("kcmp", "", unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 2),
		by("unshare nothing", "", unix.SYS_UNSHARE, 0),
		by("name_to_handle_at", "", unix.SYS_NAME_TO_HANDLE_AT, 0, 0, 0, 0, 0),
		by("io_uring_setup", "", unix.SYS_IO_URING_SETUP, 1, 0),
		by("clone3", "", unix.SYS_CLONE3, 0, 0),
		by("keyctl", "", unix.SYS_KEYCTL, 0, ^uintptr(2), 0),
		by("shmat", "", unix.SYS_SHMAT, ^uintptr(0)),
		by("clock_adjtime", "", unix.SYS_CLOCK_ADJTIME, 0, 0),
	}
	var o order
	for _, a := range attempts {
		o.Calls = append(o.Calls, a.Call)
	}
	users(t, func(t *testing.T, uid int) {
		with := carryOut(t, uid, o)
		o.Unfiltered = true
		without := carryOut(t, uid, o)
		o.Unfiltered = false
		same := 0
		for i, a := range attempts {
			if with[i] != "EPERM" && with[i] != "ENOSYS" {
				t.Errorf("%s: %s", a.Name, with[i])
			}
			if with[i] == without[i] {
				same++
				t.Logf("%s: %s without the filter as well: refused by the kernel or by what this test runs in", a.Name, without[i])
			}
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		differ := len(attempts) - same
		if differ < 3 && !strings.Contains(string(status), "Seccomp:\t0\n") {
			t.Skip("this test runs in a filter that refuses as much: nothing can be told apart")
		}
		if differ < 3 {
			t.Errorf("only %d of %d attempts come to something else without the filter", differ, len(attempts))
		}
	})
}

func TestUnixSockets(t *testing.T) {
	need(t)
	attempts := []attempt{
		by("unix stream", "ok", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0),
		by("unix datagram", "EPERM", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0),
		by("internet", "EPERM", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0),
		by("netlink", "EPERM", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0),
		by("vsock", "EPERM", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0),
	}
	o := order{Policy: Policy{UnixSockets: true}}
	for _, a := range attempts {
		o.Calls = append(o.Calls, a.Call)
	}
	users(t, func(t *testing.T, uid int) { compare(t, attempts, carryOut(t, uid, o)) })
}

func TestInstall(t *testing.T) {
	need(t)
	refused := rawCall{Number: unix.SYS_SOCKET, Args: [6]uintptr{unix.AF_INET, unix.SOCK_STREAM}}
	users(t, func(t *testing.T, uid int) {
		t.Run("on all threads", func(t *testing.T) {
			got := carryOut(t, uid, order{Threads: 5, Calls: []rawCall{refused}})
			if want := strings.Repeat("EPERM ", 6); strings.Join(got, " ")+" " != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		t.Run("more than once", func(t *testing.T) {
			if got := carryOut(t, uid, order{Times: 3, Calls: []rawCall{refused, {Number: unix.SYS_GETPID}}}); strings.Join(got, " ") != "EPERM ok" {
				t.Error(got)
			}
		})
		t.Run("inherited by a program", func(t *testing.T) {
			got := strings.Join(carryOut(t, uid, order{Exec: []string{"/bin/sh", "-c", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"}}), " ")
			if got != "NoNewPrivs:\t1 Seccomp:\t2" {
				t.Errorf("%q", got)
			}
		})
		t.Run("with the layers that come after it", func(t *testing.T) {
			needProgram(t, python)
			o := order{Exec: []string{python, "-c", `
import ctypes, os, resource
os.setsid() if os.getsid(0) != os.getpid() else None
if os.getuid() == 0: os.setgroups([]); os.setresgid(750018, 750018, 750018)
resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))
if os.getuid() == 0: os.setresuid(750017, 750017, 750017)
syscall = ctypes.CDLL(None, use_errno=True).syscall
print(os.getresuid(), os.getresgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_NPROC))
print("landlock", syscall(444, None, 0, 1), ctypes.get_errno())
strict = ctypes.c_uint32(0x80000000)
print("seccomp", syscall(` + strconv.Itoa(unix.SYS_SECCOMP) + `, 2, 0, ctypes.byref(strict)))
`}}
			with := carryOut(t, uid, o)
			o.Unfiltered = true
			if without := carryOut(t, uid, o); !slices.Equal(with, without) || len(with) != 3 || with[2] != "seccomp 0" {
				t.Errorf("with the filter %q, without %q", with, without)
			}
		})
		t.Run("not without no_new_privs", func(t *testing.T) {
			if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || set != 0 {
				t.Skipf("this test runs with no_new_privs (%v), which can't be taken back", err)
			}
			out, err := child(t, uid, order{KeepPrivileges: true}).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "no_new_privs is not set") {
				t.Errorf("%v: %s", err, out)
			}
		})
	})
}

// TestForeignConventionKills calls by the i386 convention from a 64-bit
// program.
func TestForeignConventionKills(t *testing.T) {
	need(t)
	if runtime.GOARCH != "amd64" {
		t.Skipf("%s has no other convention that a 64-bit program can call by", runtime.GOARCH)
	}
	needProgram(t, python)
	// mov $20, %eax (getpid); int $0x80; ret
	program := []string{python, "-c", `
import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
m.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
print(ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0, flush=True)
`}
	if out, err := child(t, os.Getuid(), order{Unfiltered: true, Exec: program}).CombinedOutput(); err != nil || string(out) != "True\n" {
		t.Skipf("this kernel doesn't answer to the i386 convention: %v: %s", err, out)
	}
	users(t, func(t *testing.T, uid int) {
		out, err := child(t, uid, order{Exec: program}).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS || len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestProbe(t *testing.T) {
	if err := probed(); err != nil && !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	need(t)
	before := pair(unix.SOCK_DGRAM)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Probe(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("without the time to try: %v", err)
	}
	// It restricted a process of its own, not this one.
	if err := Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if after := pair(unix.SOCK_DGRAM); after != before {
		t.Errorf("a pair of datagram sockets: %v before, %v after", before, after)
	}
}
