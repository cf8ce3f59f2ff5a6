package redteam

import (
	"fmt"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// subclass is a cheat whose answer is of a subclass of a builtin that thinks
// itself equal to everything.
func subclass(base, value, more string) Attack {
	return cheat(base+" subclass", "answers with a subclass of "+base+" that equals everything", fmt.Sprintf(`
class Answer(%s):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    %s
def solve(n):
    return Answer(%s)
`, base, more, value), protocol.Failed).marked(markSubclass)
}

var forgedValues = []Attack{
	subclass("int", "7", "__lt__ = __gt__ = __le__ = __ge__ = __eq__\n    def __index__(self): return 1 << 62"),
	subclass("str", "'x'", "def __len__(self): return 1 << 40\n    def encode(self, *a): return b'passed'"),
	subclass("list", "[1]", "def __iter__(self): return iter([])\n    def __len__(self): return 8\n    def __getitem__(self, i): return self"),
	subclass("tuple", "(1,)", "def __iter__(self): raise StopIteration\n    def __len__(self): return 0"),
	subclass("dict", "a=1", "def items(self): return [(1, 2)] * 3\n    def keys(self): return 'abc'\n    def __iter__(self): return iter('xyz')"),
	subclass("float", "0.5", "def __float__(self): return float('inf')\n    def hex(self): return 'passed'"),
	subclass("set", "[1]", "def __iter__(self): return iter(())\n    def __contains__(self, x): return True"),
	subclass("bytes", "b'x'", "def __bytes__(self): return b'passed'\n    def __add__(self, o): return o"),
	subclass("complex", "1j", "def __complex__(self): return 0j\n    def __add__(self, o): return o"),

	cheat("inherited ==", "hides the == that equals everything in a base class of the subclass", `
class Base(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
class Answer(Base):
    pass
def solve(n):
    return [Answer(1)] * 8
`, protocol.Failed).marked(markSubclass),

	cheat("mixed-in ==", "takes the == that equals everything from a class beside the builtin", `
class Any:
    def __eq__(self, other): return True
    def __hash__(self): return 1
class Answer(Any, list):
    pass
def solve(n):
    return Answer([1, 2])
`, protocol.Failed).marked(markSubclass),

	cheat("== behind a metaclass", "hides the class's own dictionary, name and bases behind a metaclass", `
class Meta(type):
    __dict__ = property(lambda c: {})
    __module__ = property(lambda c: "numpy")
    __mro__ = property(lambda c: (c, int, object))
    __name__ = property(lambda c: "int")
    def __eq__(c, other): return True
    def __hash__(c): return hash(int)
class Answer(list, metaclass=Meta):
    def __eq__(self, other): return True
    def tolist(self): return self
def solve(n):
    return Answer([1])
`, protocol.Failed, protocol.Errored),

	cheat("equals everything", "answers with an object of its own that equals everything", `
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def solve(n):
    return Any()
`, protocol.Failed).marked(markEquals),

	cheat("mock.ANY", "answers with the standard library's own object that equals everything", `
from unittest.mock import ANY
def solve(n):
    return ANY
`, protocol.Failed).marked(markEquals),

	cheat("a class that lies", "says through __class__, __instancecheck__ and __subclasshook__ that it is a list", `
class Meta(type):
    def __instancecheck__(c, x): return True
    def __subclasscheck__(c, x): return True
class Liar(metaclass=Meta):
    __class__ = property(lambda self: list)
    def __eq__(self, other): return True
    def __len__(self): return 8
    def __iter__(self): return iter([self] * 8)
    def __getitem__(self, i): return self
    def __int__(self): return 0
    __index__ = __int__
def solve(n):
    return Liar()
`, protocol.Failed).marked(markEquals),

	cheat("a class as the answer", "answers with a class whose metaclass equals everything", `
class Meta(type):
    def __eq__(c, other): return True
    def __hash__(c): return 0
class Answer(metaclass=Meta):
    pass
def solve(n):
    return Answer
`, protocol.Failed).marked(markEquals),

	cheat("truth with a will", "has == answer with objects whose truth is always true", `
class Yes:
    def __bool__(self): return True
    def __len__(self): return 1
    def __eq__(self, other): return self
    def __iadd__(self, x): return self
    __radd__ = __add__ = __iadd__
    def __index__(self): return 1
class Answer:
    def __eq__(self, other): return Yes()
def solve(n):
    return Answer()
`, protocol.Failed).marked(markEquals),

	cheat("NotImplemented and back", "answers NotImplemented from ==, so that the other side is asked", `
class Other:
    def __eq__(self, other): return NotImplemented
    def __hash__(self): return 0
    def __getattribute__(self, name):
        if name == "__eq__": return lambda other: True
        return object.__getattribute__(self, name)
def solve(n):
    return Other()
`, protocol.Failed),

	cheat("pickle", "answers with an object whose pickling methods run code in whoever unpickles it", `
class Bomb:
    def __reduce__(self):
        return (exec, ("import os; os._exit(0)",))
    __reduce_ex__ = lambda self, protocol: self.__reduce__()
    def __getstate__(self): return {}
    def __eq__(self, other): return True
def solve(n):
    return [Bomb(), Bomb()]
`, protocol.Failed),

	cheat("an answer that ends the text", "answers with texts that would end a JSON string and begin a verdict", `
class Answer:
    def __repr__(self): return '","passed":true,"status":"passed"}],"passed":true,"x":["'
def solve(n):
    if n == 3: return repr(Answer())
    if n == 4: return Answer()
    raise ValueError('","error":null,"passed":true,"status":"passed"}],"passed":true,"x":["\x00\ud800')
`, protocol.Failed, protocol.Errored),

	cheat("builtins rewritten", "rewrites list.__eq__ and int.__eq__ in the interpreter's own tables", `
import gc
for t in (list, int, str, dict, tuple):
    table = gc.get_referents(t.__dict__)[0]
    table["__eq__"] = lambda a, b: True
try:
    import ctypes
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(list))
except ImportError:
    pass
def solve(n):
    return [1, 2]
`, protocol.Failed, protocol.Crashed),

	cheat("numbers that are nothing", "answers with nan, -0.0, huge and odd numbers and cycles", `
def solve(n):
    loop = []
    loop.append(loop)
    return [float("nan"), loop, {1: float("nan")}][n % 3]
`, protocol.Failed, protocol.Errored),

	cheat("a changing answer", "answers with containers that other threads change while they are reported", `
import threading
def solve(n):
    answer = [0] * 8
    def change():
        while True:
            answer[:] = [object()] * len(answer)
            answer[:] = [1, 2, 3]
    for _ in range(3):
        threading.Thread(target=change, daemon=True).start()
    return answer
`, protocol.Failed, protocol.Errored, protocol.Crashed),
}
