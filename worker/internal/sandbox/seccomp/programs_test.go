package seccomp

import (
	"os/exec"
	"strings"
	"testing"
)

const python = "/usr/bin/python3"

// needProgram skips a test where a program is not installed.
func needProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("not installed: %v", err)
	}
	return path
}

// program is something that must work as if there were no filter.
type program struct {
	name string
	// needs is the program, and the module of Python, that may not be there.
	needs, module string
	argv          []string
	want          string
}

func py(name, module, code, want string) program {
	return program{name, python, module, []string{python, "-c", code}, want}
}

func sh(name, needs, code, want string) program {
	return program{name, needs, "", []string{"/bin/sh", "-ec", code}, want}
}

var programs = []program{
	py("standard library", "", `
import ctypes, decimal, json, locale, ssl, sqlite3, statistics, uuid, zoneinfo
print(json.dumps([1]), len(str(uuid.uuid1())))`, "[1] 36"),
	py("numpy", "numpy", `
import numpy as n
print(n.linalg.inv(n.eye(300) * 2).trace(), n.random.default_rng(1).integers(9) < 9)`, "150.0 True"),
	py("pandas", "pandas", `
import pandas as p, io
f = p.read_csv(io.StringIO("a,b\n1,2\n3,4"))
f.to_pickle("f.pkl")
print(p.read_pickle("f.pkl").groupby("a").b.sum().sum())`, "6"),
	py("scipy", "scipy", `
from scipy import integrate, optimize
print(round(integrate.quad(lambda x: x * x, 0, 3)[0], 6), round(optimize.brentq(lambda x: x * x - 4, 0, 5), 6))`, "9.0 2.0"),
	py("matplotlib", "matplotlib", `
import os
os.environ["MPLBACKEND"] = "Agg"
import matplotlib.pyplot as p
p.plot([1, 2, 3]); p.savefig("p.png")
print(open("p.png", "rb").read(4)[1:])`, "b'PNG'"),
	py("pool of processes", "", `
import multiprocessing as m
def f(x): return x * x
if __name__ == "__main__":
    with m.get_context("fork").Pool(2) as p: print(p.map(f, range(5)))`, "[0, 1, 4, 9, 16]"),
	py("semaphores, queues, shared memory", "", `
import multiprocessing as m
from multiprocessing import shared_memory
c = m.get_context("fork")
def f(s, q, v, name):
    with s, v.get_lock(): v.value += 1
    block = shared_memory.SharedMemory(name); block.buf[0] = 7; block.close()
    q.put("x")
s, q, v = c.Semaphore(1), c.Queue(), c.Value("i", 0)
block = shared_memory.SharedMemory(create=True, size=10)
ps = [c.Process(target=f, args=(s, q, v, block.name)) for _ in range(3)]
[p.start() for p in ps]; got = [q.get() for _ in ps]; [p.join() for p in ps]
print(v.value, got, block.buf[0]); block.close(); block.unlink()`, "3 ['x', 'x', 'x'] 7"),
	py("spawned process", "", `
import multiprocessing as m, os
if __name__ == "__main__":
    c = m.get_context("spawn"); r, w = c.Pipe()
    p = c.Process(target=os.getpid); p.start(); p.join(); print(p.exitcode)
    w.send([1]); print(r.recv())`, "0\n[1]"),
	py("executors and threads", "", `
import threading, concurrent.futures as f
with f.ThreadPoolExecutor(4) as e: print(sum(e.map(abs, range(-10, 0))))
with f.ProcessPoolExecutor(2) as e: print(sum(e.map(abs, range(-10, 0))))
l = []; ts = [threading.Thread(target=l.append, args=(i,)) for i in range(20)]
[t.start() for t in ts]; [t.join() for t in ts]; print(len(l))`, "55\n55\n20"),
	py("subprocess", "", `
import subprocess as s
print(s.run(["cat"], input="in", capture_output=True, text=True).stdout, s.check_output("echo a | tr a b", shell=True),
      s.run(["true"], start_new_session=True, close_fds=True, preexec_fn=lambda: None).returncode)`, `in b'b\n' 0`),
	py("asyncio", "", `
import asyncio
async def main():
    p = await asyncio.create_subprocess_exec("echo", "hi", stdout=-1)
    out, _ = await p.communicate()
    print(out, await asyncio.to_thread(abs, -3))
asyncio.run(main())`, `b'hi\n' 3`),
	py("sqlite3", "", `
import sqlite3
c = sqlite3.connect("d.sqlite"); c.execute("pragma journal_mode=wal"); c.execute("create table t(a)")
c.executemany("insert into t values(?)", [(i,) for i in range(9)]); c.commit()
print(sqlite3.connect("d.sqlite").execute("select sum(a) from t").fetchone())`, "(36,)"),
	py("files", "", `
import fcntl, mmap, os, shutil, tempfile
with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as f, tempfile.TemporaryFile() as g:
    f.write(b"abc"); f.flush(); fcntl.flock(f, fcntl.LOCK_EX)
    shutil.copy(f.name, "copy"); shutil.copytree(d, "tree"); shutil.make_archive("a", "zip", "tree")
    m = mmap.mmap(f.fileno(), 3, prot=mmap.PROT_READ); g.write(m[:])
os.mkfifo("fifo"); os.symlink("copy", "link"); os.utime("copy", (1, 1)); os.chmod("copy", 0o600)
fd = os.memfd_create("m"); os.write(fd, b"x"); os.sendfile(fd, fd, 0, 1)
print(open("link").read(), sorted(os.listdir()), os.statvfs(".").f_bsize > 0)`, "abc ['a.zip', 'copy', 'fifo', 'link', 'tree'] True"),
	py("signals and timers", "", `
import os, signal, socket
hits = []
signal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01)
while not hits: signal.sigtimedwait([], 0.01)
a, b = socket.socketpair(); a.sendall(b"x"); hits.append(b.recv(1))
pid = os.fork()
if pid == 0:
    while True: signal.pause()
os.kill(pid, 9); hits.append(os.waitpid(pid, 0)[1])
print(hits)`, "[1, b'x', 9]"),
	py("own limits and priority", "", `
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); n = os.nice(3); os.setpriority(os.PRIO_PROCESS, 0, min(n + 2, 19))
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
print(resource.getrlimit(resource.RLIMIT_NOFILE), os.getpriority(0, 0) == min(n + 2, 19), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)`, "(64, 64) True True"),
	py("terminal", "", `
import os, pty
pid, fd = pty.fork()
if pid == 0: os.execlp("tty", "tty")
print(os.read(fd, 100).startswith(b"/dev/pts/"), os.waitpid(pid, 0)[1])`, "True 0"),
	py("no sockets", "", `
import socket, urllib.request, urllib.error
for family in socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK:
    try: print(socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM))
    except PermissionError as e: print(e.errno, end=" ")
try: urllib.request.urlopen("http://127.0.0.1:1/")
except urllib.error.URLError as e: print(e.reason.errno)`, "1 1 1 1 1"),

	sh("pipeline", "sh", `seq 1 1000 | sort -rn | head -n 2 | tr '\n' ' '; printf 'b\na\n' > f; sort < f | xargs echo; echo $(( 6 * 7 ))`, "1000 999 a b\n42"),
	sh("core utilities", "tar", `
mkdir -p d/e; echo x > d/e/f; cp -a d c; mv c m; ln -s m l
tar cf t.tar m; tar tf t.tar | wc -l; find . -type f | sort
du -s m > /dev/null; df . > /dev/null; ls -la > /dev/null
dd if=/dev/zero of=z bs=1k count=4 2> /dev/null; stat -c %s z; sync; touch -d @0 z
nice -n 1 true; timeout 5 true; sha1sum d/e/f | cut -c1-4; seq 100000 | sort -S 1M --parallel=2 | tail -n 1`,
		"3\n./d/e/f\n./m/e/f\n./t.tar\n4096\n6fcf\n99999"),
	sh("jobs", "sh", `
cat <<EOF & wait
here
EOF
trap 'echo bye' EXIT; ulimit -n 50; ulimit -n; (exit 3) || echo $?`, "here\n50\n3\nbye"),
	sh("C compiler", "gcc", `
cat > h.c <<EOF
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char **environ;
static void *f(void *p) { puts("thread"); return p; }
int main(void) {
	pthread_t t;
	pid_t pid;
	char *argv[] = {"echo", "spawned", 0};
	if (pthread_create(&t, 0, f, 0) || pthread_join(t, 0)) return 1;
	fflush(stdout);
	if (posix_spawnp(&pid, "echo", 0, 0, argv, environ)) return 2;
	waitpid(pid, 0, 0);
	return system("exit 0");
}
EOF
gcc -O2 -Wall -pthread -o h h.c && ./h`, "thread\nspawned"),
	sh("Prolog", "swipl", `swipl -q -g "use_module(library(lists)), X is 6*7, thread_create(true, T, []), thread_join(T, S), member(Y, [1]), shell('echo sh'), format('~w ~w ~w~n', [X, Y, S])" -t halt`, "sh\n42 1 true"),
	sh("Perl", "perl", "perl -e 'print `echo hi`; fork || exit 4; wait; print $? >> 8'", "hi\n4"),
	sh("Node.js", "node", `cat > n.js <<EOF
const {Worker} = require("worker_threads"), {execSync} = require("child_process"), fs = require("fs");
fs.promises.writeFile("n", "x").then(() => new Worker("require('worker_threads').parentPort.postMessage(7)", {eval: true})
	.on("message", m => console.log(m, execSync("cat n").toString())));
EOF
node n.js`, "7 x"),
	// Its version goes to standard error, and differs.
	sh("Java", "java", "java -version 2>&1 | grep -ci -m 1 version", "1"),
}

