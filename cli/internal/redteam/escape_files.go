package redteam

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

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
        for d in (v, v + "/work", v + "/work/notes", v + "/home", v + "/tmp"):
            attempt("list " + d, os.listdir, d)
            attempt("create in " + d, write, d + "/" + TOKEN)
            attempt("rename " + d, os.rename, d, d + "x")
        attempt("list all", os.listdir, os.path.dirname(v))
        attempt("read", read, v + "/work/notes/secret.txt")
        attempt("write", write, v + "/work/notes/secret.txt")
        attempt("link", os.link, v + "/work/notes/secret.txt", TOKEN + "-link")
        attempt("remove", os.remove, v + "/work/notes/secret.txt")
`).stoppedBy(Users, SessionLandlock).tame(),

	script("another session's modes", "enters, opens up, closes and dates directories and files of another session, which Landlock says nothing about",
		"a session's modes, times and attributes are its own", `
def attack():
    for v in FACTS["victims"]:
        for d in (v, v + "/work", v + "/work/notes", v + "/home", v + "/tmp", v + "/work/notes/secret.txt"):
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
			r := a.Command(session, "for d in "+strings.Join(a.fleet.sessionDirs(other), " ")+"; do cat $d/work/open.txt; done; echo done", nil)
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

// links are files that lead elsewhere, for the worker's file operations to follow.
var links = []Attack{
	{Name: "links for the file operations", Family: Escape, Does: "has read_file, write_file, rename_file and delete_file follow links to files and directories outside",
		Holds: "no operation reaches anything outside the session", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "x")
			private, home := a.fleet.host.private, a.fleet.host.home
			up := strings.Repeat("../", 16)
			r := a.Command(session, strings.Join([]string{
				"ln -s " + private + "/canary file", "ln -s " + private + " dir", "ln -s " + up + private[1:] + "/canary relative",
				"ln -s " + home + "/canary secret", "ln -s " + home + " home", "ln -s / root", "ln -s /proc/self/root proc", "ln -s /proc/self/cwd cwd",
				"ln -s .. up", "ln -s " + a.fleet.sessionDir(a.fleet.victim) + "/work victim", "ln -s ../../" + a.fleet.victim + "/work near", "ln -s loop loop", "ln -s a b; ln -s b a", "mkdir -p d; ln -s " + private + " d/e", "echo made",
			}, "; "), nil)
			if !strings.Contains(r.Stdout, "made") {
				a.Broken("%+v", r)
			}
			for _, path := range []string{"file", "dir/canary", "relative", "secret", "home/canary", "root" + private + "/canary", "proc" + home + "/canary", "root/etc/passwd",
				"proc/etc/passwd", "cwd/../../../worker-id", "up/home/x", "up/../../../worker-id", "victim/notes/secret.txt", "near/notes/secret.txt", "loop", "a", "d/e/canary", "../work/x", "/etc/passwd", "//etc/passwd", "d/../../../../worker-id"} {
				if status, body := a.Get(session, path); status == 200 && !strings.HasPrefix(path, "../work") {
					a.Through("read_file of %s answered %.100s", path, body)
				} else if status >= 500 {
					a.Through("read_file of %s answered %d %.200s", path, status, body)
				}
			}
			for _, path := range []string{"dir/" + a.token, "home/" + a.token, "root/tmp/" + a.token, "up/" + a.token, "victim/" + a.token, "d/e/" + a.token, "victim/notes/secret.txt"} {
				for _, r := range []struct {
					op   string
					body map[string]string
				}{
					{"/write_file", map[string]string{"id": session, "rel_path": path, "content": "!"}},
					{"/delete_file", map[string]string{"id": session, "rel_path": path}},
					{"/rename_file", map[string]string{"id": session, "old_path": "x", "new_path": path}},
					{"/rename_file", map[string]string{"id": session, "old_path": path, "new_path": "stolen"}},
				} {
					if status, body := a.Post(r.op, r.body); status == 200 || status >= 500 {
						a.Through("%s of %s answered %d %.100s", r.op, path, status, body)
					}
				}
			}
			// A link itself may be overwritten, renamed and deleted; what it leads to stays.
			for _, path := range []string{"file", "secret", "relative"} {
				a.Post("/write_file", map[string]string{"id": session, "rel_path": path, "content": "mine"})
				a.Post("/rename_file", map[string]string{"id": session, "old_path": path, "new_path": path + "2"})
				a.Post("/delete_file", map[string]string{"id": session, "rel_path": path + "2"})
			}
		}},

	{Name: "links carried by a fork", Family: Escape, Does: "forks a session full of links, hard links and files of odd kinds, and reads the copy",
		Holds: "the fork holds links as links, and nothing from outside", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "x")
			r := a.Command(session, "ln -s "+a.fleet.host.private+"/canary l; ln -s "+a.fleet.host.home+" d; ln "+a.fleet.host.private+"/canary h 2>/dev/null; ln x x2; mkfifo f; mkdir -p p/q; chmod 0 p/q; ln -s "+a.fleet.sessionDir(a.fleet.victim)+"/work v; echo made", nil)
			if !strings.Contains(r.Stdout, "made") {
				a.Broken("%+v", r)
			}
			status, body := a.Post("/fork_session", map[string]string{"id": session})
			var fork struct {
				ID string `json:"new_id"`
			}
			if status != 200 || json.Unmarshal(body, &fork) != nil {
				if status >= 500 {
					a.Through("fork_session answered %d %.200s", status, body)
				}
				return
			}
			for _, path := range []string{"l", "d/canary", "h", "v/notes/secret.txt", "f"} {
				if status, body := a.Get(fork.ID, path); status == 200 || status >= 500 {
					a.Through("read_file of %s in the fork answered %d %.100s", path, status, body)
				}
			}
			if r := a.Command(fork.ID, "cat x2; find . -type f | wc -l", nil); !strings.HasPrefix(r.Stdout, "x") {
				a.Through("the fork has lost files: %+v", r)
			}
		}},

	race("a race for read_file", "swaps a file for a link to one outside, again and again, while read_file is called", "swap",
		func(a *Attempt, session string) { a.Get(session, "swap/canary") }),
	race("a race for write_file", "swaps a directory for a link to one outside while write_file is called", "swap",
		func(a *Attempt, session string) {
			a.Post("/write_file", map[string]string{"id": session, "rel_path": "swap/" + a.token, "content": "!"})
			a.Post("/write_file", map[string]string{"id": session, "rel_path": "swap/canary", "content": "!"})
		}),
	race("a race for rename and delete", "swaps a directory for a link to one outside while rename_file and delete_file are called", "swap",
		func(a *Attempt, session string) {
			a.Post("/delete_file", map[string]string{"id": session, "rel_path": "swap/canary"})
			a.Post("/rename_file", map[string]string{"id": session, "old_path": "swap/canary", "new_path": "mine"})
			a.Post("/write_file", map[string]string{"id": session, "rel_path": "file", "content": "!"})
			a.Post("/rename_file", map[string]string{"id": session, "old_path": "file", "new_path": "swap/" + a.token})
		}),
	race("a race for fork_session", "swaps a directory for a link to one outside while the session is forked", "swap",
		func(a *Attempt, session string) {
			status, body := a.Post("/fork_session", map[string]string{"id": session})
			var fork struct {
				ID string `json:"new_id"`
			}
			if status == 200 && json.Unmarshal(body, &fork) == nil {
				a.Get(fork.ID, "swap/canary")
				a.Get(fork.ID, "swap")
			}
		}),

	{Name: "its own directory replaced", Family: Escape, Does: "removes its directory, or puts a link, a file or another directory in its place, and goes on",
		Holds: "file operations stay inside; the session answers as gone or as it was", Run: func(a *Attempt) {
			for _, command := range []string{
				`rm -rf "$PWD"; rmdir "$PWD"; rm -rf "$HOME" "$TMPDIR"`,
				`mv "$PWD" "$PWD.old"; ln -s ` + a.fleet.host.private + ` "$PWD"`,
				`cd ..; mv work gone; echo x > work`,
				`cd ..; rm -rf work home tmp; ln -s / work; ln -s / home; ln -s / tmp`,
			} {
				session := a.Session()
				a.Write(session, "x", "x")
				a.Command(session, carefulShell+command, nil)
				for _, path := range []string{"canary", "etc/passwd", "x"} {
					if status, body := a.Get(session, path); status >= 500 || status == 200 && path != "x" {
						a.Through("after %q read_file of %s answered %d %.200s", command, path, status, body)
					}
				}
				if status, body := a.Post("/write_file", map[string]string{"id": session, "rel_path": a.token, "content": "y"}); status >= 500 {
					a.Through("after %q write_file answered %d %.200s", command, status, body)
				}
				status, body := a.Post("/run", map[string]any{"id": session, "cmd": "pwd; ls"})
				if status >= 500 && status != 507 {
					a.Through("after %q run answered %d %.200s", command, status, body)
				}
				if strings.Contains(string(body), "canary") || strings.Contains(string(body), "passwd") {
					a.Through("after %q a command runs elsewhere: %.200s", command, body)
				}
			}
		}},
}

