package redteam

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// usefulPrograms is what must work inside at the default limits: what isolates
// submissions must not keep them from their work.
var usefulPrograms = []struct {
	name string
	// needs are programs on PATH and, with a leading dot, modules of the
	// interpreter; without them a test has nothing to run.
	needs []string
	// code is a submission whose work() answers "done", run as a submission and
	// as a script; command is run by the shell, and prints done last.
	code, command string
}{
	{name: "numpy", needs: []string{".numpy"}, code: `
import numpy as np
def work():
    a = np.arange(90000.0).reshape(300, 300) + np.eye(300)
    assert np.allclose(a @ np.linalg.inv(a), np.eye(300), atol=1e-3)
    np.save("a.npy", a)
    assert (np.load("a.npy", mmap_mode="r") == a).all()
    assert np.fft.ifft(np.fft.fft(a[0])).real.round().tolist() == a[0].round().tolist()
    return "done"
`},
	{name: "pandas", needs: []string{".pandas"}, code: `
import pandas as pd
def work():
    d = pd.DataFrame({"k": list("abab") * 1000, "v": range(4000)})
    d.to_csv("d.csv", index=False)
    assert pd.read_csv("d.csv").groupby("k").v.sum().to_dict() == {"a": 3998000, "b": 4000000}
    assert d.merge(d, on="v").shape == (4000, 3)
    return "done"
`},
	{name: "matplotlib", needs: []string{".matplotlib"}, code: `
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt, os
def work():
    fig, ax = plt.subplots()
    ax.plot([1, 2, 3], [4, 1, 2]); ax.set_title("α² ∑")
    fig.savefig("f.png"); fig.savefig("f.pdf"); fig.savefig("f.svg")
    assert open("f.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n" and os.path.getsize("f.pdf") > 1000
    return "done"
`},
	{name: "a pool of two processes", code: `
import multiprocessing
def square(x): return x * x
def work():
    with multiprocessing.get_context("fork").Pool(2) as p:
        if __name__ == "__main__":
            assert p.map(square, range(100)) == [x * x for x in range(100)]
        assert p.map(abs, range(-50, 50)) == [abs(x) for x in range(-50, 50)]
        assert p.apply_async(pow, (2, 100)).get(10) == 2 ** 100
    return "done"
`},
	{name: "a pool of executors", code: `
import concurrent.futures as cf, multiprocessing
def work():
    with cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as p:
        assert list(p.map(abs, range(-20, 20), chunksize=5)) == [abs(x) for x in range(-20, 20)]
    with cf.ThreadPoolExecutor(8) as p:
        assert sum(p.map(len, ["x" * i for i in range(100)])) == 4950
    return "done"
`},
	{name: "queues, locks and shared values", code: `
import multiprocessing as mp
def work():
    c = mp.get_context("fork")
    q, lock, value, done = c.Queue(), c.Lock(), c.Value("i", 0), c.Event()
    def add():
        for _ in range(100):
            with lock: value.value += 1
        q.put(1); done.wait(10)
    kids = [c.Process(target=add) for _ in range(3)]
    for k in kids: k.start()
    assert sum(q.get(timeout=10) for _ in kids) == 3
    done.set()
    for k in kids: k.join(10)
    assert value.value == 300 and not any(k.exitcode for k in kids)
    return "done"
`},
	{name: "shared memory", code: `
from multiprocessing import shared_memory
import os
def work():
    m = shared_memory.SharedMemory(create=True, size=1 << 20)
    try:
        if os.fork() == 0:
            n = shared_memory.SharedMemory(m.name)
            n.buf[:5] = b"hello"
            os._exit(0)
        os.wait()
        assert bytes(m.buf[:5]) == b"hello"
    finally:
        m.close(); m.unlink()
    return "done"
`},
	{name: "subprocess", code: `
import subprocess, sys
def work():
    p = subprocess.run(["sort", "-r"], input="a\nc\nb\n", capture_output=True, text=True, check=True)
    assert p.stdout == "c\nb\na\n"
    p = subprocess.run("echo $HOME | tr a-z A-Z | wc -l; exit 3", shell=True, capture_output=True, text=True)
    assert (p.stdout.strip(), p.returncode) == ("1", 3)
    a = subprocess.Popen(["yes"], stdout=subprocess.PIPE); b = subprocess.run(["head", "-n", "3"], stdin=a.stdout, capture_output=True)
    a.stdout.close(); a.wait()
    assert b.stdout == b"y\ny\ny\n"
    try: subprocess.run([sys.executable or "python3", "-c", "while True: pass"], timeout=0.2)
    except subprocess.TimeoutExpired: return "done"
`},
	{name: "asyncio", code: `
import asyncio
def work():
    async def main():
        p = await asyncio.create_subprocess_exec("sh", "-c", "read x; echo got $x", stdin=-1, stdout=-1)
        out, _ = await p.communicate(b"it\n")
        q = asyncio.Queue()
        async def produce():
            for i in range(10): await q.put(i); await asyncio.sleep(0)
        _, *got = await asyncio.gather(produce(), *(q.get() for _ in range(10)))
        return out == b"got it\n" and sorted(got) == list(range(10)) and await asyncio.to_thread(lambda: True)
    assert asyncio.run(main())
    return "done"
`},
	{name: "sqlite3", needs: []string{".sqlite3"}, code: `
import sqlite3
def work():
    for path in (":memory:", "d.db"):
        d = sqlite3.connect(path)
        d.execute("pragma journal_mode=wal"); d.execute("create table t(a, b)")
        with d: d.executemany("insert into t values(?, ?)", [(i, i * i) for i in range(1000)])
        assert d.execute("select sum(b) from t where a > 500").fetchone() == (sum(i * i for i in range(501, 1000)),)
        d.execute("vacuum"); d.close()
    return "done"
`},
	{name: "temporary files", code: `
import os, tempfile
def work():
    with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as f, tempfile.TemporaryFile() as g:
        f.write(b"x" * 100000); f.flush(); g.write(b"y")
        os.rename(f.name, f.name + "2"); os.rename(f.name + "2", f.name)
        assert os.path.getsize(f.name) == 100000
    assert os.access(tempfile.gettempdir(), os.W_OK)
    return "done"
`},
	{name: "threads", code: `
import queue, threading
def work():
    q, out = queue.Queue(), []
    def run():
        while (n := q.get()) is not None: out.append(n * n)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for t in threads: t.start()
    for i in range(1000): q.put(i)
    for _ in threads: q.put(None)
    for t in threads: t.join()
    assert sorted(out) == [i * i for i in range(1000)]
    return "done"
`},
	{name: "unittest", command: `printf 'import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(1 + 1, 2)\n' > test_it.py && python3 -m unittest -q 2>log && python3 -m unittest discover -q 2>>log && [ $(grep -c OK log) = 2 ] && echo done`},
	{name: "a virtual environment", command: `python3 -m venv --without-pip v && v/bin/python -c 'import json, sys; assert sys.prefix != sys.base_prefix' && echo done`},
	{name: "gcc", needs: []string{"gcc"}, command: `printf '#include <stdio.h>\n#include <math.h>\nint main(int n, char **a) { printf("%%.0f\\n", sqrt(1764.0 * n)); return 0; }\n' > h.c && gcc -O2 -Wall -o h h.c -lm && [ "$(./h)" = 42 ] && gcc -shared -fPIC -o h.so h.c -lm && echo done`},
	{name: "make", needs: []string{"gcc", "make"}, command: `printf 'int main(void) { return 0; }\n' > p.c && make -s p && ./p && echo done`},
	{name: "swipl", needs: []string{"swipl"}, command: `printf 'likes(ann, bob).\nlikes(bob, cat).\npath(X, Y) :- likes(X, Y).\npath(X, Y) :- likes(X, Z), path(Z, Y).\n' > k.pl && swipl -q -g "path(ann, cat), findall(Y, path(ann, Y), L), L == [bob, cat], writeln(done)" -t halt k.pl`},
	{name: "sort of a large file", command: `seq 400000 | sort -R --random-source=/bin/sh > in && sort -n -S 20M --parallel=2 in > out && [ "$(tail -n 1 out)" = 400000 ] && sort in | uniq | wc -l | grep -q 400000 && echo done`},
	{name: "tar and gzip", needs: []string{"tar", "gzip"}, command: `mkdir -p d/e && seq 1000 > d/e/f && ln -s e/f d/l && tar czf a.tgz d && mkdir x && tar xzf a.tgz -C x && cmp d/e/f x/d/l && tar tf a.tgz | wc -l | grep -q 4 && echo done`},
	{name: "git", needs: []string{"git"}, command: `git init -q r && cd r && git config user.email a@b.invalid && git config user.name a && echo x > f && git add f && git commit -qm one && git clone -q . ../s && git -C ../s log --oneline | wc -l | grep -q 1 && echo done`},
	{name: "shell", command: `set -e; for i in 1 2 3; do (sleep 0.01; echo $i) & done | sort | tr -d '\n' | grep -q 123; f=$(mktemp); echo x > $f; cat <<E | grep -q $(cat $f)
x
E
find . -type f | xargs -r wc -c >/dev/null; awk 'BEGIN { exit !(2^10 == 1024) }'; echo done`},
}

