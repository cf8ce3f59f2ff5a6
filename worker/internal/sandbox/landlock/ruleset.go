package landlock

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The rights that a path of each list gets, of those that are handled.
const (
	readOnly    = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	readExecute = readOnly | unix.LANDLOCK_ACCESS_FS_EXECUTE
	readWrite   = fs9 &^ (unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV)

	readWriteFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	sharedDir = readWriteFile | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE

	// fileRights are those that the rule for a file can have.
	fileRights = readWriteFile | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
)

// rule is a path held open and its rights.
type rule struct {
	fd     int
	rights uint64
}

// Restrict puts the policy on the calling thread and on all it forks or
// executes from now on, for good, and sets no_new_privs on it. The caller has
// locked its goroutine to the thread and goes on to execute a program or exit:
// other threads of the process stay as they are. After an error nothing but
// no_new_privs is in force.
func (p Policy) Restrict() error {
	fd, err := p.Ruleset()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("landlock: set no_new_privs: %w", err)
	}
	return Enter(fd)
}

// Ruleset returns a descriptor that [Enter], or landlock_restrict_self(2) in
// any process that has the descriptor and no_new_privs, puts in force, as often
// as wanted. It is close-on-exec; the caller closes it.
func (p Policy) Ruleset() (fd int, err error) {
	h, err := p.Hold()
	if err != nil {
		return -1, err
	}
	defer h.Close()
	return h.Ruleset()
}

// Enter puts a ruleset on the calling thread and on all it forks or executes
// from now on. The thread has no_new_privs.
func Enter(fd int) error {
	abi, err := ABI()
	if err != nil {
		return err
	}
	var flags uintptr
	if abi >= 7 {
		// A submission in a layer of its own could fill the audit log with
		// what it is refused. Refusals of this layer are logged until exec.
		flags = unix.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), flags, 0); errno != 0 {
		return fmt.Errorf("landlock: enter ruleset: %w", errno)
	}
	return nil
}

// Held is a policy whose paths are open, from which rulesets are made without
// looking them up again. Its methods may be called concurrently, Close
// excepted.
type Held struct {
	handled Access
	rules   []rule
}

// Hold opens the policy's paths. A rule holds for what has the name now.
func (p Policy) Hold() (*Held, error) { return p.HoldIn("") }

// HoldIn is Hold for a process whose root is another directory than ours: root,
// such as /proc/<pid>/root, is put in front of every path. The paths must be
// without links there, which would lead to files of our own root.
func (p Policy) HoldIn(root string) (*Held, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	abi, err := ABI()
	if err != nil {
		return nil, err
	}
	if least := p.minABI(); abi < least {
		return nil, fmt.Errorf("%w: the kernel has ABI %d, the policy needs %d: use a newer kernel or accept less with MinABI", ErrUnavailable, abi, least)
	}
	return p.hold(root, Best(abi))
}

func (p Policy) hold(root string, handled Access) (*Held, error) {
	h := &Held{handled: handled}
	for _, l := range p.lists() {
		for _, path := range l.paths {
			r, err := open(l, root+path)
			if errors.Is(err, unix.ENOENT) && slices.Contains(p.Optional, path) {
				continue
			}
			if err != nil {
				h.Close()
				return nil, err
			}
			h.rules = append(h.rules, r)
		}
	}
	return h, nil
}

// open returns the rule for a path of a list.
func open(l list, path string) (rule, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if l.rights == readWrite {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return rule{}, fmt.Errorf("landlock: open %s of %s: %w", path, l.field, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return rule{}, fmt.Errorf("landlock: stat %s of %s: %w", path, l.field, err)
	}
	rights, dir := l.rights, st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case rights == readWrite && !dir:
		unix.Close(fd)
		return rule{}, fmt.Errorf("landlock: %s of %s is not a directory: give a directory, links resolved, or put a file in ReadWriteFiles: %w", path, l.field, unix.ENOTDIR)
	case rights == sharedDir && !dir:
		unix.Close(fd)
		return rule{}, fmt.Errorf("landlock: %s of %s is not a directory: %w", path, l.field, unix.ENOTDIR)
	case rights == readWriteFile && dir:
		unix.Close(fd)
		return rule{}, fmt.Errorf("landlock: %s of %s is a directory: put it in ReadWrite: %w", path, l.field, unix.EISDIR)
	case !dir:
		rights &= fileRights
	}
	return rule{fd, rights}, nil
}

// Ruleset returns a descriptor as [Policy.Ruleset] does, for the held policy
// and directories that may be written, in addition, as those of
// [Policy.ReadWrite].
func (h *Held) Ruleset(dirs ...string) (fd int, err error) {
	if err := (Policy{ReadWrite: dirs}).validate(); err != nil {
		return -1, err
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: h.handled.FS, Handled_access_net: h.handled.Net, Scoped: h.handled.Scoped}
	// Older kernels take the longer struct as long as what they don't know is 0.
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock: create ruleset: %w", errno)
	}
	fd = int(n)
	for _, r := range h.rules {
		if err = h.add(fd, r); err != nil {
			break
		}
	}
	for _, dir := range dirs {
		if err != nil {
			break
		}
		var r rule
		if r, err = open(list{field: "the writable directories", rights: readWrite}, dir); err == nil {
			err = h.add(fd, r)
			unix.Close(r.fd)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (h *Held) add(ruleset int, r rule) error {
	attr := unix.LandlockPathBeneathAttr{Allowed_access: r.rights & h.handled.FS, Parent_fd: int32(r.fd)}
	if attr.Allowed_access == 0 {
		return nil
	}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: add rule: %w", errno)
	}
	return nil
}

// Close gives the paths up. Rulesets made from them stay valid.
func (h *Held) Close() {
	for _, r := range h.rules {
		unix.Close(r.fd)
	}
	h.rules = nil
}
