# The child's side of the sandbox: what must be done between fork and the first
# line of a submission. Runs in the forked child, which still has the fork
# server's rights; after enter() it has the session's. Source: package sandbox (Go).
import os as _os
import resource as _resource

try:
    import _ctypes
except ImportError:  # then no ruleset is ever sent: package interpreter looks
    _ctypes = None

RLIM_INFINITY = _resource.RLIM_INFINITY
LANDLOCK_RESTRICT_SELF = 446  # the same number on every architecture
LOG_SUBDOMAINS_OFF = 4  # ABI 7: a submission can't fill the audit log


def _system_call():
    """The C library's syscall(2) and prctl(2), without the ctypes package: that costs every
    fork the pages that it fills."""
    class Long(_ctypes._SimpleCData):
        _type_ = "l"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Long

    library = _ctypes.dlopen(None, 0)
    return Function(_ctypes.dlsym(library, "syscall")), Function(_ctypes.dlsym(library, "prctl"))


_syscall, _prctl = _system_call() if _ctypes else (None, None)
PR_SET_DUMPABLE = 4
_home = _os.environ.get("HOME")  # of the session that the server was started for


def restrict_self(ruleset):
    """Put a Landlock ruleset in force on this process, for good."""
    for flags in (LOG_SUBDOMAINS_OFF, 0):
        if _syscall(LANDLOCK_RESTRICT_SELF, ruleset, flags) == 0:
            return
        errno = _ctypes.get_errno()
        if errno != 22:  # EINVAL: a kernel before ABI 7 has no flags
            break
    raise OSError(errno, _os.strerror(errno))


def point(link, target):
    """Make a link lead to target, if it doesn't already."""
    try:
        if _os.readlink(link) == target:
            return
        _os.unlink(link)
    except FileNotFoundError:
        pass
    _os.symlink(target, link)


def enter(spec, ruleset=-1):
    """Confine this process to a session. Raises OSError when a step fails.

    spec is (uid, gid, work, limits, env, temp): uid -1 keeps the user; limits is a
    tuple of (resource, soft, hard), beside those that the server has already; env what
    the session adds to the environment; temp, if any, a link and where it is to
    lead. ruleset, if not -1, is the descriptor of the session's Landlock layer.
    """
    uid, gid, work, limits, env, temp = spec
    step = "setsid"
    try:
        _os.setsid()
        if temp is not None:
            step = "link /tmp"
            point(*temp)
        if uid >= 0:
            step = "setgroups"
            _os.setgroups([])
            step = "setresgid"
            _os.setresgid(gid, gid, gid)
        for which, soft, hard in limits:
            step = "setrlimit"
            _resource.setrlimit(which, (soft, hard))
        if uid >= 0:
            # After the limits, so that raising a hard limit back is refused.
            step = "setresuid"
            _os.setresuid(uid, uid, uid)
            if _prctl is not None:
                # The change of user made /proc/self root's; the worker looks
                # there, as this user, for what a job's processes use.
                _prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        step = "chdir"
        _os.chdir(work)
        if env.get("HOME") != _home:
            step = "environ"
            _os.environ.update(env)
        if ruleset >= 0:
            step = "landlock_restrict_self"
            restrict_self(ruleset)
            _os.close(ruleset)
    except OSError as e:
        raise OSError(e.errno, "enter sandbox: %s: %s" % (step, e.strerror)) from None