// What people write must work inside, with every limit at its default.
func TestUsefulPrograms(t *testing.T) {
	needsAttack(t)
	f, err := Start(t.Context(), Config{Binary: binary, Number: 90, Ordinary: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	t.Log(f.Started.Isolation)
	for _, p := range usefulPrograms {
		t.Run(p.name, func(t *testing.T) {
			a := &Attempt{fleet: f, ctx: t.Context(), token: tokenPrefix + f.tag() + plain(p.name)}
			session := a.Session()
			a.Write(session, "readme", "")
			for _, need := range p.needs {
				if !installed(a, need) {
					t.Skipf("%s is not installed", need)
				}
			}
			command := p.command
			if p.code != "" {
				e := a.Evaluate(Submission{Code: p.code, Entry: "work", Cases: []Case{{"", "'done'"}}})
				if len(e.Cases) == 1 && (!e.Passed || e.Cases[0].Stderr != "" || len(e.Cases[0].Integrity) > 0) {
					t.Errorf("as a submission: %s, integrity %v", e.Cases[0], e.Cases[0].Integrity)
				}
				e = a.Evaluate(Submission{ID: session, Code: p.code, Entry: "work", Cases: []Case{{"", "'done'"}}})
				if len(e.Cases) == 1 && !e.Passed {
					t.Errorf("as a submission in a session: %s", e.Cases[0])
				}
				a.Command(session, "rm -rf *", nil)
				a.Write(session, "work.py", p.code+"\nif __name__ == '__main__':\n    print(work())\n")
				command = "python3 work.py"
			}
			r := a.Command(session, command, nil)
			if r.ExitCode == nil || *r.ExitCode != 0 || !strings.HasSuffix(r.Stdout, "done\n") || r.Stderr != "" {
				t.Errorf("as a command: exit %v, timed out %v, stdout %q, stderr %q", deref(r.ExitCode), r.TimedOut, r.Stdout, r.Stderr)
			}
			for _, through := range a.through {
				t.Error(through)
			}
		})
	}
}

// installed says whether a program, or with a leading dot a module, is there. It
// asks this machine, not the sandbox: that must not hide what is installed.
func installed(a *Attempt, need string) bool {
	module, isModule := strings.CutPrefix(need, ".")
	if !isModule {
		_, err := exec.LookPath(need)
		return err == nil
	}
	var python string
	e := a.Evaluate(Submission{Code: "import sys\ndef which(): return sys.executable or sys.orig_argv[0]", Entry: "which", Cases: []Case{{"", "''"}}})
	if len(e.Cases) == 1 {
		json.Unmarshal(e.Cases[0].Got, &python)
	}
	if python == "" {
		python = "python3"
	}
	return exec.Command(python, "-c", "import "+module).Run() == nil
}

// Three problems a person might solve, beside two sessions that do their worst.
func TestNoisyNeighbours(t *testing.T) {
	needsAttack(t)
	path := os.Getenv("REDTEAM_PROBLEMS")
	if path == "" {
		path = "../../../examples/problems.jsonl"
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Start(t.Context(), Config{Binary: binary, Number: 91, Env: []string{"GRADEFLEET_SLOTS=3", "GRADEFLEET_CASE_MEMORY=1073741824"}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	stop := make(chan struct{})
	done := make(chan int)
	for n, noise := range [][]string{
		{"import os\ndef solve(n):\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
			"import os\ndef solve(n):\n    while True: os.write(1, b'x' * 65536)\n",
			"import threading\ndef solve(n):\n    while True: threading.Thread(target=lambda: [0] * 10**7, daemon=True).start()\n"},
		{"def solve(n):\n    kept = []\n    while True: kept.append(bytearray(b'x') * (8 << 20))\n",
			"def solve(n):\n    i = 0\n    while True:\n        open('f%d' % (i % 50), 'w').write('x' * (1 << 20)); i += 1\n",
			"import os, signal\ndef solve(n):\n    while True:\n        try:\n            if os.fork() == 0:\n                os.setsid(); os.closerange(0, 99)\n                for s in range(1, 32):\n                    if s not in (9, 19): signal.signal(s, signal.SIG_IGN)\n        except OSError: pass\n"},
	} {
		go func() {
			a := &Attempt{fleet: f, ctx: t.Context(), token: tokenPrefix + f.tag() + "noise"}
			session, rounds := a.Session(), 0
			a.Write(session, "noise", "")
			for {
				select {
				case <-stop:
					done <- rounds
					return
				default:
				}
				e := a.Evaluate(Submission{ID: session, Code: noise[rounds%len(noise)], Entry: "solve", Limits: map[string]any{"wall_s": 1, "memory_mb": 256}, Cases: []Case{{"n=1", "1"}}})
				if e.Passed {
					t.Errorf("noise %d passed", n)
				}
				rounds++
			}
		}()
	}
	a := &Attempt{fleet: f, ctx: t.Context(), token: tokenPrefix + f.tag() + "problems"}
	cases, wrong := 0, 0
	for line := range strings.Lines(string(data)) {
		var problem struct {
			Task     string `json:"task_id"`
			Entry    string `json:"entry_point"`
			Code     string `json:"code"`
			Cases    []Case `json:"io_cases"`
			Verdicts []bool `json:"verdicts"`
		}
		if err := json.Unmarshal([]byte(line), &problem); err != nil {
			t.Fatal(err)
		}
		s := Submission{Code: problem.Code, Entry: problem.Entry, Cases: problem.Cases}
		if !strings.Contains(problem.Task, "endless") {
			// Of the machine's two processors the noise may have both.
			s.Limits = map[string]any{"wall_s": 30, "cpu_s": 10}
		}
		e := a.Evaluate(s)
		for i, c := range e.Cases {
			cases++
			if c.Passed != problem.Verdicts[i] || c.Status == protocol.Skipped {
				wrong++
				t.Errorf("%s, case %d: want passed %v, have %s", problem.Task, i, problem.Verdicts[i], c)
			}
		}
	}
	close(stop)
	rounds := <-done + <-done
	for _, through := range a.through {
		t.Error(through)
	}
	if rounds < 4 || cases < 100 {
		t.Errorf("%d rounds of noise beside %d cases: too few to prove anything", rounds, cases)
	}
	t.Logf("%d cases of real problems beside %d rounds of attacks in two sessions: %d verdicts wrong", cases, rounds, wrong)
}
