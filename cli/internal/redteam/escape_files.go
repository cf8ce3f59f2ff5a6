package redteam

import "strings"

var foreignFiles = []Attack{
	inBoth("files of the host", "reads, lists, writes, renames, links and removes what lies outside, where the host's users may",
		"nothing outside the session and the runtime opens", `
def attack():
    d = FACTS["private"]
    attempt("read", read, d + "/canary")
    attempt("list", os.listdir, d)
    attempt("append", write, d + "/canary", b"!")
    attempt("truncate", os.truncate, d + "/canary", 0)
    attempt("create", write, d + "/" + TOKEN)
    attempt("mkdir", os.mkdir, d + "/" + TOKEN + "-d")
    attempt("rename", os.rename, d + "/canary", d + "/" + TOKEN)
    attempt("hard link", os.link, d + "/canary", TOKEN + "-link")
    attempt("remove", os.remove, d + "/canary")
    attempt("by the root of the process", read, "/proc/self/root" + d + "/canary")
    attempt("by the directory of the process", read, "/proc/self/cwd/" + "../" * 12 + d + "/canary")
    attempt("fifo", os.mkfifo, d + "/" + TOKEN + "-fifo")
    attempt("move in", os.rename, d, TOKEN + "-moved")
`).stoppedBy(Landlock, Namespaces).tame(),

	inBoth("the host's temporary directory", "does the same in a directory below the host's /tmp that is open to everybody",
		"/tmp is the session's own, or refused", `
def attack():
    d = FACTS["shared"]
    attempt("read", read, d + "/canary")
    attempt("list", os.listdir, d)
    attempt("append", write, d + "/canary", b"!")
    attempt("create", write, d + "/" + TOKEN)
    attempt("rename", os.rename, d + "/canary", d + "/" + TOKEN)
    attempt("remove", os.remove, d + "/canary")
`).stoppedBy(Landlock, Namespaces).tame(),

	script("a note in the shared temporary directories", "leaves files in /tmp, /var/tmp, /dev/shm, /run/lock and /dev/mqueue for others to find",
		"what is left there is gone with the job, and no other session sees it", `
def attack():
    for d in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/run", "/dev/mqueue", "/dev", "/"):
        tried.append(d)
        for make in (lambda p: write(p), os.mkdir, os.mkfifo):
            try: make(d + "/" + TOKEN + "-" + make.__name__.strip("<>"))
            except OSError: pass
`),

	script("another session by its path", "reads, lists, writes and removes files of another session, whose path it knows",
		"a session's files are its own", `
def attack():
    for v in FACTS["victims"]:
        work = os.path.join(v, "work")
        for d in (v, work, work + "/notes", v + "/home", v + "/tmp"):
            attempt("list " + d, os.listdir, d)
            attempt("create in " + d, write, d + "/" + TOKEN)
            attempt("rename " + d, os.rename, d, d + "x")
        attempt("list all", os.listdir, os.path.dirname(v))
        attempt("read", read, work + "/notes/secret.txt")
        attempt("write", write, work + "/notes/secret.txt")
        attempt("link", os.link, work + "/notes/secret.txt", TOKEN + "-link")
        attempt("remove", os.remove, work + "/notes/secret.txt")
`).stoppedBy(Users, SessionLandlock).tame(),

	script("another session's modes", "enters, opens up, closes and dates directories and files of another session, which Landlock says nothing about",
		"a session's modes, times and attributes are its own", `
def attack():
    for v in FACTS["victims"]:
        work = os.path.join(v, "work")
        for d in (v, work, work + "/notes", v + "/home", v + "/tmp", work + "/notes/secret.txt"):
            attempt("enter " + d, lambda: os.chdir(d) if os.path.isdir(d) else os.stat(d))
            attempt("open up " + d, os.chmod, d, 0o777)
            attempt("close " + d, os.chmod, d, 0)
            attempt("own " + d, os.chown, d, -1, os.getgid())
            attempt("date " + d, os.utime, d, (1, 1))
            attempt("mark " + d, os.setxattr, d, "user.x", b"x")
`).tame(),

	{Name: "another session that opened up", Family: Escape, Does: "reads a session whose files and directories their owner opened to everybody",
		Holds: "a session's files are its own, whatever their modes", Run: func(a *Attempt) {
			other, session, secret := a.Session(), a.Session(), random(12)
			a.Write(other, "open.txt", secret)
			a.Command(other, "chmod -R 777 . ; chmod 777 .. ; setfacl -m o:rwx .. . 2>/dev/null; true", nil)
			a.Write(session, "x", "")
			r := a.Command(session, "w=work; for d in "+strings.Join(a.fleet.sessionDirs(other), " ")+"; do cat $d/$w/open.txt; done; echo done", nil)
			if strings.Contains(r.Stdout, secret) {
				a.Through("it read %q", r.Stdout)
			} else if !strings.Contains(r.Stdout, "done") {
				a.Broken("%+v", r)
			}
		}},

	script("the worker's own files", "reads and writes the worker's lock, id, data directory and message store",
		"none of it can be read, written, locked or listed", `
def attack():
    import fcntl
    d = FACTS["data"]
    for dir, names, files in list(os.walk(d)) + list(os.walk(os.path.dirname(d))):
        saw("list " + dir, True, repr(names + files)) if (names or files) and not os.getcwd().startswith(dir) else None
    for name in ("worker.lock", "worker-id", "nats", "nats/jetstream", "sessions", "sessions/layout", "bin", "../log"):
        path = d + "/" + name
        if name != "bin" and name != "sessions":
            attempt("read " + name, (os.listdir if os.path.isdir(path) else read), path)
        attempt("write " + name, lambda: open(path, "ab"))
        if name != "bin": attempt("lock " + name, lambda: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
        attempt("replace " + name, os.rename, path, path + "x")
    for name in ("python3", "python", TOKEN):
        attempt("plant " + name, write, d + "/bin/" + name)
`),

	inBoth("secrets of the host", "reads what only root may, and what users keep for themselves",
		"nothing of it opens", `
def attack():
    for path in ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/id_ed25519", "/root/.bashrc", "/root/.profile",
                 "/root/.docker/config.json", "/root/.aws/credentials", "/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets",
                 "/var/log/syslog", "/var/lib/dpkg/status", "/proc/kcore", "/proc/kallsyms-not", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/port", "/boot",
                 "/home", "/root", "/mnt", "/media", "/srv", "/var/spool/cron", "/sys/kernel/debug", "/sys/firmware", FACTS["home"] + "/canary"):
        if os.path.isdir(path): attempt("list " + path, lambda: len(os.listdir(path)))
        else: attempt("open " + path, os.open, path, os.O_RDONLY | os.O_NONBLOCK)
`),

	inBoth("other processes in /proc", "reads environment, memory, maps, descriptors, directory and root of every process that is not its own",
		"what /proc shows of other processes holds nothing of theirs", `
def attack():
    mine = {os.getpid()}
    for pid in pids() + [FACTS["pid"], FACTS["test_pid"], 1]:
        if pid in mine: continue
        tried.append("pid %d" % pid)
        base = "/proc/%d/" % pid
        for name in ("environ", "maps", "mem", "stack", "syscall", "io", "auxv", "smaps", "pagemap", "personality"):
            try:
                if read(base + name, 64): through.append("%s%s can be read" % (base, name))
            except (OSError, ValueError, OverflowError): pass
        for name in ("cwd", "root", "exe"):
            try: through.append("%s%s leads to %s" % (base, name, os.readlink(base + name)))
            except OSError: pass
        for name in ("fd", "map_files", "fdinfo"):
            try:
                for entry in os.listdir(base + name)[:20]:  # the numbers alone tell nothing
                    got = read(base + name + "/" + entry, 16) if name == "fdinfo" else os.readlink(base + name + "/" + entry)
                    through.append("%s%s/%s: %r" % (base, name, entry, got))
            except (OSError, ValueError): pass
`),

	script("files by the roots of others", "goes to other files by the root, directory and descriptors that /proc shows of other processes",
		"no such way opens", `
def attack():
    for pid in pids() + [FACTS["pid"], FACTS["test_pid"], 1]:
        for way in ("root", "cwd"):
            attempt("/proc/%d/%s" % (pid, way), os.listdir, "/proc/%d/%s/" % (pid, way))
            attempt("/proc/%d/%s canary" % (pid, way), read, "/proc/%d/%s%s/canary" % (pid, way, FACTS["home"]))
        for fd in range(24):
            attempt("/proc/%d/fd/%d" % (pid, fd), os.open, "/proc/%d/fd/%d" % (pid, fd), os.O_RDONLY | os.O_NONBLOCK)
`),

	script("files by handle", "opens files by numbers instead of names, which looks past directories",
		"handles neither are given nor open", `
def attack():
    need("ctypes")
    import ctypes
    limit = 0
    for number in (2, 3, 12, 128, 256):
        handle = ctypes.create_string_buffer(b"\x08\x00\x00\x00\x01\x00\x00\x00" + number.to_bytes(4, "little") + bytes(4), 64)
        for place in (os.getcwd(), os.environ["HOME"]):
            fd = os.open(place, os.O_RDONLY)
            attempt("handle %d at %s" % (number, place), lambda: syscall("open_by_handle_at", fd, handle, os.O_RDONLY))
            os.close(fd)
    handle = ctypes.create_string_buffer(b"\x40\x00\x00\x00", 128)
    mount = ctypes.c_int()
    attempt("name to handle", lambda: syscall("name_to_handle_at", -100, b"/etc/passwd", handle, ctypes.byref(mount), 0))
`),

	inBoth("settings of the kernel", "writes to /proc/sys, /sys, cgroups and its own entries that weigh on others",
		"none can be written", `
def attack():
    import glob
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/pid_max", "/proc/sys/fs/file-max",
                 "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state", "/proc/self/loginuid",
                 "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups", "/proc/self/attr/current", "/dev/cpu_dma_latency"):
        attempt(path, lambda: open(path, "r+b", 0))
    attempt("oom score", write, "/proc/self/oom_score_adj", b"-900", "wb")
    for path in glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)[:50] + glob.glob("/sys/fs/cgroup/**/memory.max", recursive=True)[:50]:
        attempt(path, lambda: open(path, "r+b", 0))
`),

	inBoth("start-up of the host", "plants jobs, libraries and profiles where the host or later jobs would run them",
		"none can be planted", `
def attack():
    for path in ("/etc", "/etc/cron.d", "/var/spool/cron/crontabs", "/etc/profile.d", "/etc/init.d", "/etc/systemd/system", "/usr/local/bin", "/usr/local/lib",
                 "/usr/lib/python3/dist-packages", "/etc/pip.conf", "/etc/passwd", "/etc/environment", "/root/.bashrc", "/root", "/bin", "/lib", "/opt", "/run", "/var/lib", "/"):
        attempt(path, plantable, path)
    for p in os.environ["PATH"].split(":") + sys.path:
        if p and p != os.getcwd() and not p.startswith(os.environ["HOME"]):
            attempt("plant in " + p, plantable, p)
`),
}
