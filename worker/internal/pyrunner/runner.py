# The child's side of a job. Runs in a process forked from the fork server,
# inside the sandbox, together with the submission, so nothing here is trusted
# by the worker: it only says what the submission got. Expected outputs never
# come here, except where the submission's own == has to be asked (op compare),
# and then only after the answer is in.
import builtins
import io
import marshal
import os
import sys
import time
import _socket
from _struct import Struct
from types import FunctionType, MethodType, ModuleType

FRAME = Struct("<IBIIIIII")  # length of the rest, kind, case, cpu µs, wall µs, peak KiB, stdout bytes, stderr bytes
COUNT, INT = Struct("<I"), Struct("i")
MICROS = 0xFFFFFFFF
VALUE, OPAQUE, ERROR, MEMORY, EXIT, LIMIT, READY, TRUTHS, FAULT = b"VOEMXLRTF"

USUAL_MESSAGE = 8 << 10  # bytes; a larger one takes a second read
CHANNEL = 3  # the job's socket: payload in, frames out
RIGHTS = _socket.CMSG_SPACE(INT.size)  # one descriptor
RECURSION_LIMIT = 1000  # CPython's default
SCALARS = frozenset((int, str, bool, float, type(None), bytes, complex, type(...)))


LITERALS = SCALARS | {list, tuple, dict, set, frozenset, bytearray, object}


def installed(c):
    """Whether a class is a module's, as collections.Counter is: one of a
    submission's lies in no module."""
    module = sys.modules.get(c.__module__)
    return module is not None and getattr(module, c.__name__, None) is c


class Unfit(Exception):
    """The value holds something that is no builtin literal."""


def plain(v, type=type, all=all, map=map, set=set):
    """Whether v is made of exact builtin literal types only."""
    t = type(v)
    if t in SCALARS:
        return True
    if t is list or t is tuple:
        kinds = set(map(type, v))
        return kinds <= SCALARS or all(map(plain, v))
    if t is dict:
        return all(map(plain, v)) and all(map(plain, v.values()))
    if t is set or t is frozenset:
        return all(map(plain, v))
    return False


def base(v, marks):
    """v with subclasses of literal types as their base value, without calling
    anything the subclass defines. Raises Unfit for any other type."""
    t = type(v)
    if t in SCALARS:
        return v
    if t is list:
        return [base(x, marks) for x in v]
    if t is tuple:
        return tuple([base(x, marks) for x in v])
    if t is dict:
        return {base(k, marks): base(x, marks) for k, x in v.items()}
    if t is set:
        return {base(x, marks) for x in v}
    if t is frozenset:
        return frozenset([base(x, marks) for x in v])
    if t is bytearray:
        return bytes(v)
    module = t.__module__
    if module == "numpy" and hasattr(v, "tolist"):
        return base(v.tolist(), marks)  # scalars become Python's, arrays nested lists
    if module.startswith("pandas.") and t.__name__ in ("Series", "Index", "RangeIndex"):
        return base(v.tolist(), marks)
    mro = t.__mro__
    for c in mro:
        if c.__module__ == "builtins" and c in LITERALS:
            break
        if "__eq__" in c.__dict__ and not installed(c):
            marks.add("subclass")  # of a builtin, with its own idea of equality
            break
    if bool in mro or int in mro:
        return int.__int__(v)
    if float in mro:
        return float.__float__(v)
    if str in mro:
        return str.__str__(v)
    if tuple in mro:
        return tuple([base(x, marks) for x in tuple.__iter__(v)])
    if list in mro:
        return [base(x, marks) for x in list.__iter__(v)]
    if dict in mro:
        return {base(k, marks): base(x, marks) for k, x in dict.items(v)}
    if frozenset in mro:
        return frozenset([base(x, marks) for x in frozenset.__iter__(v)])
    if set in mro:
        return {base(x, marks) for x in set.__iter__(v)}
    if bytes in mro:
        return bytes.__add__(v, b"")
    if complex in mro:
        return complex.__add__(v, 0j)
    raise Unfit


