# The child's side of the sandbox: what must be done between fork and the first
# line of a submission. Runs in the forked child, which still has the worker's
# rights; after enter() it has the session's. Source: package sandbox (Go).
import os as _os
import resource as _resource

RLIM_INFINITY = _resource.RLIM_INFINITY


def enter(spec):
    """Confine this process to a session. Raises OSError when a step fails.

    spec is (uid, gid, work, limits, env): uid -1 keeps the user; limits is a
    tuple of (resource, soft, hard); env what the session adds to the environment
    that the fork server was started with.
    """
    uid, gid, work, limits, env = spec
    step = "setsid"
    try:
        _os.setsid()
        step = "chdir"
        _os.chdir(work)
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
        step = "umask"
        _os.umask(0o022)
        step = "environ"
        _os.environ.update(env)
    except OSError as e:
        raise OSError(e.errno, "enter sandbox: %s: %s" % (step, e.strerror)) from None
