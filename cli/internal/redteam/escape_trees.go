package redteam

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

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
