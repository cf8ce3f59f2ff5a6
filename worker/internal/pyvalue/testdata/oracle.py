"""CPython's side of the tests: makes values and texts at random and says what
CPython makes of them. Usage: oracle.py MODE SEED COUNT, records on stdout.

A record is a sequence of fields, each a little-endian uint32 length and that
many bytes. None is the length 0xffffffff.
"""
import ast
import json
import marshal
import random
import re
import struct
import sys
import warnings

warnings.simplefilter("ignore")
MODE, SEED, COUNT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
R = random.Random(SEED)
rnd, pick = R.random, R.choice
U32 = struct.Struct("<I").pack
NONE = U32(0xFFFFFFFF)
NAN, INF = float("nan"), float("inf")


def below(n):
    return int(rnd() * n)


def field(b):
    return NONE if b is None else U32(len(b)) + b


def utf8(s):
    return s.encode("utf-8", "surrogatepass")


# --- values

INTS = [0, 1, -1, 2, 3, 7, 10, 255, 2**15 - 1, 2**15, 2**30, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**53, 2**53 + 1,
        -(2**53) - 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, -(2**63), -(2**63) - 1, 2**64, 10**18, 10**19, 2**100, 2**100 + 1,
        10**30, -(10**40), 2**1023, 2**1024 - 2**970, 2**1024, 3**700, 10**400]
FLOATS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 0.1, 0.30000000000000004, 1e15, 1e16, 1e17, 123456789.125, 1e-4, 1e-5, 5e-324,
          1.7976931348623157e308, 9007199254740993.0, 2.0**63, -(2.0**63), 2.0**64, 1e22, 1e23, 2.0**100, INF, -INF, NAN,
          1e100, 3.0, 7.0, 255.0, 2.0**1023]
CHARS = "abcxyzABC019 _-=,.:;#'\"\\\n\r\t\0\x07\x1b\x7f\x85\xa0\xadéßñ\u0378\u200b\u2028\u20ac日本中\ud800\udbff\udc00\udfff\U0001f389\U0001d54f\U0010ffff"
PLAIN = "abcdefgh XYZ012"


def rand_int():
    x = rnd()
    if x < 0.5:
        return below(20) - 5
    if x < 0.7:
        return pick(INTS)
    if x < 0.8:
        return pick(INTS) + below(5) - 2
    return R.getrandbits(1 + below(200)) * pick((1, -1))


def rand_float():
    x = rnd()
    if x < 0.3:
        return float(below(12) - 3)
    if x < 0.6:
        return pick(FLOATS)
    if x < 0.8:
        return round(rnd() * 100, below(5))
    return struct.unpack("<d", struct.pack("<Q", R.getrandbits(64)))[0]


def rand_complex():
    return complex(rand_float(), pick((0.0, -0.0, 1.0, rand_float())))


LIKE_ARGUMENTS = ["a=1", "x, n=3", "a=1, b", "b=", "=", ", a=2", "s='x'", "#", "a=[", "k = 5, "]


def rand_str():
    if rnd() < 0.04:
        return pick(LIKE_ARGUMENTS)
    chars = PLAIN if rnd() < 0.6 else CHARS
    return "".join([pick(chars) for _ in range(below(8))])


def rand_bytes():
    return bytes([below(256) if rnd() < 0.5 else 97 + below(4) for _ in range(below(6))])


def scalar():
    x = rnd()
    if x < 0.35:
        return rand_int()
    if x < 0.5:
        return rand_float()
    if x < 0.7:
        return rand_str()
    if x < 0.8:
        return rnd() < 0.5
    if x < 0.88:
        return None
    if x < 0.93:
        return rand_bytes()
    if x < 0.97:
        return rand_complex()
    return ...


def length():
    x = rnd()
    return below(4) if x < 0.7 else below(9) if x < 0.95 else 8 + below(12)


def hashable(depth):
    x = rnd()
    if depth <= 0 or x < 0.75:
        return scalar()
    if x < 0.9:
        return tuple([hashable(depth - 1) for _ in range(below(4))])
    return frozenset([hashable(depth - 1) for _ in range(length())])