def clip(text, limit):
    """text as UTF-8 bytes, cut at limit."""
    data = text[:limit].encode("utf-8", "backslashreplace")
    return data if len(data) <= limit else data[:limit]


def describe(v, limit):
    """A readable text of any value; never raises an Exception."""
    try:
        text = repr(v)
        if type(text) is not str:
            text = str.__str__(text)
    except Exception as e:
        text = "<%s object; its repr raised %s>" % (type(v).__name__, type(e).__name__)
    return clip(text, limit)


def pack(v, limits):
    """The frame kind and body that report v."""
    try:
        if not plain(v):
            marks = set()
            v = base(v, marks)
            if marks:
                return VALUE, b"\x01" + marshal.dumps(v, 2)
        return VALUE, b"\x00" + marshal.dumps(v, 2)
    except Unfit:
        return OPAQUE, describe(v, limits[1])
    except (RecursionError, ValueError) as e:
        # Nested deeper than can be carried, a cycle among them.
        return OPAQUE, describe(v, limits[1]) if type(e) is ValueError else b"<%s nested too deeply>" % type(v).__name__.encode()


def explain(e, limit):
    """Type, message and the submission's own frames of an exception."""
    name = type(e).__name__
    try:
        message = str(e)
    except BaseException as inner:
        message = "<its str() raised %s>" % type(inner).__name__
    lines = ["%s: %s" % (name, message)]
    tb, frames = e.__traceback__, []
    while tb is not None:
        code = tb.tb_frame.f_code
        if not code.co_filename.startswith("<gradefleet"):
            frames.append('  File "%s", line %d, in %s' % (code.co_filename, tb.tb_lineno, code.co_name))
        tb = tb.tb_next
    if frames:
        lines.append("Traceback (most recent call last):")
        if len(frames) > 20:
            frames[10:-10] = ["  … %d more frames …" % (len(frames) - 20)]
        lines += frames
    return clip("\n".join(lines), limit)


class Capture(io.RawIOBase):
    """Standard output or error of one case, kept in memory up to a limit."""

    def __init__(self, fd, keep, stop):
        self.fd, self.keep, self.stop = fd, keep, stop
        self.parts, self.size, self.total = [], 0, 0

    def writable(self):
        return True

    def fileno(self):
        return self.fd

    def write(self, b):
        n = len(b)
        self.total += n
        if self.size < self.keep:
            part = bytes(b[: self.keep - self.size])
            self.parts.append(part)
            self.size += len(part)
        elif self.total > self.stop:
            send(LIMIT, STATE.case, b"printed more than %d bytes" % self.stop)
            os._exit(1)
        return n

    def take(self):
        data = b"".join(self.parts) if self.parts else b""
        if self.total:
            self.parts, self.size, self.total = [], 0, 0
        return data


class State:
    """Which case runs, since when, and what it may have printed so far."""

    case = 0
    wall = cpu = 0.0  # when it began
    peak = 0  # KiB, as of the last case that took long enough to change it
    code = names = None  # the last function's code, and its parameters by name
    soft = -1  # the CPU limit in force, seconds
    out = err = None  # (stream, Capture) while output is captured
    stdin = None
    failed = None  # the exception that compiling ended with


STATE = State()
_write = os.write
_getrusage = _resource.getrusage
_perf, _cpu_time = time.perf_counter, time.process_time


def write_all(data):
    n = _write(CHANNEL, data)
    while n < len(data):
        data = data[n:]
        n = _write(CHANNEL, data)


def micros(seconds):
    # A process that a submission forked has a CPU clock of its own.
    n = int(seconds * 1e6)
    return n if 0 <= n <= MICROS else 0 if n < 0 else MICROS


SHORT = 0.001  # seconds; so short a case is not asked for its peak memory


