# What comes before the attack() of every probe. The host-side facts are given:
# an attacker who knows everything must still get nowhere.
import errno
import json
import os
import sys

FACTS = json.loads(FACTS_JSON)
TOKEN = FACTS["token"]
tried, through, notes = [], [], []
missing = ""
NR = {
    "x86_64": dict(mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308, clone=56, clone3=435, ptrace=101,
                   process_vm_readv=310, process_vm_writev=311, pidfd_open=434, pidfd_getfd=438, bpf=321, keyctl=250, add_key=248,
                   request_key=249, io_uring_setup=425, perf_event_open=298, userfaultfd=323, kexec_load=246, init_module=175,
                   finit_module=313, delete_module=176, open_by_handle_at=304, name_to_handle_at=303, swapon=167, reboot=169,
                   sethostname=170, settimeofday=164, clock_settime=227, syslog=103, acct=163, quotactl=179, prlimit64=302,
                   setpriority=141, sched_setaffinity=203, sched_setscheduler=144, ioprio_set=251, kcmp=312, memfd_secret=447,
                   fsopen=430, open_tree=428, fanotify_init=300, shmget=29, semget=64, msgget=68, mq_open=240, personality=135,
                   mknodat=259, getpid=39, io_setup=206, lookup_dcookie=212, process_madvise=440, move_pages=279, setxattr=188),
    "aarch64": dict(mount=40, umount2=39, pivot_root=41, chroot=51, unshare=97, setns=268, clone=220, clone3=435, ptrace=117,
                    process_vm_readv=270, process_vm_writev=271, pidfd_open=434, pidfd_getfd=438, bpf=280, keyctl=219, add_key=217,
                    request_key=218, io_uring_setup=425, perf_event_open=241, userfaultfd=282, kexec_load=104, init_module=105,
                    finit_module=273, delete_module=106, open_by_handle_at=265, name_to_handle_at=264, swapon=224, reboot=142,
                    sethostname=161, settimeofday=170, clock_settime=112, syslog=116, acct=89, quotactl=60, prlimit64=261,
                    setpriority=140, sched_setaffinity=122, sched_setscheduler=119, ioprio_set=30, kcmp=272, memfd_secret=447,
                    fsopen=430, open_tree=428, fanotify_init=262, shmget=194, semget=190, msgget=186, mq_open=180, personality=92,
                    mknodat=33, getpid=172, io_setup=0, lookup_dcookie=18, process_madvise=440, move_pages=239, setxattr=5),
}.get(os.uname().machine, {})


def attempt(name, call, *args):
    """Try what must not work; a call that returns got through."""
    tried.append(name)
    try:
        result = call(*args)
    except (NameError, SyntaxError, AttributeError, TypeError, LookupError):
        raise  # a fault of the attack, which must not look like a refusal
    except BaseException as e:
        notes.append("%s: %.80r" % (name, e))
        return None
    through.append("%s: %.160r" % (name, result))
    return result


def saw(name, bad, what=""):
    """A try whose success shows otherwise than by a call that returns."""
    tried.append(name)
    if bad:
        through.append("%s: %.200s" % (name, what))


def libc():
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def syscall(name, *args):
    """A system call by its name; OSError if it fails."""
    import ctypes

    c = libc()
    c.syscall.restype = ctypes.c_long
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = c.syscall(ctypes.c_long(NR[name]), *args)
    if result == -1:
        e = ctypes.get_errno()
        raise OSError(e, errno.errorcode.get(e, "?"), name)
    return result


def read(path, n=4096):
    with open(path, "rb") as f:
        return f.read(n)


def write(path, data=b"x", mode="ab"):
    with open(path, mode) as f:
        return f.write(data)


def plantable(path):
    """Whether a file could be made or changed: a file in a directory is made
    without a name, one that is there is opened and not written."""
    if os.path.isdir(path):
        return os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600)
    return os.open(path, os.O_WRONLY)


def pids():
    """Every process that shows and is not of this job, which is a session of
    processes by itself."""
    found = []
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                if os.getsid(int(p)) == os.getsid(0): continue
            except OSError:
                pass
            found.append(int(p))
    return found


def readable():
    """Make this process' own entries in /proc readable to itself, which changing
    its user has forbidden."""
    libc().prctl(4, 1, 0, 0, 0)


def parents():
    """The fork server, if it shows at all: in a pid namespace of its own a
    process' parent may be nobody."""
    tried.append("parent")
    return [p for p in (os.getppid(),) if p > 0]


def need(module):
    """Whether a module is there; if not, the attack can't be made here."""
    global missing
    try:
        return __import__(module)
    except ImportError:
        missing = "this Python has no %s" % module
        raise


def probe():
    if not FACTS["tame"] and (os.getuid() == 0 or not any(p in os.getcwd() for p in ("/sessions/", "/scratch/", "/gradefleet/here/"))):
        # Nothing holds it: what it would do now could harm the machine.
        saw("confinement", True, "user %d in %s; gave up" % (os.getuid(), os.getcwd()))
        return {"tried": tried, "through": through, "missing": "", "notes": []}
    try:
        attack()
    except ImportError:
        if not missing:
            raise
    return {"tried": tried, "through": through[:20], "missing": missing, "notes": notes[:20]}