// TestProgramsWork runs what submissions consist of, each in a directory of its
// own.
func TestProgramsWork(t *testing.T) {
	need(t)
	users(t, func(t *testing.T, uid int) {
		for _, p := range programs {
			t.Run(p.name, func(t *testing.T) { p.check(t, uid, Policy{}) })
		}
	})
}

// TestProgramsWithUnixSockets runs what is the reason for that field.
func TestProgramsWithUnixSockets(t *testing.T) {
	need(t)
	needed := []program{
		py("manager", "", `
import multiprocessing as m
if __name__ == "__main__":
    with m.Manager() as g:
        d = g.dict(); d["a"] = 1; print(d)`, "{'a': 1}"),
		py("pool from a server", "", `
import multiprocessing as m
if __name__ == "__main__":
    with m.get_context("forkserver").Pool(2) as p: print(p.map(abs, range(-3, 0)))`, "[3, 2, 1]"),
	}
	users(t, func(t *testing.T, uid int) {
		for _, p := range needed {
			t.Run(p.name, func(t *testing.T) { p.check(t, uid, Policy{UnixSockets: true}) })
		}
	})
}

func (p program) check(t *testing.T, uid int, policy Policy) {
	needProgram(t, p.needs)
	if p.module != "" && exec.Command(python, "-c", "import "+p.module).Run() != nil {
		t.Skipf("%s has no module %s", python, p.module)
	}
	dir := directory(t, uid)
	cmd := child(t, uid, order{Policy: policy, Exec: p.argv})
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "HOME="+dir, "TMPDIR="+dir, "MPLCONFIGDIR="+dir, "OPENBLAS_NUM_THREADS=2", "PWD="+dir)
	out, err := cmd.CombinedOutput()
	got := strings.TrimSpace(strings.TrimPrefix(string(out), "Matplotlib is building the font cache; this may take a moment.\n"))
	if err != nil || got != p.want {
		t.Errorf("%v: got %q, want %q", err, got, p.want)
	}
}
