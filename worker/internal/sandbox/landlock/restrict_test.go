package landlock

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// outside starts what restricted processes must not reach, as uid: a process, a
// TCP listener and an abstract socket.
func outside(t *testing.T, uid int) (pid, port, abstract string) {
	t.Helper()
	cmd := exec.Command("/bin/cat") // waits for its input
	as(cmd, uid)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process outside: %v", err)
		}
	})
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	abstract = fmt.Sprintf("@landlock-test-%d-%s", os.Getpid(), t.Name())
	l, err := net.Listen("unix", abstract)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(cmd.Process.Pid), strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port), abstract
}

// TestRestrict tries each thing under a policy, and without one, where all of
// it must succeed: so each refusal is Landlock's.
func TestRestrict(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		in, out := stage(t, uid)
		pid, port, abstract := outside(t, uid)
		scratch := fmt.Sprintf("/tmp/landlock-test-%d-%d", os.Getpid(), uid)
		t.Cleanup(func() { os.Remove(scratch) })
		cases := []struct {
			name string
			step step
			want string
			root bool // only root may do it at all
		}{
			{"read a setting", step{"read", "/etc/passwd"}, "ok", false},
			{"read a program", step{"read", "/usr/bin/env"}, "ok", false},
			{"list /proc", step{"list", "/proc"}, "ok", false},
			{"list processors", step{"list", "/sys/devices/system/cpu"}, "ok", false},
			{"read /dev/urandom", step{"read", "/dev/urandom"}, "ok", false},
			{"write /dev/null", step{"write", "/dev/null"}, "ok", false},
			{"run sh", step{"exec", "/bin/sh", "-c", "echo a | tr a b", "b"}, "ok", false},
			{"redirect in sh", step{"exec", "/bin/sh", "-c", "echo a >/dev/null; echo b 2>&1 >/dev/stderr", "b"}, "ok", false},

			{"list /tmp", step{"list", "/tmp"}, "EACCES", false},
			{"list /", step{"list", "/"}, "EACCES", false},
			{"list /var", step{"list", "/var"}, "EACCES", false},
			{"list /home", step{"list", "/home"}, "EACCES", false},
			{"list /run", step{"list", "/run"}, "EACCES", false},
			{"list /dev", step{"list", "/dev"}, "EACCES", false},
			{"list other of /sys", step{"list", "/sys/kernel"}, "EACCES", false},
			{"list /root", step{"list", "/root"}, "EACCES", true},
			{"write a setting", step{"write", "/etc/passwd"}, "EACCES", true},
			{"write a program", step{"write", "/usr/bin/env"}, "EACCES", true},
			{"write in /proc", step{"write", "/proc/self/comm"}, "EACCES", false},
			{"write in /tmp", step{"mkdir", scratch}, "EACCES", false},

			{"run a file inside", step{"exec", in + "/program", ""}, "ok", false},
			{"write and read inside", step{"readback", in + "/a/new"}, "ok", false},
			{"truncate inside", step{"truncate", in + "/a/file"}, "ok", false},
			{"rename between directories inside", step{"rename", in + "/a/file", in + "/b/file"}, "ok", false},
			{"rename a directory inside", step{"rename", in + "/a/deep", in + "/b/deep"}, "ok", false},
			{"link between directories inside", step{"link", in + "/b/file", in + "/a/again"}, "ok", false},
			{"symbolic link inside", step{"symlink", out + "/a/file", in + "/a/sym"}, "ok", false},
			{"make a directory inside", step{"mkdir", in + "/a/dir"}, "ok", false},
			{"make a fifo inside", step{"mkfifo", in + "/a/fifo"}, "ok", false},
			{"a unix socket inside", step{"ownunix", in + "/a/sock"}, "ok", false},
			{"remove a file inside", step{"unlink", in + "/a/again"}, "ok", false},
			{"remove a directory inside", step{"rmdir", in + "/empty"}, "ok", false},
			{"make a device inside", step{"mkchar", in + "/a/null"}, "EACCES", true},
			{"make a block device inside", step{"mkblock", in + "/a/loop"}, "EACCES", true},

			{"read outside", step{"read", out + "/a/file"}, "EACCES", false},
			{"read outside by a link inside", step{"read", in + "/a/sym"}, "EACCES", false},
			{"write outside", step{"readback", out + "/a/new"}, "EACCES", false},
			{"truncate outside", step{"truncate", out + "/a/file"}, "EACCES", false},
			{"rename to outside", step{"rename", in + "/a/new", out + "/a/got"}, "EACCES", false},
			{"rename from outside", step{"rename", out + "/a/other", in + "/a/got"}, "EACCES", false},
			{"link from outside", step{"link", out + "/a/file", in + "/a/linked"}, "EXDEV", false},
			{"make a directory outside", step{"mkdir", out + "/a/dir"}, "EACCES", false},
			{"remove outside", step{"unlink", out + "/a/file"}, "EACCES", false},
			{"run a file outside", step{"exec", out + "/program", ""}, "EACCES", false},
			{"the top of the tree itself", step{"rename", in, in + "2"}, "EACCES", false},

			{"connect over TCP", step{"connect", port}, "EACCES", false},
			{"bind over TCP", step{"bind"}, "EACCES", false},
			{"an ioctl of a device", step{"entropy", "/dev/urandom"}, "EACCES", false},
			{"signal a process outside", step{"kill", pid}, "EPERM", false},
			{"signal the parent", step{"killparent"}, "EPERM", true}, // it is root
			{"signal its own child", step{"killchild"}, "ok", false},
			{"read the memory of a process outside", step{"read", "/proc/" + pid + "/mem"}, "EACCES", false},
			{"see the files of a process outside", step{"list", "/proc/" + pid + "/cwd/"}, "EACCES", false},
			{"an abstract socket outside", step{"unix", abstract}, "EPERM", false},
			{"an abstract socket of its own", step{"ownunix", abstract + "-own"}, "ok", false},
		}
		if uid != 0 { // root's capabilities are enough on newer kernels
			c := cases[0]
			c.name, c.step, c.want = "read the environment of a process outside", step{"read", "/proc/" + pid + "/environ"}, "EACCES"
			cases = append(cases, c)
		}
		o := order{Policies: []Policy{Runtime().Writable(in)}}
		for _, c := range cases {
			o.Steps = append(o.Steps, c.step)
		}
		for i, got := range carryOut(t, uid, o) {
			if c := cases[i]; got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}

		// The same on a new stage, so that nothing is missing.
		freeIn, freeOut := stage(t, uid)
		r := strings.NewReplacer(in, freeIn, out, freeOut)
		o = order{}
		var tried []int
		for i, c := range cases {
			if c.root && uid != 0 {
				continue
			}
			var s step
			for _, arg := range c.step {
				s = append(s, r.Replace(arg))
			}
			o.Steps = append(o.Steps, s)
			tried = append(tried, i)
		}
		for i, got := range carryOut(t, uid, o) {
			if c := cases[tried[i]]; got != "ok" {
				t.Errorf("%s, unrestricted: %s, want ok", c.name, got)
			}
		}
	})
}

