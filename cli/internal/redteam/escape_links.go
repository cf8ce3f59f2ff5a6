package redteam

import (
	"encoding/json"
	"path/filepath"
	"strings"
)

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
			ownWork := filepath.Join("..", "work")
			for _, path := range []string{"file", "dir/canary", "relative", "secret", "home/canary", "root" + private + "/canary", "proc" + home + "/canary", "root/etc/passwd",
				"proc/etc/passwd", "cwd/../../../worker-id", "up/home/x", "up/../../../worker-id", "victim/notes/secret.txt", "near/notes/secret.txt", "loop", "a", "d/e/canary", ownWork + "/x", "/etc/passwd", "//etc/passwd", "d/../../../../worker-id"} {
				if status, body := a.Get(session, path); status == 200 && !strings.HasPrefix(path, ownWork) {
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
