package redteam

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is what lies around a fleet for it to be stolen, changed or talked to:
// canary files and listening sockets.
type Host struct {
	// shared is a directory below the system's for temporary files, private one
	// elsewhere; both hold files that any user may read and write. home holds
	// one for its owner only.
	shared, private, home string
	secrets               map[string]string
	unixPath, dgramPath   string
	abstract              string

	made      []string
	listeners map[string]interface{ Close() error }
	ports     map[string]int
	mu        sync.Mutex
	contacts  []string // what came in at the sockets
	wait      sync.WaitGroup
}

func newHost(dir string) (*Host, error) {
	h := &Host{
		shared: filepath.Join(dir, "shared"), home: filepath.Join(dir, "home"),
		unixPath: filepath.Join(dir, "shared", "socket"), dgramPath: filepath.Join(dir, "shared", "datagrams"),
		abstract:  "gradefleet-redteam-" + random(6),
		listeners: map[string]interface{ Close() error }{}, ports: map[string]int{},
		secrets: map[string]string{
			"a file of the host's temporary directory": "shared-" + random(16),
			"a file of the host":                       "private-" + random(16),
			"a file of the worker's user":              "home-" + random(16),
		},
	}
	// Outside the temporary directories, where root and other users can write.
	base := "/var/lib"
	if os.Getuid() != 0 {
		base = os.Getenv("HOME")
	}
	private, err := os.MkdirTemp(base, ".gradefleet-redteam-")
	if err != nil {
		return nil, fmt.Errorf("make canaries: %w", err)
	}
	h.private = private
	h.made = append(h.made, private)
	if err := h.fill(); err != nil {
		return nil, err
	}
	return h, h.listen()
}

// fill makes the canaries, or makes them again as they were.
func (h *Host) fill() error {
	for _, d := range []struct {
		path, what string
		mode, file os.FileMode
	}{
		{h.shared, "a file of the host's temporary directory", 0o777, 0o666},
		{h.private, "a file of the host", 0o777, 0o666},
		{h.home, "a file of the worker's user", 0o700, 0o600},
	} {
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			return fmt.Errorf("make canaries: %w", err)
		}
		os.Chmod(d.path, 0o700)
		secret := filepath.Join(d.path, "canary")
		os.RemoveAll(secret) // whatever an attack put there; a link of its making must not be followed
		if err := os.WriteFile(secret, []byte(h.secrets[d.what]), 0o600); err != nil {
			return fmt.Errorf("make canaries: %w", err)
		}
		if err := os.Chmod(secret, d.file); err != nil {
			return err
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// listen opens sockets of the kinds that a submission might find a way to.
func (h *Host) listen() error {
	for _, l := range []struct{ name, network, address string }{
		{"tcp4", "tcp4", "127.0.0.1:0"}, {"tcp6", "tcp6", "[::1]:0"},
		{"unix", "unix", h.unixPath}, {"abstract", "unix", "@" + h.abstract},
	} {
		listener, err := net.Listen(l.network, l.address)
		if err != nil {
			if l.name == "tcp6" {
				continue // a machine without IPv6
			}
			return fmt.Errorf("listen: %w", err)
		}
		h.listeners[l.name] = listener
		if a, ok := listener.Addr().(*net.TCPAddr); ok {
			h.ports[l.name] = a.Port
		}
		h.wait.Go(func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				c.Close()
				h.note("a connection over %s", l.name)
			}
		})
	}
	for _, l := range []struct{ name, network, address string }{{"udp4", "udp4", "127.0.0.1:0"}, {"dgram", "unixgram", h.dgramPath}} {
		conn, err := net.ListenPacket(l.network, l.address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		h.listeners[l.name] = conn
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			h.ports[l.name] = a.Port
		}
		h.wait.Go(func() {
			var buf [2048]byte
			for {
				if _, _, err := conn.ReadFrom(buf[:]); err != nil {
					return
				}
				h.note("a datagram over %s", l.name)
			}
		})
	}
	for _, path := range []string{h.unixPath, h.dgramPath} {
		if err := os.Chmod(path, 0o777); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) port(name string) int { return h.ports[name] }

func (h *Host) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contacts = append(h.contacts, fmt.Sprintf(format, args...))
}