def value(depth):
    x = rnd()
    if depth <= 0 or x < 0.3:
        return scalar()
    if x < 0.5:
        return [value(depth - 1) for _ in range(length())]
    if x < 0.65:
        return tuple([value(depth - 1) for _ in range(length())])
    if x < 0.8:
        return {hashable(depth - 1): value(depth - 1) for _ in range(length())}
    if x < 0.92:
        return {hashable(depth - 1) for _ in range(length())}
    return frozenset([hashable(depth - 1) for _ in range(length())])


def respell_number(v):
    """A number that equals v, or very nearly does."""
    x = rnd()
    try:
        if x < 0.2:
            return float(v.real if type(v) is complex else v)
        if x < 0.35:
            return complex(v)
        if x < 0.5:
            return int(v.real)
        if x < 0.6:
            return bool(v)
        if x < 0.7:
            return -v
        if x < 0.85:
            return v + pick((1, -1))
        f = float(v.real) * (1 + pick((1, -1)) * 2.0**-52)
        return int(f) if rnd() < 0.3 else f
    except (OverflowError, ValueError):
        return v


def variant(v, hash_only=False):
    """v with something changed, somewhere, most of the time."""
    t = type(v)
    if t in (int, float, complex, bool):
        return respell_number(v)
    if t is str:
        x = rnd()
        if x < 0.3:
            return v + pick(CHARS)
        if x < 0.5:
            return v[:-1]
        if x < 0.7:
            return v.encode("utf-8", "surrogatepass")
        return v.swapcase()
    if t is bytes:
        return pick((v + b"a", v[:-1], v.decode("latin-1")))
    if v is None or v is ...:
        return pick((None, False, 0, ..., "", "None"))
    items = list(v.items()) if t is dict else list(v)
    x = rnd()
    if not items:
        return pick((t(), (), frozenset()) if hash_only else ([], (), {}, set(), frozenset(), None, 0, "", b""))
    if x < 0.55:
        i = below(len(items))
        if t is dict:
            k, w = items[i]
            items[i] = (variant(k, True), w) if rnd() < 0.4 else (k, variant(w))
        else:
            items[i] = variant(items[i], hash_only or t in (set, frozenset))
    elif x < 0.65:
        items.pop(below(len(items)))
    elif x < 0.85:
        R.shuffle(items)
    elif not hash_only:
        if t is list:
            return tuple(items)
        if t is tuple:
            return items
        if t is set:
            return frozenset(items)
        if t is frozenset:
            return set(items)
        return items if rnd() < 0.3 else dict(reversed(items))
    return t(items)


# --- texts

def space(inner):
    x = rnd()
    if x < 0.7:
        return pick(("", " "))
    if not inner:
        return pick(("", " ", "\t", "  ", "\f"))
    return pick(("", " ", "\n", "\r\n", "\t", "\r", " # a comment, x=1\n", "  \n "))


class NoLiteral(Exception):
    pass


def under(digits):
    if len(digits) > 1 and rnd() < 0.1:
        i = 1 + below(len(digits) - 1)
        return digits[:i] + "_" + digits[i:]
    return digits


def spell_float(f):
    if f != f:
        raise NoLiteral
    if f in (INF, -INF):
        return "-1e400" if f < 0 else pick(("1e400", "1e309", "2e308", "1" + "0" * 309 + ".0"))
    s = repr(f)
    if rnd() < 0.2:
        s = pick((s.upper(), "%.17e" % f, "%.17E" % f))
    if s.endswith(".0") and rnd() < 0.2:
        s = s[:-1]
    return s


def escape(c):
    n = ord(c)
    x = rnd()
    if n < 256 and x < 0.3:
        return "\\x%02x" % n
    if n < 256 and x < 0.5:
        return "\\%03o" % n
    if n < 0x10000 and x < 0.8:
        return "\\u%04x" % n
    return "\\U%08X" % n