// race runs a command that swaps names in a session while an operation is
// called on it, from another connection.
func race(name, does, _ string, op func(a *Attempt, session string)) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: "nothing outside is read or changed, whatever the moment", Run: func(a *Attempt) {
		session := a.Session()
		a.Write(session, "x", "x")
		a.Write(session, "swap.py", `
import ctypes, os, sys, time
number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
exchange = lambda: ctypes.CDLL(None).syscall(number, -100, b"swap", -100, b"link", 2)  # renameat2, RENAME_EXCHANGE
os.makedirs("swap", exist_ok=True)
os.symlink(sys.argv[1], "link")
end, n = time.monotonic() + 1.0, 0
while time.monotonic() < end:
    for name in ("swap", "link"):
        try:
            if not os.path.islink(name): open(name + "/canary", "w").write("inside")
        except OSError: pass
    for _ in range(40): n += exchange() == 0
print("SWAPS", n)
`)
		done := make(chan RunResult, 1)
		runner := &Attempt{attack: a.attack, fleet: a.fleet, ctx: a.ctx, token: a.token + "-r"}
		go func() { done <- runner.Command(session, "python3 swap.py "+a.fleet.host.private, nil) }()
		calls := 0
		for {
			select {
			case r := <-done:
				a.through = append(a.through, runner.through...)
				if !strings.Contains(r.Stdout, "SWAPS") || calls == 0 {
					a.Broken("%d calls beside %+v", calls, r)
				}
				return
			default:
				op(a, session)
				calls++
			}
		}
	}}
}

