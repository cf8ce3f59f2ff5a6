package redteam

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ending is a cheat that ends its process or its case in some way, both while
// it is imported and when it is called.
func ending(name, does, statement string, ends ...protocol.CaseStatus) Attack {
	limits := map[string]any{"wall_s": 4}
	if slices.Contains(ends, protocol.TimedOut) {
		limits["wall_s"] = 1
	}
	return Attack{Name: name, Family: Forge, Does: does, Holds: holdsNoPass + "; a right submission beside it passes", Run: func(a *Attempt) {
		indented := strings.ReplaceAll(statement, "\n", "\n    ")
		for _, code := range []string{
			"import os, sys, signal, threading\n" + statement + "\ndef solve(n): return 1\n",
			"import os, sys, signal, threading\ndef solve(n):\n    " + indented + "\n    return 1\n",
		} {
			a.cheat(Submission{Code: code, Entry: "solve", Limits: limits, Cases: []Case{{"n=3", secretList()}, {"n=4", secretList()}}}, ends...)
		}
		// The first of two cases may take the second with it only if it isn't asked alone.
		e := a.Evaluate(Submission{Code: "import os, sys, signal, threading\ndef solve(n):\n    if n > 0: return n\n    " + indented, Entry: "solve",
			Limits: limits, Cases: []Case{{"n=1", "1"}, {"n=0", secretList()}, {"n=2", "2"}}})
		for i, want := range []bool{true, false, true} {
			if i < len(e.Cases) && e.Cases[i].Passed != want {
				a.Through("of three cases whose second ends so, number %d: %s", i, e.Cases[i])
			}
		}
	}}
}

var exits = []Attack{
	ending("os._exit", "ends the process with status 0 before it answers", "os._exit(0)", protocol.Crashed).marked(markExit),
	ending("sys.exit", "raises SystemExit with status 0", "sys.exit(0)", protocol.Errored, protocol.Crashed).marked(markExit),
	ending("exit and quit", "calls what site adds for interactive use", "(exit if len(sys.path) % 2 else quit)()", protocol.Errored, protocol.Crashed).marked(markExit),
	ending("KeyboardInterrupt", "raises what Ctrl-C raises", "raise KeyboardInterrupt", protocol.Errored, protocol.Crashed),
	ending("an exception outside Exception", "raises a BaseException of its own whose text raises too", `class Out(BaseException):
    def __str__(self): raise Out()
    __repr__ = __str__
raise Out()`, protocol.Errored, protocol.Crashed),
	ending("SIGKILL to itself", "kills its own process", "os.kill(os.getpid(), signal.SIGKILL)", protocol.Crashed),
	ending("SIGSTOP to itself", "stops its own process, which then neither runs nor ends", "os.kill(os.getpid(), signal.SIGSTOP)", protocol.TimedOut),
	ending("SIGSEGV to itself", "crashes the interpreter", "os.kill(os.getpid(), signal.SIGSEGV)", protocol.Crashed),
	ending("abort", "aborts the interpreter", "os.abort()", protocol.Crashed),
	ending("exec of another program", "becomes a program that ends with status 0", `os.execv("/bin/true", ["true"])`, protocol.Crashed).marked(markExit),
	ending("exec of a program that answers", "becomes a program that prints a verdict", `os.execv("/bin/echo", ["echo", '{"passed": true, "status": "passed"}'])`, protocol.Crashed).marked(markExit),
	ending("exit in a thread", "has a thread end the process", "threading.Thread(target=os._exit, args=(0,)).start()\nthreading.Event().wait(0.3)", protocol.Crashed, protocol.Failed).marked(markExit),
	ending("exit in a signal handler", "ends the process by an alarm's handler", "signal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nthreading.Event().wait(0.3)", protocol.Crashed, protocol.Failed, protocol.TimedOut).marked(markExit),

	cheat("exit while the answer is reported", "exits in __del__, __repr__ and the walk over its answer", `
import os
class Answer:
    def __init__(self, n): self.n = n
    def __del__(self): os._exit(0)
    def __repr__(self): os._exit(0)
def solve(n):
    return [Answer(n)] if n != 4 else (Answer(n), 1)[1]
`).marked(markExit),

	cheat("two processes answer", "forks, and both processes go on and answer", `
import os
def solve(n):
    os.fork()
    return [n]
`),

	cheat("the child answers", "forks, ends the parent and leaves the answer to the child", `
import os, time
def solve(n):
    if os.fork():
        os._exit(0)
    time.sleep(0.05)
    return [n]
`, protocol.Crashed).marked(markExit),

	cheat("MemoryError while it reports", "leaves no memory and no stack for the report of its answer", `
import sys, resource
def solve(n):
    if n == 3:
        sys.setrecursionlimit(1 << 30)
        x = None
        for _ in range(200000): x = [x]
        return x
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if n == 4:
        return list(range(3)) * 1000000
    raise MemoryError
`),

	cheat("an exception that bites", "raises exceptions whose text, traceback and class fight back", `
import os
class Name(type):
    __name__ = property(lambda c: 1 / 0)
class Bite(Exception, metaclass=Name):
    def __str__(self):
        raise SystemExit(0)
    __traceback__ = property(lambda self: 1 / 0)
class Long(Exception):
    def __str__(self): return "x" * (100 << 20)
class Not(Exception):
    def __str__(self): return 7
def solve(n):
    raise [Bite, Long, Not][n % 3]()
`),

	{Name: "an answer to nothing", Family: Forge, Does: "claims with a right exit status what it never computed, in every place that has words",
		Holds: holdsNoPass, Run: func(a *Attempt) {
			for _, entry := range []string{"(lambda n: print('passed') or exit(0))", "print", "type('X', (), {'__call__': lambda s, n: NotImplemented})()", "__import__('os')._exit"} {
				a.cheat(Submission{Code: "passed = True", Entry: entry, Limits: map[string]any{"wall_s": 1}, Cases: []Case{{"n=0", secretList()}, {"0", secretList()}}})
			}
			a.cheat(Submission{Code: "", Entry: "", Cases: []Case{{"", secretList()}}})
			for i := range 3 {
				a.cheat(Submission{Code: strings.Repeat("(", 100*i) + "exit(0)" + fmt.Sprint(i), Entry: "solve", Cases: []Case{{"n=1", secretList()}}})
			}
		}},
}