def spell_str(s, inner):
    x = rnd()
    if x < 0.6:
        return repr(s)
    if x < 0.7:
        return ascii(s)
    if x < 0.8 and len(s) > 1:
        i = 1 + below(len(s) - 1)
        return repr(s[:i]) + space(inner) + repr(s[i:])
    q = pick(("'", '"', "'''", '"""'))
    out = []
    for c in s:
        if "\ud800" <= c <= "\udfff" or c in "'\"\\\0\r" or c == "\n" and len(q) == 1 or rnd() < 0.1:
            out.append(escape(c))
        else:
            out.append(c)
        if rnd() < 0.05:
            out.append(pick(("\\\n", "\\\r\n")))
    return pick(("", "", "u", "U")) + q + "".join(out) + q


def spell(v, inner=False):
    t = type(v)
    if t is int:
        if v < 0:
            return "-" + pick(("", "", "", " ")) + spell(-v)
        x = rnd()
        if x < 0.9:
            return under(str(v))
        f = pick("xXob")
        d = format(v, f)
        return "0" + f.lower() + under(d)
    if t is float:
        return spell_float(v)
    if t is str:
        return spell_str(v, inner)
    if t is bytes:
        return pick(("", "")) + repr(v)
    if t is complex:
        re_, im = v.real, v.imag
        if re_ != re_ or im != im:
            raise NoLiteral
        if re_ == 0 and str(re_) == "0.0" and str(im)[0] != "-":
            return spell_float(im) + pick("jJ")
        text = (spell_float(re_) + space(True) + ("-" if im < 0 else "+") + space(True) + spell_float(abs(im)) + "j")
        return "(" + text + ")"
    if t in (list, tuple, dict, set):
        if t is set and not v:
            return "set" + space(inner) + "(" + space(True) + ")"
        if t is dict:
            parts = [spell(k, True) + space(True) + ":" + space(True) + spell(x, True) for k, x in v.items()]
            a, b = "{}"
        else:
            parts = [spell(x, True) for x in v]
            a, b = {list: "[]", tuple: "()", set: "{}"}[t]
        body = space(True)
        for i, part in enumerate(parts):
            body += (space(True) + "," + space(True) if i else "") + part
        if len(parts) == 1 and t is tuple or parts and rnd() < 0.1:
            body += ","
        return a + body + space(True) + b
    if t is frozenset:
        raise NoLiteral
    return "..." if v is ... else repr(v)


def text_of(v):
    try:
        if type(v) is tuple and v and rnd() < 0.3:
            s = (space(False) + "," + space(False)).join([spell(x) for x in v])
            return s + space(False) + "," if len(v) == 1 or rnd() < 0.1 else s
        s = spell(v)
    except NoLiteral:
        return None
    x = rnd()
    if x < 0.05:
        s = "(" + space(True) + s + space(True) + ")"
    elif x < 0.1:
        s = pick((" ", "\t", " \t  ", "\n", "# x\n", "  # x=1\r\n\n")) + s
    elif x < 0.15:
        s += pick((" ", "\t", "\n", " # x", " # x\n\n", "\r\n", "\n # y"))
    return s


def ordered_repr(v):
    """repr(v). Raises NoLiteral if there is a set whose order is Python's to choose."""
    t = type(v)
    if t in (set, frozenset) and len(v) > 1:
        raise NoLiteral
    if t in (list, tuple, set, frozenset):
        for x in v:
            ordered_repr(x)
    if t is dict:
        for k, x in v.items():
            ordered_repr(k)
            ordered_repr(x)
    return repr(v).encode()


def repr_of(v):
    try:
        return ordered_repr(v)
    except NoLiteral:
        return None


def literal(text):
    """What literal_eval makes of a text, as marshal data; None if nothing."""
    try:
        return marshal.dumps(ast.literal_eval(text), 2)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
        return None


# --- JSON

def ordered(members):
    nums = sorted(x for x in members if type(x) in (int, float, bool))
    strs = sorted(x for x in members if type(x) is str)
    if len(nums) + len(strs) < len(members) or NAN in nums or any(x != x for x in nums):
        raise NoLiteral
    return nums + strs


def key_text(k):
    if type(k) is str:
        return k
    if k is None or type(k) is bool:
        return json.dumps(k)
    return ordered_repr(k).decode()


