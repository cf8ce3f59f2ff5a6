package seccomp

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var policies = []Policy{{}, {UnixSockets: true}}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// expectation says what a call that is decided by its arguments has to come to,
// written apart from the rules.
type expectation struct {
	calls string
	// args are those that matter.
	args []int
	want func(a [6]uint64) uint32
}

// orAllow returns what a filter does with a call that is refused with e if bad.
func orAllow(bad bool, e unix.Errno) uint32 {
	if bad {
		return errno(e)
	}
	return unix.SECCOMP_RET_ALLOW
}

var expectations = []expectation{
	{"clone", []int{0}, func(a [6]uint64) uint32 {
		const ns = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
		return orAllow(a[0]&ns != 0 || a[0]&0x8000 != 0, unix.EPERM)
	}},
	{"socketpair", []int{0, 1}, func(a [6]uint64) uint32 {
		kind := a[1] & 0xf
		return orAllow(uint32(a[0]) != 1 || kind != 1 && kind != 5, unix.EPERM)
	}},
	{"sendmsg recvmsg", []int{2}, func(a [6]uint64) uint32 { return orAllow(a[2]&1 == 1, unix.EOPNOTSUPP) }},
	{"sendto recvfrom sendmmsg recvmmsg", []int{3}, func(a [6]uint64) uint32 { return orAllow(a[3]&1 == 1, unix.EOPNOTSUPP) }},
	{"prlimit64", []int{0, 2}, func(a [6]uint64) uint32 { return orAllow(uint32(a[0]) != 0 && a[2] != 0, unix.EPERM) }},
	{"sched_setaffinity sched_setattr sched_setparam sched_setscheduler move_pages", []int{0}, func(a [6]uint64) uint32 {
		return orAllow(uint32(a[0]) != 0, unix.EPERM)
	}},
	{"setpriority", []int{0, 1}, func(a [6]uint64) uint32 { return orAllow(uint32(a[0]) > 1 || uint32(a[1]) != 0, unix.EPERM) }},
	{"ioprio_set", []int{0, 1}, func(a [6]uint64) uint32 {
		return orAllow(uint32(a[0]) != 1 && uint32(a[0]) != 2 || uint32(a[1]) != 0, unix.EPERM)
	}},
	{"ioctl", []int{1}, func(a [6]uint64) uint32 {
		return orAllow(slices.Contains([]uint32{0x5412, 0x541c, 0x541d, 0x5423}, uint32(a[1])), unix.EPERM)
	}},
	{"prctl", []int{0}, func(a [6]uint64) uint32 {
		switch option := uint32(a[0]); {
		case option == 35 || option == 62:
			return errno(unix.EPERM)
		case option == 0x53564d41 || option == 0x41555856:
			return unix.SECCOMP_RET_ALLOW
		default:
			return orAllow(option > 81, unix.EINVAL)
		}
	}},
	{"personality", []int{0}, func(a [6]uint64) uint32 {
		return orAllow(!slices.Contains([]uint32{0, 0x40000, 0xffffffff}, uint32(a[0])), unix.EPERM)
	}},
	{"mknod", []int{1}, func(a [6]uint64) uint32 { return orAllow(a[1]&0xb000 == 0x2000, unix.EPERM) }},
	{"mknodat", []int{2}, func(a [6]uint64) uint32 { return orAllow(a[2]&0xb000 == 0x2000, unix.EPERM) }},
}

var unixSocketExpectation = expectation{"socket", []int{0, 1}, func(a [6]uint64) uint32 {
	return orAllow(uint32(a[0]) != 1 || a[1]&0xf != 1, unix.EPERM)
}}

// interesting are values on which some call's verdict turns, their neighbours,
// and values whose upper half must not count, or must.
var interesting = func() []uint64 {
	v := []uint64{0, 1, 2, 3, 4, 5, 6, 10, 15, 16, 17, 34, 35, 36, 61, 62, 63, 80, 81, 82, 0x80, 0xff,
		0x11, 0x1200011, 0x3d0f00, 0x4111, 0x8011, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x40000011,
		0x80001, 0x80801, 0x80002, 0x80805, 0x800,
		0x5401, 0x5411, 0x5412, 0x5413, 0x541b, 0x541c, 0x541d, 0x5423, 0x5451,
		0x40000, 0x40008, 0x400000, 0x53564d41, 0x41555856, 0x59616d61,
		0o100644, 0o10644, 0o20644, 0o60644, 0o140755, 0o40755, 0o120777,
		0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}
	for _, low := range slices.Clone(v) {
		v = append(v, low|1<<32)
	}
	return append(v, 0x7fff_0000_0000, 0xffffffff_ffffffff, 0xffffffff_00000000)
}()

