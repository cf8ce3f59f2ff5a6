# What a hostile submission would try, once, from inside a slot's sandbox. The
# worker believes what this sees, not what it has configured. Each try returns
# None if it was refused, and else what it got. Source: package sandbox (Go).
import os, resource, socket, sys


def call(number, *args):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args])
    return None if result == -1 else "system call %d gave %d" % (number, result)


def refused(f, *args, **kwargs):
    """What f gave, or None if it raised an OSError."""
    try:
        got = f(*args, **kwargs)
    except OSError:
        return None
    return "%s worked: %.60r" % (getattr(f, "__name__", f), got)


def read(path):
    try:
        with open(path, "rb") as f:
            return "read %s: %.20r" % (path, f.read(64))
    except OSError:
        return None


def write(path):
    try:
        with open(path, "wb") as f:
            f.write(b"x")
    except OSError:
        return None
    try:
        os.unlink(path)
    except OSError:
        pass
    return "wrote " + path


def change_mode(path):
    os.chmod(path, os.stat(path).st_mode & 0o777)
    return path


def first(results):
    return next((r for r in results if r is not None), None)


def raise_limits():
    for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_CORE"):
        which = getattr(resource, name)
        soft, hard = resource.getrlimit(which)
        if hard == resource.RLIM_INFINITY:
            return name + " is not limited"
        try:
            resource.setrlimit(which, (soft, hard + 1))
        except (OSError, ValueError):
            continue
        return name + " was raised"


def status(field):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()


def rights():
    if status("NoNewPrivs") != "1":
        return "no_new_privs is not set"
    for field in ("CapEff", "CapPrm", "CapAmb"):
        if int(status(field), 16):
            return "%s is %s" % (field, status(field))


def signal(pids):
    return first(refused(os.kill, pid, 0) for pid in pids)


def sockets():
    for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_STREAM),
                         (socket.AF_INET, socket.SOCK_RAW), (socket.AF_NETLINK, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW),
                         (socket.AF_UNIX, socket.SOCK_DGRAM), (40, socket.SOCK_STREAM)):
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        return "a socket of family %d, type %d" % (family, kind)


def system_calls(numbers):
    return first(call(n, *args) for n, args in numbers)


def temporary(names):
    """A file that another session could see or leave: refused, or not there
    for others, which the worker looks at."""
    for directory in ("/tmp", "/var/tmp"):
        try:
            with open(directory + "/" + names, "wb") as f:
                f.write(b"x")
        except OSError:
            continue
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            found = os.listdir(directory)
        except OSError:
            continue
        if set(found) - {names}:
            return "%s shows %.60r" % (directory, found)


def processes():
    strange = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
    if os.getppid() != 1 or strange:
        return "sees processes %.60r" % strange


def interfaces():
    with open("/proc/net/dev") as f:
        names = [line.split(":")[0].strip() for line in f if ":" in line]
    if set(names) - {"lo"}:
        return "sees network interfaces %r" % names


def selftest(secrets, others, places, signalled, environs, numbers, temporary_name):
    tries = {
        "limits": raise_limits,
        "rights": rights,
        "files of the worker": lambda: first(map(read, secrets)),
        "files of another session": lambda: first(map(read, others)),
        "modes of another session": lambda: first(refused(change_mode, p) for p in others + [os.path.dirname(p) for p in others]),
        "files of the host": lambda: first(map(write, places)),
        "other users": lambda: first([refused(os.setuid, 0), refused(os.setgid, 0)]) if os.getuid() else "runs as root",
        "signals": lambda: signal(signalled + [os.getppid()]),
        "memory of others": lambda: first(map(read, environs + ["/proc/%d/environ" % os.getppid(), "/proc/%d/mem" % os.getppid()])),
        "sockets": sockets,
        "system calls": lambda: system_calls(numbers),
        "temporary directories": lambda: temporary(temporary_name),
        "own processes": processes,
        "own network": interfaces,
    }
    seen = {}
    for name, f in tries.items():
        try:
            seen[name] = f()
        except Exception as e:
            seen[name] = "could not be tried: %s: %s" % (type(e).__name__, e)
    return seen