var oddTrees = []Attack{
	{Name: "files that are none", Family: Escape, Does: "has read_file, write_file and rename_file deal with FIFOs, sockets, devices, directories and /proc's endless files",
		Holds: "each is answered at once, and as the caller's fault", Run: func(a *Attempt) {
			session := a.Session()
			a.Write(session, "x", "x")
			a.Command(session, `mkfifo fifo; mkdir dir; mknod null c 1 3; mknod zero c 1 5; ln -s /dev/zero dz; ln -s /proc/kmsg km; ln -s /dev/stdin si; ln -s /proc/self/fd/0 fd; python3 -c 'import socket; s=socket.socketpair(); import os
try:
    t=socket.socket(socket.AF_UNIX); t.bind("sock")
except OSError: pass'; true`, nil)
			for _, path := range []string{"fifo", "dir", "null", "zero", "dz", "km", "si", "fd", "sock"} {
				begun := time.Now()
				for _, r := range []struct {
					op   string
					body map[string]string
				}{
					{"/write_file", map[string]string{"id": session, "rel_path": path, "content": "!"}},
					{"/rename_file", map[string]string{"id": session, "old_path": path, "new_path": path + "2"}},
					{"/rename_file", map[string]string{"id": session, "old_path": path + "2", "new_path": path}},
				} {
					if status, body := a.Get(session, path); status >= 500 {
						a.Through("read_file of %s answered %d %.200s", path, status, body)
					}
					if status, body := a.Post(r.op, r.body); status >= 500 {
						a.Through("%s of %s answered %d %.200s", r.op, path, status, body)
					}
				}
				if took := time.Since(begun); took > 5*time.Second {
					a.Through("operations on %s took %v", path, took)
				}
			}
		}},

	tree("a tree of 20,000 levels", "makes directories one in the other, deeper than any path may be", `
import os
for i in range(20000):
    os.mkdir("d")
    os.chdir("d")
open("deepest", "w").write("x")
print("MADE")
`),
	tree("names that are no text", "makes files whose names are not UTF-8, hold line ends, quotes and control characters, or are as long as can be", `
import os
names = [b"\xff\xfe", b"a\nb", b"\x01\x1b[31m", b'"', b"\\", b" ", b"-rf", b"*", b"\xed\xa0\x80", b"n" * 255, "\u202e".encode(), b"%2e%2e%2f", b"...", b"~"]
for n in names: open(n, "w").write("x")
os.mkdir(b"\xff" * 200)
os.symlink(b"\xff\xfe", b"\xfe")
print("MADE")
`),
	tree("modes that forbid everything", "takes every right from its files and directories, its own root among them", `
import os
os.makedirs("a/b/c")
for d in ("a/b/c", "a/b", "a"):
    open(d + "/f", "w").write("x")
for d in ("a/b/c/f", "a/b/c", "a/b/f", "a/b", "a/f", "a"): os.chmod(d, 0)
os.chmod(".", 0); os.chmod(os.environ["TMPDIR"], 0); os.chmod(os.environ["HOME"], 0)
print("MADE")
`),
	tree("flags that keep files", "sets flags and attributes that forbid removal, and capabilities on a program", `
import fcntl, os, struct
open("f", "w").write("x"); os.mkdir("d")
for path in ("f", "d", "."):
    fd = os.open(path, os.O_RDONLY)
    for flag in (0x10, 0x20, 0x10 | 0x20, 0x4, 0x80, 0x20000000):
        try:
            fcntl.ioctl(fd, 0x40086602, struct.pack("l", flag))
            if flag & 0x30: print("THROUGH flag", hex(flag))
        except OSError: pass
try:
    os.setxattr("f", "security.capability", struct.pack("<IIIII", 0x02000000, 0xffffffff, 0, 0, 0)); print("THROUGH capability")
except OSError: pass
for i in range(20):
    try: os.setxattr("d", "user.x%d" % i, b"x" * 100)
    except OSError: pass
print("MADE")
`),
	tree("a thousand links", "makes more links and files than fit, and one file with many names", `
import os
open("f", "w").write("x")
for i in range(1500):
    try:
        os.link("f", "h%d" % i)
        os.symlink("h%d" % (i + 1), "s%d" % i)
    except OSError: break
print("MADE")
`),
}