// TestRightsOfEachList tries the same files in each list of a policy.
func TestRightsOfEachList(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		steps := []string{"read", "write", "truncate", "run", "list", "make", "ioctl"}
		cases := []struct {
			name string
			put  func(p *Policy, dir, file, program, device string)
			can  string // the steps that succeed
		}{
			{"none", func(*Policy, string, string, string, string) {}, ""},
			{"ReadOnly", func(p *Policy, dir, _, _, _ string) { p.ReadOnly = append(p.ReadOnly, dir) }, "read list"},
			{"ReadExecute", func(p *Policy, dir, _, _, _ string) { p.ReadExecute = append(p.ReadExecute, dir) }, "read run list"},
			{"ReadWrite", func(p *Policy, dir, _, _, _ string) { p.ReadWrite = []string{dir} }, "read write truncate run list make"},
			{"ReadWriteFiles", func(p *Policy, _, file, program, device string) {
				p.ReadWriteFiles = append(p.ReadWriteFiles, file, program)
				if uid == 0 {
					p.ReadWriteFiles = append(p.ReadWriteFiles, device)
				}
			}, "read write truncate"},
		}
		for _, c := range cases {
			_, dir := stage(t, uid)
			file, program, device := dir+"/a/file", dir+"/program", dir+"/random"
			p := Runtime()
			if uid == 0 { // nobody can't make one
				if err := unix.Mknod(device, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 8))); err != nil {
					t.Fatal(err)
				}
			}
			c.put(&p, dir, file, program, device)
			o := order{Policies: []Policy{p}, Steps: []step{
				{"read", file}, {"write", file}, {"truncate", file}, {"exec", program, ""}, {"list", dir + "/a"}, {"mkfile", dir + "/made"}, {"entropy", device},
			}}
			if uid != 0 {
				o.Steps = o.Steps[:len(o.Steps)-1]
			}
			var can []string
			for i, got := range carryOut(t, uid, o) {
				switch got {
				case "ok":
					can = append(can, steps[i])
				case "EACCES":
				default:
					t.Errorf("%s: %s: %s", c.name, steps[i], got)
				}
			}
			if got := strings.Join(can, " "); got != c.can {
				t.Errorf("%s: can %s, want %s", c.name, got, c.can)
			}
		}
	})
}

