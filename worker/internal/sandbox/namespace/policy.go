package namespace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Policy is the file system of a slot. Paths are absolute, clean and, on the
// host's side, without links.
type Policy struct {
	// ReadOnly lists files and directories that are at the same path inside.
	// Missing ones are left out.
	ReadOnly []string `json:"read_only"`
	// Links are symbolic links to make inside: path to target.
	Links map[string]string `json:"links"`
	// Binds are directories of the host at other paths inside.
	Binds []Bind `json:"binds"`
	// Private is a directory that is an empty tmpfs of the slot's own, of at
	// most PrivateBytes; for the fork server, not for jobs.
	Private string `json:"private"`
	// Here, if not empty, is where a keeper mounts one directory at a time: see
	// KeepIn.
	Here string `json:"here,omitempty"`
	// Anchor is a directory on which the new root is mounted while it is made.
	Anchor string `json:"anchor"`
}

// Bind is a directory of the host at a path inside.
type Bind struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Writable bool   `json:"writable"`
}

// PrivateBytes bounds [Policy.Private], and the root itself, in bytes.
const PrivateBytes = 1 << 20

// Hostname is the host's name inside.
const Hostname = "session"

// devices are what programs expect in /dev and can do no harm with.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// reserved are made here, so that nothing of the host can be mounted there.
var reserved = []string{"/tmp", "/var/tmp", "/dev", "/proc", "/run"}

// System returns the policy for programs of the system and of runtime, the
// directories that an interpreter loads from. An error says which of those
// can't be had inside.
func System(runtime ...string) (Policy, error) {
	p := Policy{Links: map[string]string{}}
	add := func(path string) {
		for _, have := range p.ReadOnly {
			if within(have, path) {
				return
			}
		}
		kept := p.ReadOnly[:0]
		for _, have := range p.ReadOnly {
			if !within(path, have) {
				kept = append(kept, have)
			}
		}
		p.ReadOnly = append(kept, path)
	}
	for _, path := range []string{"/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys/devices/system/cpu"} {
		info, err := os.Lstat(path)
		switch {
		case err != nil:
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return p, fmt.Errorf("read link %s: %w", path, err)
			}
			p.Links[path] = target
		default:
			add(path)
		}
	}
	for _, path := range runtime {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue // as interpreters do
		}
		for _, r := range reserved {
			if within(r, real) {
				return p, fmt.Errorf("the interpreter needs %s, which is below %s: a slot has a directory of its own there; install it elsewhere", real, r)
			}
		}
		add(real)
		if real != path && !covered(p, path) {
			p.Links[path] = real
		}
	}
	return p, nil
}

// covered says whether a path is inside already, by a tree or a link.
func covered(p Policy, path string) bool {
	for _, dir := range p.ReadOnly {
		if within(dir, path) {
			return true
		}
	}
	for link := range p.Links {
		if within(link, path) {
			return true
		}
	}
	return false
}

// within says whether a clean path is dir or lies beneath it.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Kind says how namespaces are had.
type Kind string

// The kinds.
const (
	// None: there are none.
	None Kind = ""
	// AsRoot: by root's rights.
	AsRoot Kind = "root"
	// AsUser: in a user namespace, in which the worker's user stays who it is.
	AsUser Kind = "user"
)

// KindHere is the kind to try: by whether the worker is root.
func KindHere() Kind {
	if os.Geteuid() == 0 {
		return AsRoot
	}
	return AsUser
}

// Attributes are what a process must be started with, which then calls
// [Policy.Build]. nil for None.
func (k Kind) Attributes() *syscall.SysProcAttr {
	if k == None {
		return nil
	}
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	if k == AsUser {
		uid, gid := os.Geteuid(), os.Getegid()
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		// The user isn't root inside either, so its rights over the new
		// namespaces must be carried across the execution of the launcher.
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	}
	return a
}
