# The fork server of one slot: a warm interpreter that never runs a
# submission itself. It forks children on request, reports how they ended, and
# leaves nothing of them behind. Children are numbered in the order in which they
# were asked for, from 1. Control messages are packets on fd 3:
#   worker -> server   F + 3 descriptors (channel, stdout, stderr): fork a child
#                      K number: kill that child
#   server -> worker   H: ready
#                      x number status user-µs system-µs peak-KiB leftovers:
#                        ended, and no descendant of it is left; the times are
#                        those of all of them
#
# What a fork costs is mostly the pages that either side writes to afterwards,
# some 2 µs each. So whatever can be made before the first fork is, and what is
# in the way of a job touches as little as it can.
import select

CONTROL = 3
REPORT = Struct("<cIiQQII")
NUMBER = Struct("<cI")
MAX_SWEEPS = 1000
CHILDREN_BYTES = 1 << 10  # a small buffer touches few pages
PATIENT_SWEEPS = 2  # after so many, what is left is a fork bomb


def preload(names):
    """Import what submissions commonly import, so that no child pays for it."""
    register = os.register_at_fork
    for name in ["random", *names]:
        if name == "random":  # which seeds itself anew in every child: see reseed
            os.register_at_fork = lambda **hooks: RESEED.append(hooks["after_in_child"])
        try:
            __import__(name)
        except Exception:
            continue
        finally:
            os.register_at_fork = register
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        RESEED.append(numpy.random.seed)


def children():
    """The pids of all children, those inherited as subreaper among them."""
    data = os.pread(CHILDREN_FD, CHILDREN_BYTES, 0)
    if len(data) == CHILDREN_BYTES:
        data = os.pread(CHILDREN_FD, 1 << 20, 0)
    return [int(p) for p in data.split()]


def user_of(pid):
    """The real user of a process, or -1 if it is gone. The owner of its
    directory in /proc isn't it: that is root while the process isn't dumpable."""
    try:
        with open("/proc/%d/status" % pid) as f:
            for line in f:
                if line.startswith("Uid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return -1


def end_user(uid):
    """Kill every process of a session's user at once. One after the other, a
    fork bomb makes new ones as fast; kill(-1) leaves none a chance to fork."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, 9)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def sweep(tracked):
    """Kill and reap every descendant that is not a tracked child. Killing a
    process hands its children to us, so this ends when a look finds none.
    Returns how many there were and the CPU seconds they had used."""
    killed, user, system = 0, 0.0, 0.0
    for n in range(MAX_SWEEPS):
        strays = [p for p in children() if p not in tracked]
        if not strays:
            break
        if CONFINED and not tracked:
            # No signal of ours leaves the slot, so this ends all of them at
            # once, and leaves none a chance to fork.
            try:
                os.kill(-1, 9)
            except OSError:
                pass
        elif n >= PATIENT_SWEEPS:
            for uid in {user_of(p) for p in strays} - {-1, 0, os.getuid()}:
                end_user(uid)
        for p in strays:
            try:
                os.kill(p, 9)
            except OSError:
                pass
        for p in strays:
            try:
                usage = os.wait4(p, 0)[2]
            except ChildProcessError:
                continue
            killed += 1
            user += usage.ru_utime
            system += usage.ru_stime
    return killed, user, system


def fork_child(fds):
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        return pid
    channel, out, err = fds
    os.dup2(NULL_FD, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(channel, CHANNEL, inheritable=False)
    os.closerange(CHANNEL + 1, 256)
    child()


def serve():
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL)
    tracked = {}  # pid -> number
    by_fd = {}  # pidfd -> pid
    by_number = {}
    asked = 0
    poll = select.poll()
    poll.register(CONTROL, select.POLLIN)
    control.send(b"H")
    space = _socket.CMSG_SPACE(3 * 4)
    ints = Struct("3i")
    while True:
        for fd, _ in poll.poll():
            if fd == CONTROL:
                data, anc, _, _ = control.recvmsg(64, space)
                if not data:
                    sweep(())
                    os._exit(0)
                op = data[:1]
                if op == b"F":
                    pid = fork_child(ints.unpack(anc[0][2]))
                    asked += 1
                    pidfd = os.pidfd_open(pid)
                    tracked[pid] = asked
                    by_number[asked] = pid
                    by_fd[pidfd] = pid
                    poll.register(pidfd, select.POLLIN)
                elif op == b"K":
                    pid = by_number.get(NUMBER.unpack(data)[1])
                    if pid is not None:
                        try:
                            os.kill(pid, 9)
                        except ProcessLookupError:
                            pass
            else:
                pid = by_fd.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                number = tracked.pop(pid)
                del by_number[number]
                _, status, usage = os.wait4(pid, 0)
                leftovers, user, system = sweep(tracked)
                control.send(REPORT.pack(b"x", number, status, int((usage.ru_utime + user) * 1e6),
                                         int((usage.ru_stime + system) * 1e6), usage.ru_maxrss, leftovers))


def warm_up(limits):
    """Go once through what children do: caches that the interpreter fills in
    its own code are then shared, instead of copied into every child."""
    global _write
    write, _write = _write, lambda fd, data: len(data)
    spec = ("def f(x):\n    return [x]\n", "f", 0, ((KEYWORDS, {"x": 1}),) * 3, 5, True, limits)
    usual = _resource.getrlimit(_resource.RLIMIT_CPU)
    for _ in range(20):
        op_evaluate(spec)
    _resource.setrlimit(_resource.RLIMIT_CPU, usual)
    STATE.soft, _write = -1, write


def furnish():
    """Make what a child is to find: its standard streams are those of warm_up, its
    main module is empty."""
    global SERVER
    SERVER = sys.modules["__main__"]  # keeps its functions' names alive
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [""]


def main(path, names, limits, confined):
    global NULL_FD, CHILDREN_FD, CONFINED
    import _sitebuiltins
    import gc

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.help = _sitebuiltins._Helper()
    sys.path[:] = path
    CONFINED = confined  # what our signals can reach is this slot
    preload(names)
    NULL_FD = os.open("/dev/null", os.O_RDONLY)
    CHILDREN_FD = os.open("/proc/self/task/%d/children" % os.getpid(), os.O_RDONLY)
    errors = sys.stderr
    try:
        warm_up(limits)
        furnish()
        gc.collect()
        gc.freeze()  # what is here now is never looked at again, in no child either
        serve()
    except BaseException:
        sys.stderr = errors  # the worker's log
        raise