func TestFilter(t *testing.T) {
	for arch, machine := range architectures {
		for _, p := range policies {
			name := arch
			if p.UnixSockets {
				name += " with unix sockets"
			}
			t.Run(name, func(t *testing.T) {
				filter, err := p.Filter(arch)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d instructions", len(filter))
				checkFilter(t, p, machine, filter)
			})
		}
	}
}

// checkFilter holds a filter against the classes, call by call, and against the
// expectations.
func checkFilter(t *testing.T, p Policy, machine architecture, filter []unix.SockFilter) {
	expected := map[string]expectation{}
	for _, e := range append(slices.Clone(expectations), map[bool][]expectation{true: {unixSocketExpectation}}[p.UnixSockets]...) {
		for name := range strings.FieldsSeq(e.calls) {
			expected[name] = e
		}
	}
	verdicts := map[string]verdict{}
	for _, c := range p.classes() {
		for name := range strings.FieldsSeq(c.calls) {
			verdicts[name] = c.verdict
		}
	}
	for number, name := range machine.calls {
		v, ok := verdicts[name]
		if !ok {
			v = absent
		}
		if e, ok := expected[name]; ok != (len(v.rules) > 0) {
			t.Errorf("%s: has rules: %v, an expectation: %v", name, len(v.rules) > 0, ok)
		} else if ok {
			checkByArguments(t, machine, filter, name, uint32(number), e)
			continue
		}
		for _, arg := range []uint64{0, 1, 0x5412, 0xffffffff, 0xffffffff_ffffffff} {
			got := mustRun(t, filter, call{uint32(number), machine.audit, [6]uint64{arg, arg, arg, arg, arg, arg}})
			if got.action != v.otherwise {
				t.Errorf("%s (%d), arguments %#x: action %#x, want %#x", name, number, arg, got.action, v.otherwise)
			}
			if got.looked {
				t.Errorf("%s (%d): decided by its arguments: the kernel can't remember it", name, number)
			}
			if got.steps > 16 {
				t.Errorf("%s (%d): %d instructions", name, number, got.steps)
			}
		}
	}
}

func checkByArguments(t *testing.T, machine architecture, filter []unix.SockFilter, name string, number uint32, e expectation) {
	seen := map[uint32]bool{}
	for _, others := range []uint64{0, 1, 0xffffffff_ffffffff} {
		c := call{number: number, arch: machine.audit}
		var vary func(args []int)
		vary = func(args []int) {
			if len(args) > 0 {
				for _, v := range interesting {
					c.args[args[0]] = v
					vary(args[1:])
				}
				return
			}
			got := mustRun(t, filter, c)
			if want := e.want(c.args); got.action != want {
				t.Errorf("%s%#x: action %#x, want %#x", name, c.args, got.action, want)
			}
			if got.steps > 25 {
				t.Errorf("%s%#x: %d instructions", name, c.args, got.steps)
			}
			seen[got.action] = true
		}
		c.args = [6]uint64{others, others, others, others, others, others}
		vary(e.args)
	}
	if len(seen) < 2 {
		t.Errorf("%s: the arguments that were tried all come to the same", name)
	}
}