def send(kind, case, body):
    """Write one frame. What comes after counts for the next case."""
    wall, cpu = _perf(), _cpu_time()
    out = err = b""
    if STATE.out is not None:
        if STATE.out[1].total:
            out = STATE.out[1].take()
        if STATE.err[1].total:
            err = STATE.err[1].take()
    if wall - STATE.wall > SHORT or not STATE.peak:
        STATE.peak = _getrusage(0).ru_maxrss
    data = FRAME.pack(FRAME.size - 4 + len(out) + len(err) + len(body), kind, case, micros(cpu - STATE.cpu), micros(wall - STATE.wall), STATE.peak, len(out), len(err))
    STATE.wall, STATE.cpu = wall, cpu
    write_all(data + out + err + body if out or err else data + body)


def stream(fd, keep, stop):
    raw = Capture(fd, keep, stop)
    return io.TextIOWrapper(io.BufferedWriter(raw, 8192), encoding="utf-8", errors="backslashreplace",
                            write_through=False), raw


def real_stream(fd):
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(fd, "w", closefd=False), 8192), encoding="utf-8",
                            errors="backslashreplace", line_buffering=True)


def flush():
    """Push what the case printed into its capture; a case may have broken its streams."""
    try:
        sys.stdout.flush()
    except BaseException:
        pass
    try:
        sys.stderr.flush()
    except BaseException:
        pass


def fresh_streams(captured, limits):
    """Standard streams as a new process has them, whatever the last case did."""
    if captured:
        if STATE.out is None or sys.stdout is not STATE.out[0] or sys.stdout.closed:
            STATE.out = stream(1, limits[2], limits[3])
            sys.stdout = sys.__stdout__ = STATE.out[0]
        if STATE.err is None or sys.stderr is not STATE.err[0] or sys.stderr.closed:
            STATE.err = stream(2, limits[2], limits[3])
            sys.stderr = sys.__stderr__ = STATE.err[0]
    else:
        sys.stdout = sys.__stdout__ = real_stream(1)
        sys.stderr = sys.__stderr__ = real_stream(2)
    if STATE.stdin is None or sys.stdin is not STATE.stdin or sys.stdin.closed:
        try:
            STATE.stdin = sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
        except OSError:
            sys.stdin = None


def parameters(func):
    """The positional parameter names of a callable, those with a default, and
    the keyword-only ones. Wrappers made with functools.wraps count as what
    they wrap; a leading self is no parameter."""
    bound = False
    for _ in range(64):
        if type(func) is MethodType:
            bound, func = True, func.__func__
        inner = getattr(func, "__wrapped__", None)
        if inner is None:
            break
        func = inner
    if type(func) is FunctionType:
        code = func.__code__
        n = code.co_argcount
        names, kwonly = code.co_varnames[:n], code.co_varnames[n: n + code.co_kwonlyargcount]
        defaults = names[n - len(func.__defaults__):] if func.__defaults__ else ()
    else:
        import inspect

        spec = inspect.getfullargspec(func)
        names, kwonly = spec.args, spec.kwonlyargs
        defaults = names[len(names) - len(spec.defaults):] if spec.defaults else ()
    if names and (bound or names[0] == "self"):
        names = names[1:]
    return names, defaults, kwonly


def bind(func, params):
    """The call's arguments out of name=value params, as the documented API
    binds them: by the names of the function's parameters, extras ignored."""
    names, defaults, kwonly = parameters(func)
    for name in names:
        if name not in params and name not in defaults:
            raise KeyError(name)
    args, kwargs = [], {k: params[k] for k in kwonly if k in params}
    for i, name in enumerate(names):
        if name not in params:  # its default holds, so what follows goes by keyword
            kwargs.update({k: params[k] for k in names[i + 1:] if k in params})
            break
        args.append(params[name])
    return args, kwargs


def read_input(text):
    """What the documented service makes of an input text that is not plainly
    name=literal or one literal. Returns (params, args)."""
    import re
    from ast import literal_eval

    params = {}
    for m in re.finditer(r"(\w+)\s*=\s*(.+?)(?=,\s*\w+\s*=|$)", text):
        try:
            params[m.group(1)] = literal_eval(m.group(2).strip())
        except Exception:
            continue
    if params:
        return params, ()
    try:
        return None, (literal_eval(text.strip()),)
    except Exception:
        return None, ()