// TestEachRightIsHandled shows for each right that a refusal comes from it: the
// same is allowed where only that right is left out.
func TestEachRightIsHandled(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		pid, port, abstract := outside(t, uid)
		cases := []struct {
			name  string
			right Access
			step  func(out string) step
			root  bool
		}{
			{"execute", Access{FS: unix.LANDLOCK_ACCESS_FS_EXECUTE}, func(out string) step { return step{"exec", out + "/program", ""} }, false},
			{"write file", Access{FS: unix.LANDLOCK_ACCESS_FS_WRITE_FILE}, func(out string) step { return step{"write", out + "/a/file"} }, false},
			{"read file", Access{FS: unix.LANDLOCK_ACCESS_FS_READ_FILE}, func(out string) step { return step{"read", out + "/a/file"} }, false},
			{"read dir", Access{FS: unix.LANDLOCK_ACCESS_FS_READ_DIR}, func(out string) step { return step{"list", out + "/a"} }, false},
			{"remove dir", Access{FS: unix.LANDLOCK_ACCESS_FS_REMOVE_DIR}, func(out string) step { return step{"rmdir", out + "/empty"} }, false},
			{"remove file", Access{FS: unix.LANDLOCK_ACCESS_FS_REMOVE_FILE}, func(out string) step { return step{"unlink", out + "/a/file"} }, false},
			{"make char", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_CHAR}, func(out string) step { return step{"mkchar", out + "/null"} }, true},
			{"make dir", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_DIR}, func(out string) step { return step{"mkdir", out + "/dir"} }, false},
			{"make reg", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_REG}, func(out string) step { return step{"mkfile", out + "/file"} }, false},
			{"make sock", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_SOCK}, func(out string) step { return step{"mksock", out + "/sock"} }, false},
			{"make fifo", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_FIFO}, func(out string) step { return step{"mkfifo", out + "/fifo"} }, false},
			{"make block", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK}, func(out string) step { return step{"mkblock", out + "/loop"} }, true},
			{"make sym", Access{FS: unix.LANDLOCK_ACCESS_FS_MAKE_SYM}, func(out string) step { return step{"symlink", "x", out + "/sym"} }, false},
			{"truncate", Access{FS: unix.LANDLOCK_ACCESS_FS_TRUNCATE}, func(out string) step { return step{"truncate", out + "/a/file"} }, false},
			{"ioctl dev", Access{FS: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}, func(string) step { return step{"entropy", "/dev/urandom"} }, false},
			{"bind TCP", Access{Net: unix.LANDLOCK_ACCESS_NET_BIND_TCP}, func(string) step { return step{"bind"} }, false},
			{"connect TCP", Access{Net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}, func(string) step { return step{"connect", port} }, false},
			{"signal", Access{Scoped: unix.LANDLOCK_SCOPE_SIGNAL}, func(string) step { return step{"kill", pid} }, false},
			{"abstract socket", Access{Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}, func(string) step { return step{"unix", abstract} }, false},
		}
		var covered Access
		for _, c := range cases {
			covered = Access{covered.FS | c.right.FS, covered.Net | c.right.Net, covered.Scoped | c.right.Scoped}
			if c.root && uid != 0 {
				continue
			}
			_, out := stage(t, uid)
			p := Runtime()
			if c.name == "execute" { // which is reading, too
				p.ReadOnly = append(p.ReadOnly, out)
			}
			o := order{Policies: []Policy{p}, Steps: []step{c.step(out)}}
			if got := carryOut(t, uid, o)[0]; got != "EACCES" && got != "EPERM" {
				t.Errorf("%s handled: %s, want a refusal", c.name, got)
			}
			o.Without = c.right
			if got := carryOut(t, uid, o)[0]; got != "ok" {
				t.Errorf("%s not handled: %s, want ok", c.name, got)
			}
		}
		// Renames between directories are refused where refer isn't handled.
		covered.FS |= unix.LANDLOCK_ACCESS_FS_REFER
		in, _ := stage(t, uid)
		o := order{Policies: []Policy{Runtime().Writable(in)}, Without: Access{FS: unix.LANDLOCK_ACCESS_FS_REFER}, Steps: []step{{"rename", in + "/a/file", in + "/b/file"}}}
		if got := carryOut(t, uid, o)[0]; got != "EXDEV" {
			t.Errorf("refer not handled: %s, want EXDEV", got)
		}
		if covered != Best(7) {
			t.Errorf("covered %x, ABI 7 has %x", covered, Best(7))
		}
	})
}

