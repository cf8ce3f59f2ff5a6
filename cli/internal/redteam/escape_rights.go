package redteam

import (
	"fmt"
	"os"
	"strings"
)

var privileges = []Attack{
	inBoth("another user", "becomes root or another user or group by every call for it",
		"the user stays what it is", `
def attack():
    me = (os.getresuid(), os.getresgid())
    others = [u for u in (0, 1, 65534, FACTS["uid_base"], FACTS["uid_base"] + 1) if u not in me[0]]
    for u in others:
        for name in ("setuid", "seteuid", "setgid", "setegid"):
            attempt("%s %d" % (name, u), getattr(os, name), u)
        attempt("setreuid %d" % u, os.setreuid, u, u)
        attempt("setresuid %d" % u, os.setresuid, -1, -1, u)
        attempt("setresgid %d" % u, os.setresgid, u, u, u)
        attempt("setgroups %d" % u, os.setgroups, [u])
    saw("user", 0 in os.getresuid() or 0 in os.getresgid() and os.getresgid() != me[1], repr(me))
    saw("groups", bool(FACTS["uid_base"]) and set(os.getgroups()) - set(me[1]), repr(os.getgroups()))
`),

	inBoth("rights of the process", "looks for capabilities, and for the bit that lets programs give rights",
		"no capability is in any set, no_new_privs is on, a filter is in force", `
def attack():
    status = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().split("\n") if ":\t" in l)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        saw(name, int(status[name], 16) != 0, status[name])
    saw("NoNewPrivs", status["NoNewPrivs"] != "1", status["NoNewPrivs"])
    saw("Seccomp", status["Seccomp"] != "2", status["Seccomp"])
    saw("dumpable core", __import__("resource").getrlimit(4)[1] != 0)
`),

	script("programs with setuid", "runs every program that has the setuid or setgid bit or capabilities, and makes one of its own",
		"no process has another user than the session's", `
def attack():
    import subprocess, stat, shutil
    me = set(os.getresuid())
    found = []
    for d in ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/lib/openssh", "/usr/lib/dbus-1.0"):
        for name in (os.listdir(d) if os.path.isdir(d) else []):
            try: st = os.stat(os.path.join(d, name))
            except OSError: continue
            if st.st_mode & (stat.S_ISUID | stat.S_ISGID): found.append(os.path.join(d, name))
    shutil.copy(sys.executable, "mine")
    os.chmod("mine", 0o6755)
    found.append(os.path.abspath("mine"))
    for path in found:
        tried.append(path)
        # Its user shows while it waits for input that doesn't come.
        a, b = os.pipe()
        try: p = subprocess.Popen([path] + (["-c", "import time; time.sleep(0.2)"] if path.endswith("mine") else []), stdin=a, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError: continue
        try:
            for _ in range(20):
                line = [l for l in open("/proc/%d/status" % p.pid) if l.startswith("Uid:")][0]
                if set(map(int, line.split()[1:])) - me: through.append("%s runs as %s" % (path, line.strip())); break
        except (OSError, IndexError): pass
        os.close(a); os.close(b)
        p.kill(); p.wait()
`),

	inBoth("owner and modes through links", "changes owners and modes of files outside, through links, descriptors and paths",
		"nothing of it changes", `
def attack():
    d = FACTS["private"]
    for path in (d + "/canary", d, FACTS["home"] + "/canary", FACTS["victims"][0] + "/work", FACTS["victims"][1] + "/work"):
        link = TOKEN + "-%d" % abs(hash(path))
        try: os.symlink(path, link)
        except OSError: continue
        for p in (path, link):
            attempt("chown " + p, os.chown, p, os.getuid(), os.getgid())
            attempt("chmod " + p, os.chmod, p, 0o6777)
            attempt("utime " + p, os.utime, p, (1, 1))
            attempt("setxattr " + p, os.setxattr, p, "user.x", b"x")
        os.remove(link)
    open("own", "w").close()
    attempt("give away", os.chown, "own", 0, 0)
    attempt("capabilities", os.setxattr, "own", "security.capability", b"\x01\x00\x00\x02\xff\xff\xff\xff" + bytes(12))
    attempt("trusted attribute", os.setxattr, "own", "trusted.x", b"x")
`),

	inBoth("device nodes", "makes device nodes of the disk, memory and terminals, and opens those that there are",
		"no device but null, zero, full and random opens", `
def attack():
    import stat
    for name, mode, device in (("disk", stat.S_IFBLK, os.makedev(254, 0)), ("sda", stat.S_IFBLK, os.makedev(8, 0)), ("mem", stat.S_IFCHR, os.makedev(1, 1)),
                               ("null", stat.S_IFCHR, os.makedev(1, 3)), ("kmsg", stat.S_IFCHR, os.makedev(1, 11)), ("tty", stat.S_IFCHR, os.makedev(5, 0)), ("fuse", stat.S_IFCHR, os.makedev(10, 229))):
        attempt("mknod " + name, os.mknod, TOKEN + name, mode | 0o666, device)
    try: names = sorted(os.listdir("/dev"))
    except OSError: names = ()
    for name in list(names) + ["vda", "sda", "mem", "kmsg", "fuse", "kvm", "net/tun", "tty", "ptmx", "console", "uinput", "loop-control", "vsock", "vhost-net"]:
        path = "/dev/" + name
        if name in ("null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm") or os.path.isdir(path): continue
        if name.startswith(("watchdog", "st", "nst")): continue  # opening these does something
        attempt("open " + path, os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
`),

	inBoth("signals to the world", "sends signals that do nothing to every process, group and user that there is",
		"no signal reaches a process outside the job", `
def attack():
    import signal
    if os.getuid() == 0: return saw("root", True, "the submission runs as root")
    mine, seen = {os.getpid()}, pids()
    for pid in [FACTS["pid"], FACTS["test_pid"], 1] + seen:
        if pid in mine or pid == os.getppid(): continue
        if pid == 1 and FACTS["pid"] not in seen: continue  # of a pid namespace of its own
        attempt("0 to %d" % pid, os.kill, pid, 0)
        attempt("pidfd to %d" % pid, lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0))
`),

	{Name: "kill everything", Family: Escape, Does: "kills every process that it may, with the signal that can't be caught", Alone: true,
		Holds: "the worker, the gateway and other slots go on", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "x")
			// Who may signal this test may signal all that is its user's.
			unheld := fmt.Sprintf("! kill -0 %d 2>/dev/null || { echo UNCONFINED; exit 99; }; ", os.Getpid())
			r := a.Command(session, carefulShell+unheld+"echo held; kill -9 -1; sleep 0.1; kill -9 $PPID; sleep 0.1; kill -9 -1", nil)
			if !strings.Contains(r.Stdout, "held") {
				return
			}
			a.cheat(Submission{Code: careful + "import os\ndef solve(n):\n    os.kill(-1, 9)\n    return n", Entry: "solve", Cases: []Case{{"n=1", secretList()}}})
		}},

	{Name: "kill a neighbour", Family: Escape, Does: "looks for processes of a job in another slot, to signal them and to read theirs",
		Holds: "a job in another slot runs on and is right", Run: func(a *Attempt) {
			neighbour := &Attempt{attack: a.attack, fleet: a.fleet, ctx: a.ctx, token: a.token + "-n"}
			victim := neighbour.Session()
			neighbour.Write(victim, "x", "x")
			done := make(chan RunResult, 1)
			go func() {
				done <- neighbour.Command(victim, "n=0; while [ $n -lt 15 ]; do sleep 0.1; n=$((n+1)); done; echo survived", nil)
			}()
			a.Script(`
def attack():
    import signal, time
    tried.append("every process")
    if os.getuid() == 0: return saw("root", True, "the submission runs as root")
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for pid in pids():
            try: command = read("/proc/%d/cmdline" % pid)
            except OSError: continue
            if (b"sleep" in command or b"sh\0-c" in command) and pid != os.getppid():
                try:
                    if os.stat("/proc/%d" % pid).st_uid in (0,) and not FACTS["uid_base"]: continue
                    os.kill(pid, 0)
                    through.append("%r may be signalled" % command)
                    return
                except OSError: pass
`)
			r := <-done
			a.through = append(a.through, neighbour.through...)
			if !strings.Contains(r.Stdout, "survived") {
				a.Through("the neighbour did not survive: %+v", r)
			}
		}},

	inBoth("priorities of others", "makes others slower and itself more urgent",
		"neither is possible", `
def attack():
    attempt("nice", os.nice, -5)
    attempt("fifo", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
    attempt("rr", os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1))
    import resource
    attempt("nice limit", resource.setrlimit, resource.RLIMIT_NICE, (40, 40))
    attempt("rtprio limit", resource.setrlimit, resource.RLIMIT_RTPRIO, (99, 99))
    attempt("process limit", resource.setrlimit, resource.RLIMIT_NPROC, (1 << 20, 1 << 20))
    attempt("file limit", resource.setrlimit, resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    attempt("core limit", resource.setrlimit, resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    attempt("file size limit", resource.setrlimit, resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))
    for pid in [FACTS["pid"], FACTS["test_pid"]]:
        attempt("nice of %d" % pid, os.setpriority, os.PRIO_PROCESS, pid, 19)
        attempt("processors of %d" % pid, os.sched_setaffinity, pid, {0})
        attempt("idle %d" % pid, os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
    attempt("ioprio", lambda: syscall("ioprio_set", 1, 0, 1 << 13))
`),

	script("locks on files of everybody", "locks files that all jobs read, and leaves a process to hold the locks",
		"after the job nothing is locked", `
def attack():
    import fcntl, signal, time
    path = os.__file__
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)
        if os.fork(): os._exit(0)
        fd = os.open(path, os.O_RDONLY)
        try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError: pass
        os.write(w, b"x")
        time.sleep(600)
    os.read(r, 1)
    tried.append("lock " + path)
`),
}