def project(v):
    t = type(v)
    if t is bytes:
        try:
            return v.decode()
        except UnicodeDecodeError:
            return repr(v)
    if t is float and (v != v or v in (INF, -INF)):
        return repr(v)
    if t is complex or v is ...:
        return repr(v)
    if t in (list, tuple):
        return [project(x) for x in v]
    if t in (set, frozenset):
        return [project(x) for x in ordered(v)]
    if t is dict:
        return {key_text(k): project(x) for k, x in v.items()}
    return v


def json_of(v):
    try:
        s = json.dumps(project(v), ensure_ascii=False, separators=(",", ":"))
    except NoLiteral:
        return None
    return re.sub("[\ud800-\udfff]", lambda m: "\\u%04x" % ord(m[0]), s).encode()


# --- modes

FAMILY = 20


def families():
    """COUNT records: of each of FAMILY values alike, its text, what literal_eval
    makes of the text, its marshal data, repr and JSON, where there are such; last,
    whether each equals each: every value of the other side is an object of its own."""
    for _ in range(COUNT):
        base = value(pick((0, 0, 1, 1, 2, 2, 3)))
        values = [base]
        while len(values) < FAMILY:
            values.append(value(1) if rnd() < 0.05 else variant(pick(values)))
        fields = []
        others = []
        for v in values:
            data = marshal.dumps(v, 2)
            others.append(marshal.loads(data))
            text = text_of(v)
            lit = None
            if text is not None:
                lit = literal(text)
                if lit is None:
                    raise AssertionError("not a literal: %r" % text)
                text = utf8(text)
            fields += field(text), field(lit), field(data), field(repr_of(v)), field(json_of(v))
        # Through marshal on both sides, so that a nan isn't the same object twice.
        mine = [marshal.loads(marshal.dumps(v, 2)) for v in values]
        fields.append(field(bytes([a == b for a in mine for b in others])))
        yield b"".join(fields)


TOKENS = ["1", "0", "00", "007", "1_0", "0x1F", "0b1", "0o7", "1.", ".5", "1.5", "1e5", "1j", "2.5j", "1e400", "-", "+", "-", "+", "~",
          "(", ")", "[", "]", "{", "}", "(", ")", "[", "]", "{", "}", ",", ",", ",", ":", ":", "=", ".", "...", "*", "**", ";", "\\\n",
          "'a'", '"b"', "b'c'", "r'\\d'", "rb'x'", "f'a'", "'''a\nb'''", "'\\x41'", "'\\u12'", "'\\N{DIGIT ONE}'", "'", '"', "u'x'", "''",
          "None", "True", "False", "set", "set()", "not", "if", "else", "for", "lambda", "x", "set(", "()", "[]", "{}", "{1: 2}", "{1, 2}",
          " ", "\n", "\t", "\r\n", "#c\n", "# c", "\f", "é", "\ud800", "\0", "\x0b", "\xa0", "\ufeff"]
LETTERS = "01279_.eEjJxXbBoOrRuUfFnNstTa'\"\\ \n\t\r\f,,:()[]{}+-=#@\0é\u00a0\u2028日\ud800"


def scramble(s):
    for _ in range(1 + below(3)):
        i = below(len(s) + 1)
        x = rnd()
        if x < 0.35:
            s = s[:i] + pick(LETTERS) + s[i:]
        elif x < 0.6:
            s = s[:i] + s[i + 1 + below(2):]
        elif x < 0.8:
            s = s[:i] + pick(LETTERS) + s[i + 1:]
        elif x < 0.9:
            s = s[:i] + pick(TOKENS) + s[i:]
        else:
            j = below(len(s) + 1)
            s = s[:i] + s[j: j + 3] + s[i:]
    return s


def texts():
    """COUNT records of a text that is hardly a literal, and what
    literal_eval makes of it."""
    n = 0
    while n < COUNT:
        if rnd() < 0.5:
            text = "".join([pick(TOKENS) + pick(("", "", " ")) for _ in range(1 + below(7))])
        else:
            text = text_of(value(pick((0, 0, 1, 2))))
            if text is None or len(text) > 300:
                continue
            text = scramble(text)
        n += 1
        yield field(utf8(text)) + field(literal(text))


NAMES = ["a", "b", "c", "n", "nums", "x1", "_y", "k_2", "match", "for", "None", "Ab", "é", "1a", "s"]