// TestForeignABIs: the i386 and x32 conventions on x86-64 have other numbers
// for other calls, as has 32-bit ARM on arm64.
func TestForeignABIs(t *testing.T) {
	for arch, machine := range architectures {
		filter, err := Policy{}.Filter(arch)
		if err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_AARCH64, 0xffffffff} {
			if foreign == machine.audit {
				continue
			}
			for number := range uint32(1024) {
				if got := mustRun(t, filter, call{number: number, arch: foreign}); got.action != unix.SECCOMP_RET_KILL_PROCESS {
					t.Fatalf("%s: call %d of %#x: action %#x", arch, number, foreign, got.action)
				}
			}
		}
		for number := range uint32(1024) {
			// x32, its bit left out (numbers 512 to 547 of old kernels), and negative numbers.
			for _, n := range []uint32{number | 0x40000000, number | 0x80000000, uint32(len(machine.calls)) + number, ^number} {
				if got := mustRun(t, filter, call{number: n, arch: machine.audit}); got.action != errno(unix.ENOSYS) {
					t.Fatalf("%s: call %#x: action %#x", arch, n, got.action)
				}
			}
		}
	}
	if _, err := (Policy{}).Filter("riscv64"); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("an architecture without a table: %v", err)
	}
}

// TestFrequentCallsAreShort holds what the filter costs on kernels that don't
// remember verdicts (before 5.11).
func TestFrequentCallsAreShort(t *testing.T) {
	for arch, machine := range architectures {
		filter, err := Policy{}.Filter(arch)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(often + " execve wait4 clone exit_group") {
			number := slices.Index(machine.calls, name)
			if number < 0 {
				continue
			}
			most := 11
			if name == "ioctl" || name == "clone" || name == "execve" || name == "wait4" {
				most = 14
			}
			if got := mustRun(t, filter, call{number: uint32(number), arch: machine.audit}); got.steps > most || got.action != unix.SECCOMP_RET_ALLOW {
				t.Errorf("%s: %s takes %d instructions to action %#x, want at most %d", arch, name, got.steps, got.action, most)
			}
		}
	}
}

// TestPolicyIsWhatItIsMeantToBe names calls once more, apart from classes.go,
// so that moving one there is seen.
func TestPolicyIsWhatItIsMeantToBe(t *testing.T) {
	lists := []struct {
		action uint32
		calls  string
	}{
		{errno(unix.EPERM), "socket ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd mount umount2 pivot_root move_mount open_tree " +
			"fsopen fsmount fspick fsconfig mount_setattr unshare setns chroot bpf perf_event_open userfaultfd keyctl add_key request_key " +
			"init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd syslog settimeofday " +
			"clock_settime adjtimex clock_adjtime sethostname setdomainname iopl ioperm lookup_dcookie nfsservctl vhangup open_by_handle_at " +
			"name_to_handle_at fanotify_init shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop mq_open memfd_secret"},
		{errno(unix.ENOSYS), "clone3 io_uring_setup io_uring_enter io_uring_register"},
		{unix.SECCOMP_RET_ALLOW, "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp setuid setgid setresuid setresgid setgroups capset " +
			"setrlimit rseq membarrier futex getrandom memfd_create kill execve fork vfork exit_group connect accept4"},
	}
	for arch, machine := range architectures {
		filter, err := Policy{}.Filter(arch)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lists {
			for name := range strings.FieldsSeq(l.calls) {
				number := slices.Index(machine.calls, name)
				if number < 0 {
					continue // not on this architecture: TestCallsAreComplete holds the tables
				}
				if got := mustRun(t, filter, call{number: uint32(number), arch: machine.audit}); got.action != l.action {
					t.Errorf("%s: %s: action %#x, want %#x", arch, name, got.action, l.action)
				}
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	tests := []struct {
		name, arch string
		policy     Policy
		want       string
	}{
		{"amd64", "amd64", Policy{}, "seccomp filter: 244 system calls allowed, 21 by their arguments, 120 refused, newer ones absent; no sockets but connected pairs"},
		{"arm64", "arm64", Policy{}, "seccomp filter: 207 system calls allowed, 20 by their arguments, 101 refused, newer ones absent; no sockets but connected pairs"},
		{"unix sockets", "amd64", Policy{UnixSockets: true}, "seccomp filter: 244 system calls allowed, 22 by their arguments, 119 refused, newer ones absent; no sockets but unix streams and connected pairs"},
		{"no table", "riscv64", Policy{}, "seccomp unavailable: no table of system calls for riscv64: have amd64 and arm64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.policy.describe(test.arch); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	if got := (Policy{}).Describe(); strings.Contains(got, "\n") || got == "" {
		t.Errorf("%q", got)
	}
}
