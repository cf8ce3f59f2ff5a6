package landlock

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is in the chain of errors that say that the kernel has no
// Landlock, or less than a policy asks for. Nothing was restricted.
var ErrUnavailable = errors.New("landlock unavailable")

// Access is a set of rights, as bit masks of the LANDLOCK_ACCESS_FS_*,
// LANDLOCK_ACCESS_NET_* and LANDLOCK_SCOPE_* constants.
type Access struct {
	FS, Net, Scoped uint64
}

// Newest is the latest ABI version this package knows. On later kernels it
// enforces what this one has.
const Newest = 10

const (
	fs1 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	fs2 = fs1 | unix.LANDLOCK_ACCESS_FS_REFER
	fs3 = fs2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	fs5 = fs3 | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	fs9 = fs5 | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX

	net4  = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	net10 = net4 | unix.LANDLOCK_ACCESS_NET_BIND_UDP | unix.LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP

	scope6 = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
)

// versions is what each ABI version can refuse. Source: "Previous limitations"
// of the kernel's Landlock documentation.
var versions = [Newest + 1]Access{
	1:  {FS: fs1},                             // Linux 5.13
	2:  {FS: fs2},                             // 5.19: rename and link between directories
	3:  {FS: fs3},                             // 6.2: truncate
	4:  {FS: fs3, Net: net4},                  // 6.7: TCP
	5:  {FS: fs5, Net: net4},                  // 6.10: ioctl of devices
	6:  {FS: fs5, Net: net4, Scoped: scope6},  // 6.12: signals, abstract sockets
	7:  {FS: fs5, Net: net4, Scoped: scope6},  // 6.15: flags for the audit log
	8:  {FS: fs5, Net: net4, Scoped: scope6},  // all threads at once
	9:  {FS: fs9, Net: net4, Scoped: scope6},  // unix sockets with a path
	10: {FS: fs9, Net: net10, Scoped: scope6}, // UDP
}

// features names what came with a version, for reports. Outward ones are
// refused towards processes outside the domain only.
var features = []struct {
	abi     int
	name    string
	outward bool
}{
	{3, "truncate", false},
	{4, "TCP", false},
	{5, "device ioctl", false},
	{6, "signals", true},
	{6, "abstract sockets", true},
	{9, "unix sockets", true},
	{10, "UDP", false},
}

// Best returns all that an ABI version can refuse: nothing for 0, and no more
// than [Newest] for later ones.
func Best(abi int) Access {
	return versions[max(0, min(abi, Newest))]
}

// ABI returns the kernel's ABI version, 1 or more, or 0 and the reason why
// there is none; that error is an [ErrUnavailable]. It says what the kernel
// offers: [Probe] tries it.
func ABI() (int, error) { return kernelABI() }

var kernelABI = sync.OnceValues(func() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 {
		return int(v), nil
	}
	return 0, unavailable(errno)
})

// unavailable is the error for the kernel's refusal to tell its version.
func unavailable(errno unix.Errno) error {
	reason := "the kernel's answer to landlock_create_ruleset"
	switch errno {
	case unix.ENOSYS:
		reason = "the kernel was built without it or is older than 5.13, or a seccomp filter hides it"
	case unix.EOPNOTSUPP:
		reason = "it is switched off: add landlock to the kernel's lsm= parameter"
	case unix.EPERM, unix.EACCES:
		reason = "a seccomp filter refuses it: allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self"
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, reason, errno)
}