// TestEachRuleIsNeeded takes away one path of the policy at a time: what it
// allowed is then refused.
func TestEachRuleIsNeeded(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		in, _ := stage(t, uid)
		whole := Runtime().Writable(in)
		check := func(path string, less Policy, s step) {
			t.Helper()
			if got := carryOut(t, uid, order{Policies: []Policy{whole}, Steps: []step{s}})[0]; got != "ok" {
				t.Errorf("with %s: %v: %s, want ok", path, s, got)
			}
			if got := carryOut(t, uid, order{Policies: []Policy{less}, Steps: []step{s}})[0]; got != "EACCES" {
				t.Errorf("without %s: %v: %s, want EACCES", path, s, got)
			}
		}
		without := func(paths []string, i int) []string {
			return append(append([]string{}, paths[:i]...), paths[i+1:]...)
		}
		for i, path := range whole.ReadExecute {
			less := whole
			less.ReadExecute = without(whole.ReadExecute, i)
			check(path, less, step{"list", path})
		}
		for i, path := range whole.ReadOnly {
			less := whole
			less.ReadOnly, less.Optional = without(whole.ReadOnly, i), nil
			check(path, less, step{"list", path})
		}
		for i, path := range whole.ReadWriteFiles {
			less := whole
			less.ReadWriteFiles = without(whole.ReadWriteFiles, i)
			check(path, less, step{"write", path})
		}
		check(in, whole.Writable(), step{"list", in})
	})
}

// TestInterpreter runs what submissions need of a Python.
func TestInterpreter(t *testing.T) {
	need(t, 6)
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip(err)
	}
	programs := []struct{ name, code, want string }{
		{"standard library", "import json, ctypes, sqlite3, ssl, decimal, multiprocessing, datetime, locale; print(json.dumps([1]))", "[1]"},
		{"subprocess", "import subprocess as s; print(s.run(['ls', '/etc/passwd'], stdout=s.PIPE, stderr=s.DEVNULL, text=True).stdout)", "/etc/passwd"},
		{"null device", "print('x', file=open('/dev/null', 'w')); print(len(open('/dev/urandom', 'rb').read(4)))", "4"},
		{"processors", "import os; print(os.cpu_count() > 0)", "True"},
		{"user", "import pwd; print(pwd.getpwuid(0).pw_name)", "root"},
		{"file outside", "try:\n open('/tmp/x', 'w')\nexcept PermissionError as e: print(e.errno)", "13"},
	}
	if exec.Command(python, "-c", "import numpy").Run() == nil {
		programs = append(programs, struct{ name, code, want string }{"numpy", "import numpy as n; print(n.linalg.inv(n.eye(200)).trace())", "200.0"})
	}
	if exec.Command(python, "-c", "import pandas").Run() == nil {
		programs = append(programs, struct{ name, code, want string }{"pandas", "import pandas as p; print(p.DataFrame({'a': [1, 2]}).a.sum())", "3"})
	}
	users(t, func(t *testing.T, uid int) {
		in, _ := stage(t, uid)
		o := order{Policies: []Policy{Runtime(filepath.Dir(python), "/no/such/directory").Writable(in)}}
		for _, p := range programs {
			o.Steps = append(o.Steps, step{"exec", python, "-B", "-c", p.code, p.want})
		}
		for i, got := range carryOut(t, uid, o) {
			if got != "ok" {
				t.Errorf("%s: %s", programs[i].name, got)
			}
		}
	})
}

// TestLimits holds what the package documentation says is not covered.
func TestLimits(t *testing.T) {
	need(t, 6)
	users(t, func(t *testing.T, uid int) {
		in, out := stage(t, uid)
		steps := []step{
			{"stat", out + "/a/file"}, {"chdir", out}, {"chmod", out + "/a/file"},
			{"memfd", "/bin/true"},
			{"read", "/proc/" + strconv.Itoa(os.Getpid()) + "/cmdline"},
		}
		for i, got := range carryOut(t, uid, order{Policies: []Policy{Runtime().Writable(in)}, Steps: steps}) {
			if got != "ok" {
				t.Errorf("%v: %s: mend the documentation", steps[i], got)
			}
		}
	})
}