var systemCalls = []Attack{
	inBoth("namespaces", "makes namespaces by unshare, clone, clone3 and setns, with every flag there is",
		"none is made", `
def attack():
    need("ctypes")
    import ctypes, signal
    flags = dict(mount=0x20000, cgroup=0x2000000, uts=0x4000000, ipc=0x8000000, user=0x10000000, pid=0x20000000, net=0x40000000, time=0x80)
    for name, flag in flags.items():
        attempt("unshare " + name, lambda: syscall("unshare", flag))
        attempt("unshare user+" + name, lambda: syscall("unshare", flag | 0x10000000))
        def clone(number, *args):
            pid = syscall(number, *args)
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0)
            return pid
        if name != "time":
            attempt("clone " + name, clone, "clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        args = (ctypes.c_uint64 * 11)(flag, 0, 0, 0, signal.SIGCHLD)
        attempt("clone3 " + name, clone, "clone3", args, 88)
    attempt("clone parent", clone, "clone", 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)
    readable()
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"):
        for pid in ("self", os.getppid(), 1, FACTS["pid"]):
            attempt("setns %s of %s" % (name, pid), lambda: syscall("setns", os.open("/proc/%s/ns/%s" % (pid, name), os.O_RDONLY), 0))
    attempt("setns pidfd", lambda: syscall("setns", os.pidfd_open(os.getppid() or os.getpid()), 0x20000))
`),

	inBoth("mounts and roots", "mounts, unmounts, changes roots and opens mounts by the old and the new calls",
		"no mount and no root changes", `
def attack():
    need("ctypes")
    os.mkdir(TOKEN + "-m")
    here = os.getcwd().encode()
    m = here + b"/" + TOKEN.encode() + b"-m"
    for kind in (b"tmpfs", b"proc", b"sysfs", b"overlay", b"cgroup2", b"fuse", b"devtmpfs", b"mqueue"):
        attempt("mount %r" % kind, lambda: syscall("mount", b"none", m, kind, 0, 0))
    attempt("bind", lambda: syscall("mount", b"/", m, 0, 4096, 0))
    attempt("move", lambda: syscall("mount", b"/tmp", m, 0, 8192, 0))
    attempt("remount", lambda: syscall("mount", 0, b"/", 0, 32 | 4096, 0))
    attempt("private", lambda: syscall("mount", 0, b"/", 0, 1 << 18 | 1 << 14, 0))
    for path in (b"/", b"/proc", b"/tmp", b"/dev/shm", here):
        attempt("umount %r" % path, lambda: syscall("umount2", path, 2))
    attempt("chroot", lambda: syscall("chroot", m))
    attempt("pivot_root", lambda: syscall("pivot_root", m, m))
    attempt("fsopen", lambda: syscall("fsopen", b"tmpfs", 0))
    attempt("open_tree", lambda: syscall("open_tree", -100, b"/", 1))
    os.rmdir(TOKEN + "-m")
`),

	inBoth("tracing", "traces and reads its own children, which any process may where nothing forbids it",
		"no process is traced or read", `
def attack():
    need("ctypes")
    import ctypes, signal
    pid = os.fork()
    if pid == 0:
        signal.pause()
    asked = os.fork()
    if asked == 0:  # a traced process stops at every signal, so this one asks for us
        try: syscall("ptrace", 0, 0, 0, 0)
        except OSError: os._exit(0)
        os._exit(1)
    saw("traceme", os.waitpid(asked, 0)[1] != 0, "a process is traced at its own wish")
    try:
        attempt("attach", lambda: syscall("ptrace", 16, pid, 0, 0))
        attempt("seize", lambda: syscall("ptrace", 0x4206, pid, 0, 0))
        buf = ctypes.create_string_buffer(8)
        iov = (ctypes.c_void_p * 2)(ctypes.addressof(buf), 8)
        attempt("process_vm_readv", lambda: syscall("process_vm_readv", pid, iov, 1, iov, 1, 0))
        attempt("process_vm_writev", lambda: syscall("process_vm_writev", pid, iov, 1, iov, 1, 0))
        attempt("pidfd_getfd", lambda: syscall("pidfd_getfd", os.pidfd_open(pid), 1, 0))
        attempt("kcmp", lambda: syscall("kcmp", os.getpid(), pid, 0, 0, 0))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
`).stoppedBy(Seccomp).tame().marked(markBlocked),

	inBoth("keys that outlive a job", "leaves keys in the kernel's keyrings, where the next job of its user finds them",
		"no key is made", `
def attack():
    need("ctypes")
    attempt("add_key", lambda: syscall("add_key", b"user", TOKEN.encode(), b"x", 1, -4))
    attempt("add_key session", lambda: syscall("add_key", b"user", TOKEN.encode(), b"x", 1, -3))
    attempt("request_key", lambda: syscall("request_key", b"user", b"x", 0, 0))
    attempt("join session keyring", lambda: syscall("keyctl", 1, TOKEN.encode()))
    attempt("get keyring", lambda: syscall("keyctl", 0, -4, 1))
`).stoppedBy(Seccomp).tame(),

	inBoth("state that no process owns", "makes System V memory, semaphores and queues, POSIX queues, and what stays when a process ends",
		"none is made", `
def attack():
    need("ctypes")
    attempt("shmget", lambda: syscall("shmget", 0x52540001, 4096, 0o1666))
    attempt("semget", lambda: syscall("semget", 0x52540001, 1, 0o1666))
    attempt("msgget", lambda: syscall("msgget", 0x52540001, 0o1666))
    attempt("mq_open", lambda: syscall("mq_open", TOKEN.encode(), 0o102, 0o666, 0))
`),

	inBoth("much kernel", "calls bpf, io_uring, perf, userfaultfd, kexec, modules, quotas, accounting and their like",
		"each is refused or does not exist", `
def attack():
    need("ctypes")
    import ctypes
    zero = ctypes.create_string_buffer(256)
    attempt("bpf map", lambda: syscall("bpf", 0, (ctypes.c_uint32 * 32)(2, 4, 4, 1), 72))
    attempt("bpf token", lambda: syscall("bpf", 36, zero, 72))
    attempt("io_uring", lambda: syscall("io_uring_setup", 1, zero))
    attempt("io_setup", lambda: syscall("io_setup", 1, (ctypes.c_uint64 * 1)()))
    perf = (ctypes.c_uint32 * 32)(1, 112)
    attempt("perf", lambda: syscall("perf_event_open", perf, 0, -1, -1, 0))
    attempt("userfaultfd", lambda: syscall("userfaultfd", 1))
    attempt("userfaultfd root", lambda: syscall("userfaultfd", 0))
    attempt("memfd_secret", lambda: syscall("memfd_secret", 0))
    attempt("kexec", lambda: syscall("kexec_load", 0, 0, 0, 0))
    attempt("init_module", lambda: syscall("init_module", zero, 0, b""))
    attempt("finit_module", lambda: syscall("finit_module", os.open("/bin/sh", os.O_RDONLY), b"", 0))
    attempt("delete_module", lambda: syscall("delete_module", b"none", 2048))
    attempt("fanotify", lambda: syscall("fanotify_init", 0x200, 0))
    attempt("acct", lambda: syscall("acct", 0))
    attempt("quotactl", lambda: syscall("quotactl", 0x800001 << 8, b"/dev/vda", 0, zero))
    attempt("swapon", lambda: syscall("swapon", b"/dev/null", 0))
    attempt("syslog", lambda: syscall("syslog", 3, zero, 255))
    attempt("reboot", lambda: syscall("reboot", 0xfee1dead, 672274793, 0, 0))
`),

	inBoth("name and clock of the machine", "sets host name, domain, clock, time zone and kernel state",
		"the machine stays as it is", `
def attack():
    need("ctypes")
    import ctypes, time
    attempt("sethostname", lambda: syscall("sethostname", os.uname().nodename.encode(), len(os.uname().nodename)))
    attempt("clock_settime", time.clock_settime, time.CLOCK_REALTIME, time.time())
    attempt("settimeofday", lambda: syscall("settimeofday", (ctypes.c_long * 2)(int(time.time()), 0), 0))
    attempt("personality", lambda: syscall("personality", 0x0400000))
`),

	{Name: "foreign calling conventions", Family: Escape, Does: "makes system calls in the 32-bit and x32 conventions, by machine code in memory of its own",
		Holds: "such a call ends the process or does not exist", Run: func(a *Attempt) {
			source := `
def attack():
    need("ctypes")
    import ctypes, mmap
    if os.uname().machine != "x86_64":
        global missing
        missing = "this machine has one calling convention"
        return
    def machine(code):
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        keep.append(page)
        return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    keep = []
    tried.append("convention")
    code = CODE
    result = machine(code)
    saw("convention", result >= 0, "getpid gave %d, it is %d" % (result, os.getpid()))
`
			// mov eax, 20; int 0x80; ret, and mov eax, 0x40000027; syscall; ret.
			a.ProbeMayDie(strings.Replace(source, "CODE", `b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"`, 1))
			a.ProbeMayDie(strings.Replace(source, "CODE", `b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"`, 1))
		}},
}