// contacted returns what came in since it was last asked.
func (h *Host) contacted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.contacts = nil }()
	return h.contacts
}

func (h *Host) close() {
	for _, l := range h.listeners {
		l.Close()
	}
	h.wait.Wait()
	for _, path := range h.made {
		removeAll(path)
	}
}

// temporaries are the host's directories that anybody may write to.
var temporaries = []string{"/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev/mqueue"}

// fingerprint is the state of everything outside sessions that an attack must
// not change: each path with what identifies it.
func (f *Fleet) fingerprint() map[string]string {
	seen := map[string]string{}
	for _, root := range []string{f.host.shared, f.host.private, f.host.home, f.sessionDir(f.victim), filepath.Join(f.Data, "bin")} {
		filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			seen[path] = describe(path)
			return nil
		})
	}
	// Of these only what lies in them: their contents are the worker's to change.
	for _, dir := range []string{f.Data, filepath.Join(f.Data, "sessions")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			seen[filepath.Join(dir, e.Name())] = shape(filepath.Join(dir, e.Name()))
		}
	}
	for _, dir := range temporaries {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); f.ours(path) {
				seen[path] = shape(path)
			}
		}
	}
	var uts unix.Utsname
	unix.Uname(&uts)
	seen["host name"] = unix.ByteSliceToString(uts.Nodename[:])
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		lines := slices.DeleteFunc(strings.Split(string(mounts), "\n"), func(l string) bool { return !strings.Contains(l, f.dir) })
		seen["mounts"] = strings.Join(lines, "\n")
	}
	for _, kind := range []string{"shm", "sem", "msg"} {
		if table, err := os.ReadFile("/proc/sysvipc/" + kind); err == nil {
			seen["System V "+kind] = fmt.Sprint(strings.Count(string(table), "\n"))
		}
	}
	return seen
}

// tidy removes what attacks left in directories of the host's.
func (f *Fleet) tidy() {
	for _, dir := range append([]string{"/", "/run", "/dev"}, temporaries...) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), tokenPrefix+f.tag()) {
				removeAll(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// ours says whether a file in a directory for temporary files was left there by
// a session of this fleet: by its user, or where sessions have none by the name
// that attacks give to what they make.
func (f *Fleet) ours(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	if f.UIDBase > 0 && uid >= f.UIDBase && uid < f.UIDBase+uidsPerFleet {
		return true
	}
	return strings.Contains(filepath.Base(path), tokenPrefix+f.tag())
}

// shape describes what a path is, whatever it holds.
func shape(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v, user %d, group %d, inode %d", info.Mode(), st.Uid, st.Gid, st.Ino)
}

// describe is shape with the contents.
func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	s := shape(path)
	switch {
	case info.Mode().IsRegular():
		data, _ := os.ReadFile(path)
		s += fmt.Sprintf(", %d links, %d bytes, %x", info.Sys().(*syscall.Stat_t).Nlink, len(data), sha256.Sum256(data))
	case info.Mode()&os.ModeSymlink != 0:
		target, _ := os.Readlink(path)
		s += ", to " + target
	}
	return s
}

// differences names what changed between two fingerprints.
func differences(before, after map[string]string) []string {
	var changed []string
	for path, was := range before {
		if is, ok := after[path]; !ok {
			changed = append(changed, path+" is gone")
		} else if is != was {
			changed = append(changed, fmt.Sprintf("%s was %s, is %s", path, was, is))
		}
	}
	for path, is := range after {
		if _, ok := before[path]; !ok {
			changed = append(changed, fmt.Sprintf("%s is new: %s", path, is))
		}
	}
	slices.Sort(changed)
	return changed
}

// descriptors counts those that the fleet's process has open.
func (f *Fleet) descriptors() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.Pid))
	return len(entries)
}

// allocated is what a file takes up on the disk, in bytes.
func allocated(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