// tree is an attack that makes an unpleasant tree: in a session, which is then
// read, forked and written to, and in a slot's scratch, which must be clean for
// the next job.
func tree(name, does, source string) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: "operations answer as they should, and clean-up removes all of it", Run: func(a *Attempt) {
		session := a.Session()
		source := careful + source
		a.Write(session, "make.py", source)
		r := a.Command(session, "python3 make.py", nil)
		if !strings.Contains(r.Stdout, "MADE") && !strings.Contains(r.Stderr, "Disk limit") {
			a.Broken("%+v", r)
		}
		if strings.Contains(r.Stdout, "THROUGH") {
			a.Through("%s", r.Stdout)
		}
		for _, op := range []func() (int, []byte){
			func() (int, []byte) { return a.Get(session, "make.py") },
			func() (int, []byte) { return a.Get(session, "d/d/d/d") },
			func() (int, []byte) { return a.Post("/fork_session", map[string]string{"id": session}) },
			func() (int, []byte) {
				return a.Post("/write_file", map[string]string{"id": session, "rel_path": "a/b/c/new", "content": base64.StdEncoding.EncodeToString([]byte("x")), "encoding": "base64"})
			},
			func() (int, []byte) {
				return a.Post("/rename_file", map[string]string{"id": session, "old_path": "make.py", "new_path": "made.py"})
			},
			func() (int, []byte) {
				return a.Post("/delete_file", map[string]string{"id": session, "rel_path": "made.py"})
			},
		} {
			if status, body := op(); status >= 500 && status != 507 {
				a.Through("a file operation answered %d %.200s", status, body)
			}
		}
		a.Evaluate(Submission{Code: "def solve(n):\n    import io, contextlib\n    exec(compile(" + quote(source) + ", 'm', 'exec'), {'__name__': 'm'})\n    return n\n", Entry: "solve",
			Limits: map[string]any{"wall_s": 10}, Cases: []Case{{"n=1", "1"}}})
	}}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // text always encodes
	}
	return string(b)
}

// insideSize is what a session's directories take up on the host.
func insideSize(dir string) (bytes int64, files int) {
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil {
			files++
			if info, err := d.Info(); err == nil {
				bytes += allocated(info)
			}
		}
		return nil
	})
	return bytes, files
}