KEYWORDS, POSITIONAL, TEXT = 0, 1, 2


def named(func, params):
    """The arguments for a plain function whose parameters are all given, as
    bind() makes them, or None. Cases mostly differ in their values only."""
    if type(func) is not FunctionType or getattr(func, "__wrapped__", None) is not None:
        return None
    code = func.__code__
    if code is not STATE.code:
        names, _, kwonly = parameters(func)
        STATE.code, STATE.names = code, None if kwonly else names
    if STATE.names is None:
        return None
    try:
        return [params[name] for name in STATE.names]
    except KeyError:
        return None


def call(code, entry, case):
    """Run one case in a fresh namespace. Returns (value, namespace)."""
    kind, data = case
    namespace = {"__builtins__": builtins}
    exec(code, namespace)
    func = eval(entry, namespace)
    if not callable(func):
        raise TypeError("unsupported callable")
    if kind == KEYWORDS:
        params = data
        args = named(func, params) if params else ()
        if args is not None:
            return func(*args), namespace
    elif kind == TEXT:
        params, args = read_input(data)
    else:
        params, args = None, data
    if params:
        args, kwargs = bind(func, params)
        return func(*args, **kwargs), namespace
    return func(*args), namespace


def cpu_allowance(seconds):
    """Give the case that starts now its own CPU seconds: the limit of the
    process is moved on, never past the hard limit."""
    soft = int(STATE.cpu) + seconds
    if soft != STATE.soft:
        hard = _resource.getrlimit(_resource.RLIMIT_CPU)[1]
        if hard != RLIM_INFINITY:
            soft = min(soft, hard)
        _resource.setrlimit(_resource.RLIMIT_CPU, (soft, hard))
        STATE.soft = soft


def report(case, e, limits):
    """The frame for an exception that ended a case."""
    if isinstance(e, MemoryError):
        send(MEMORY, case, explain(e, limits[1]))
    elif isinstance(e, Exception):
        send(ERROR, case, explain(e, limits[1]))
    else:
        send(EXIT, case, explain(e, limits[1]))


def begin(case):
    STATE.case = case
    STATE.wall = _perf()
    STATE.cpu = _cpu_time()


def compiled(source):
    """The submission's code object, or None; the error is in STATE."""
    try:
        return compile(source, "<string>", "exec", dont_inherit=True)
    except BaseException as e:
        STATE.failed = e
        return None


def compiled_entry(entry):
    """The entry point ready for eval(). What is no expression stays a text: its
    error belongs to the case, after the submission's own."""
    try:
        return compile(entry, "<string>", "eval", dont_inherit=True)
    except BaseException:
        return entry


def op_evaluate(spec):
    source, entry, first, cases, cpu_s, captured, limits = spec
    begin(first)
    fresh_streams(captured, limits)
    code, entry = compiled(source), compiled_entry(entry)
    n = first
    for case in cases:
        STATE.case = n
        if n != first:
            fresh_streams(captured, limits)
            if sys.getrecursionlimit() != RECURSION_LIMIT:
                sys.setrecursionlimit(RECURSION_LIMIT)
        cpu_allowance(cpu_s)
        try:
            if code is None:
                raise STATE.failed
            got, _ = call(code, entry, case)
            kind, body = pack(got, limits)
            del got, _
            flush()
            if len(body) > limits[0]:
                send(LIMIT, n, b"result of %d bytes, the limit is %d" % (len(body), limits[0]))
            else:
                send(kind, n, body)
        except BaseException as e:
            flush()
            report(n, e, limits)
        n += 1