def fallback(text):
    """The documented service's way to read an input text."""
    params = {}
    for m in re.finditer(r"(\w+)\s*=\s*(.+?)(?=,\s*\w+\s*=|$)", text):
        try:
            params[m.group(1)] = ast.literal_eval(m.group(2).strip())
        except Exception:
            continue
    if params:
        return params
    try:
        return (ast.literal_eval(text.strip()),)
    except Exception:
        return ()


def strict(text):
    """The text as Python reads the arguments of a call, or as one literal."""
    try:
        text.encode()
        if "\0" in text or "#" in text:
            raise ValueError
        call = ast.parse("f(\n" + text + "\n)", mode="eval").body
        if (type(call) is ast.Call and type(call.func) is ast.Name and not call.args and call.keywords
                and all(k.arg for k in call.keywords) and re.search(r",\s*\Z", text) is None):
            return {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, SyntaxError, TypeError, MemoryError, OverflowError):
        pass
    try:
        return (ast.literal_eval(text.strip()),)
    except Exception:
        return ()


def arguments():
    """COUNT records of an input text, whether it was made by the rules, and
    what the fallback and the strict reading make of it."""
    n = 0
    while n < COUNT:
        x = rnd()
        good = b"\1"
        if x < 0.75:
            parts, names, whole = [], set(), ""
            for _ in range(1 + below(4)):
                name = pick(NAMES[:9]) if rnd() < 0.97 else pick(NAMES)
                if name in ("for", "None", "é", "1a"):
                    good = b"\0"
                v = value(pick((0, 0, 0, 1, 2)))
                text = text_of(v) if rnd() < 0.05 else None
                if text is None:
                    try:
                        text = spell(v) if rnd() < 0.3 else plain(v)
                    except NoLiteral:
                        text = "1"
                else:
                    good = b"\0"  # a comment or a comma
                pad = (lambda: pick((" ", "", "", "\t", "\n"))) if rnd() < 0.1 else (lambda: pick(("", " ")))
                parts.append(pad() + name + pad() + "=" + pad() + text + pad())
            text = ",".join(parts)
        else:
            text = text_of(value(pick((0, 1, 2))))
            if text is None:
                continue
            good = b"\0" if "#" in text else b"\1"
        if rnd() < 0.3:
            text, good = scramble(text), b"\0"
        if len(text) > 400:
            continue
        n += 1
        yield field(utf8(text)) + field(good) + field(marshal.dumps(fallback(text), 2)) + field(marshal.dumps(strict(text), 2))


def plain(v):
    """v as people write it."""
    spell_frozen(v)
    s = repr(v)
    return s.replace("Ellipsis", "...").replace("inf", "1e999") if "'" not in s and '"' not in s else s


def spell_frozen(v):
    t = type(v)
    if t is frozenset or t in (float, complex) and (v != v or "inf" in repr(v)):
        raise NoLiteral
    if t in (list, tuple, set):
        for x in v:
            spell_frozen(x)
    if t is dict:
        for k, x in v.items():
            spell_frozen(k)
            spell_frozen(x)
    if v is ... or t is complex and (v.real or str(v.real) == "-0.0"):
        raise NoLiteral


def check():
    """Reads COUNT pairs of marshal data and a text from stdin; yields whether
    the data gives what literal_eval makes of the text, in value and type."""
    sys.set_int_max_str_digits(0)  # for reprs
    read = sys.stdin.buffer.read
    for _ in range(COUNT):
        data = read(struct.unpack("<I", read(4))[0])
        text = read(struct.unpack("<I", read(4))[0]).decode()
        a, b = marshal.loads(data), ast.literal_eval(text)
        # Sets are built in the same order on both sides, so reprs agree too.
        same = type(a) is type(b) and a == b and repr(a) == repr(b)
        yield field(b"\1" if same else b"\0")


def main():
    out, size = [], 0
    write = sys.stdout.buffer.write
    for record in {"families": families, "texts": texts, "arguments": arguments, "check": check}[MODE]():
        out.append(record)
        size += len(record)
        if size > 1 << 16:
            write(b"".join(out))
            out, size = [], 0
    write(b"".join(out))
    sys.stdout.buffer.flush()


main()
