package redteam

import "github.com/gradefleet/gradefleet/shared/protocol"

// frames lets a submission speak on the channel that carries its results.
const frames = `
import marshal as _marshal, struct as _struct, os as _os
def frame(kind, case, body=b"", out=0, err=0, length=None):
    head = _struct.pack("<BIIIIII", kind[0], case, 1, 1, 1, out, err)
    n = len(head) + len(body) if length is None else length
    return _struct.pack("<I", n & 0xffffffff) + head + body
def value(v): return b"\x00" + _marshal.dumps(v, 2)
def put(data, fd=3):
    while data:
        data = data[_os.write(fd, data):]
`

// forgery is a cheat on the channel. It shows as such: the submission is marked.
func forgery(name, does, code string, ends ...protocol.CaseStatus) Attack {
	return cheat(name, does, frames+code, ends...).marked(markChannel)
}

var channels = []Attack{
	forgery("frames for later cases", "answers the cases after it in the same process as well", `
def solve(n):
    for case in range(6): put(frame(b"V", case, value([1, 2])))
    return [1, 2]
`),
	forgery("frames twice", "writes each answer twice", `
import os
def solve(n):
    put(frame(b"V", 0, value(1)) * 2)
    return 1
`),
	forgery("frame too early", "answers a later case before its own", `
def solve(n):
    put(frame(b"V", 2, value(1)))
    return 1
`),
	forgery("frame of no case", "answers cases with numbers that no case has", `
def solve(n):
    put(frame(b"V", 0xffffffff, value(1)) + frame(b"V", 1 << 31, value(1)))
    return 1
`),
	forgery("frame too long", "announces a frame of nearly all there can be, and writes it", `
def solve(n):
    put(frame(b"V", 0, b"\x00" * (24 << 20)))
    return 1
`),
	forgery("frame of negative length", "announces a frame of a length that is negative as a signed number", `
def solve(n):
    put(frame(b"V", 0, value(1), length=-1))
    return 1
`),
	forgery("frame shorter than its head", "announces a frame that ends within its own head", `
def solve(n):
    put(frame(b"V", 0, value(1), length=3))
    return 1
`),
	cheat("frame cut short", "begins a frame and exits", frames+`
import os
def solve(n):
    put(frame(b"V", 0, value([1, 2, 3]))[:-4])
    os._exit(0)
`, protocol.Crashed),
	forgery("frame of no kind", "writes a frame of a kind that there is none of", `
def solve(n):
    put(frame(b"\xff", 0, b"passed"))
    return 1
`),
	forgery("frame that blames the platform", "reports its own failure as one of the platform", `
import os
def solve(n):
    put(frame(b"F", 0, b"OSError: enter sandbox: no such luck"))
    os._exit(0)
`),
	forgery("blame before the first line", "reports a failure of the platform as soon as it is imported", `
import os
put(frame(b"F", 0, b"OSError: enter sandbox: setresuid"))
os._exit(1)
`),
	forgery("frames of a comparison", "writes the frames of a comparison that nobody asked for", `
def solve(n):
    put(frame(b"R", 0) + frame(b"T", 0, b"\x01\x00\x00\x00\x01"))
    return 1
`),
	forgery("frame with output past its end", "claims more captured output than the frame holds", `
def solve(n):
    put(frame(b"V", 0, value(1), out=1 << 20, err=0xffffffff))
    return 1
`),
	forgery("answers that don't end", "writes values nested deeper and longer than they claim to be", `
def solve(n):
    body = [b"\x00" + b"[\x01\x00\x00\x00" * 200000 + b"N", b"\x00[\xff\xff\xff\x7f", b"\x00" + b"l\xff\xff\xff\x7f" + b"\x01" * 64,
            b"\x00>\xff\xff\xff\xff", b"\x00r\x00\x00\x00\x00", b"\x00s\xff\xff\xff\x7fabc", b"", b"\x00", b"\x00c\x00\x00\x00\x00"][n % 9]
    put(frame(b"V", n - 3, body))
    return 1
`, protocol.Crashed, protocol.OutputLimit, protocol.Errored, protocol.Failed),
	cheat("frames from a child", "has a forked child write answers while its parent does the same", frames+`
import os
def solve(n):
    if os.fork() == 0:
        for case in range(6): put(frame(b"V", case, value([1, 2])))
        os._exit(0)
    os.wait()
    return [1, 2]
`).marked(markChannel),
	cheat("frames from a thread", "has a thread write pieces of frames without pause", frames+`
import threading
def solve(n):
    def babble():
        while True: put(frame(b"V", 0, value([1, 2]))[:17])
    for _ in range(2): threading.Thread(target=babble, daemon=True).start()
    threading.Event().wait(0.05)
    return 1
`).marked(markChannel),
	cheat("frames after the answer", "has a child answer anew when its parent is done", frames+`
import os, time
def solve(n):
    if os.fork() == 0:
        parent = os.getppid()
        while os.getppid() == parent: time.sleep(0.001)
        for case in range(6): put(frame(b"V", case, value([1, 2])))
        os._exit(0)
    return [0]
`, protocol.Failed),
	cheat("frames at exit", "registers to answer when the interpreter exits, and exits", frames+`
import atexit, sys
def solve(n):
    for case in range(6): atexit.register(put, frame(b"V", case, value([1, 2])))
    sys.exit(0)
`, protocol.Errored, protocol.Crashed).marked(markExit),
	cheat("channel closed", "closes its channel, or puts another file in its place, and returns", frames+`
import os
def solve(n):
    if n == 3: os.close(3)
    elif n == 4: os.dup2(os.open("/dev/null", os.O_RDWR), 3)
    else:
        a, b = os.pipe()
        os.dup2(b, 3)
    return [1, 2]
`, protocol.Crashed, protocol.Errored).marked(markExit),
	cheat("channel stuffed", "fills its channel from many descriptors until nothing more fits", frames+`
import os, socket
def solve(n):
    s = socket.socket(fileno=os.dup(3))
    s.shutdown(socket.SHUT_RD)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    s.setblocking(False)
    try:
        while True: s.send(bytes(65536))
    except OSError: pass
    return 1
`).marked(markChannel),
	{Name: "descriptors sent to the worker", Family: Forge, Does: "sends descriptors, credentials and out-of-band bytes over its channel",
		Holds: "the worker takes none of them: it has as many descriptors as before", Marks: []string{markChannel}, Run: func(a *Attempt) {
			before := a.fleet.descriptors()
			a.cheat(Submission{Code: frames + `
import array, os, socket
def solve(n):
    s = socket.socket(fileno=os.dup(3))
    fds = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(50)])
    for _ in range(20):
        try: s.sendmsg([frame(b"V", 0, value(1))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError: pass
    return 1
`, Entry: "solve", Cases: []Case{{"n=3", secretList()}}})
			var after int
			a.fleet.settle(func() bool { after = a.fleet.descriptors(); return after <= before+2 })
			if after > before+8 { // its connections come and go
				a.Through("the worker had %d descriptors, and has %d", before, after)
			}
		}},
}