def op_expr(spec):
    """Evaluate expected texts, each in a namespace of its own: with the
    submission's definitions if source is given, else with builtins only."""
    source, texts, cpu_s, limits = spec
    begin(0)
    fresh_streams(True, limits)
    code = compiled(source) if source is not None else None
    for n, text in enumerate(texts):
        begin(n)
        fresh_streams(True, limits)
        cpu_allowance(cpu_s)
        try:
            namespace = {"__builtins__": builtins}
            if source is None:
                namespace["inf"], namespace["nan"] = float("inf"), float("nan")
            elif code is None:
                raise STATE.failed
            else:
                exec(code, namespace)
            kind, body = pack(eval(text, namespace), limits)
            flush()
            if len(body) > limits[0]:
                send(LIMIT, n, b"expected value of %d bytes, the limit is %d" % (len(body), limits[0]))
            else:
                send(kind, n, body)
        except BaseException as e:
            flush()
            report(n, e, limits)


def op_compare(spec):
    """Ask the submission's own == : compute the answer, say so, only then take
    what it is to be compared with."""
    source, entry, case, cpu_s, limits = spec
    begin(0)
    fresh_streams(True, limits)
    cpu_allowance(cpu_s)
    try:
        code = compiled(source)
        if code is None:
            raise STATE.failed
        got, namespace = call(code, entry, case)
        flush()
        send(READY, 0, b"")
        text, candidates = marshal.loads(read_message())
        truths, shown = bytearray(), b""
        for c in candidates:
            try:
                truths.append(1 if got == c else 0)
            except Exception as e:  # an == that can't compare with this one
                truths.append(2)
                shown = shown or explain(e, limits[1])
        if text is not None:
            expected = eval(text, namespace)
            shown = describe(expected, limits[1])
            truths.append(1 if got == expected else 0)
        flush()
        send(TRUTHS, 0, COUNT.pack(len(truths)) + truths + shown)
    except BaseException as e:
        flush()
        report(0, e, limits)


def op_run(spec):
    import _signal

    (command,) = spec
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them; a shell's commands expect them
        _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    os.execve("/bin/sh", ["/bin/sh", "-c", command], os.environ)


OPS = {"evaluate": op_evaluate, "expr": op_expr, "compare": op_compare, "run": op_run}


def read_exactly(n):
    data = os.read(CHANNEL, n)
    if len(data) == n:
        return data
    parts = [data]
    n -= len(data)
    while n:
        data = os.read(CHANNEL, min(n, 1 << 20))
        if not data:
            os._exit(0)
        parts.append(data)
        n -= len(data)
    return b"".join(parts)


def read_message():
    head = os.read(CHANNEL, 4)
    if not head:
        os._exit(0)
    if len(head) < 4:
        head += read_exactly(4 - len(head))
    return read_exactly(COUNT.unpack(head)[0])


JOB_CHANNEL = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, CHANNEL)  # in a child; made before the fork


def receive_job():
    """The first message, and the descriptor that came with it or -1."""
    data, rights, _, _ = JOB_CHANNEL.recvmsg(USUAL_MESSAGE, RIGHTS)
    if not data:
        os._exit(0)  # a spare child that is not needed any more
    if len(data) < 4:
        data += read_exactly(4 - len(data))
    missing = COUNT.unpack(data[:4])[0] - (len(data) - 4)
    data = data[4:]
    if missing:
        data += read_exactly(missing)
    return data, INT.unpack(rights[0][2])[0] if rights else -1


RESEED = []  # what the module random does in a new process


def reseed():
    for seed in RESEED:
        seed()


def may_use_random(spec, import_from):
    """Whether a job may see numbers of random's: seeding costs a tenth of a job.
    One that hides the name gets the same numbers each time, which is its own loss."""
    source = spec[0]
    return import_from is not None or source is not None and "rand" in source


def child():
    """A forked child, from fork to end. Never returns."""
    try:
        job, ruleset = receive_job()
        op, spec, confine, import_from, token = marshal.loads(job)
        try:
            enter(confine, ruleset)
        except BaseException as e:
            send(FAULT, 0, token.encode() + explain(e, 4096))
            os._exit(1)
        del job, token  # a submission can't make its own doing a fault of ours
        if import_from is not None:
            sys.path.insert(0, import_from)
        if may_use_random(spec, import_from):
            reseed()
        OPS[op](spec)
    except BaseException:
        os._exit(1)
    os._exit(0)
