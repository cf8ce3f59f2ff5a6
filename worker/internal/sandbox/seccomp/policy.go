package seccomp

import (
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Policy is what the filter leaves open. The zero value leaves least.
type Policy struct {
	// UnixSockets allows socket(AF_UNIX, SOCK_STREAM). multiprocessing.Manager
	// and the forkserver start method of multiprocessing, which is the default
	// from Python 3.14 on, need it. A filter can't see what a socket is
	// connected to: set it only where something else keeps submissions from
	// the sockets of other programs (a mount namespace, Landlock from ABI 9 on,
	// a container in which there are none). To a submission that runs as a
	// user who is logged in, the session bus is a way out of any sandbox.
	UnixSockets bool
	// Tell has a [Listener] told of calls that only a program which wants out
	// makes, before they are refused. It takes InstallListener.
	Tell bool
}

// architecture is one that the filter can be made for.
type architecture struct {
	// audit is its AUDIT_ARCH_ number, under which the kernel tells filters
	// the calling convention of a call.
	audit uint32
	calls []string
}

// architectures has a key for each runtime.GOARCH.
var architectures = map[string]architecture{
	"amd64": {unix.AUDIT_ARCH_X86_64, callsOfAMD64[:]},
	"arm64": {unix.AUDIT_ARCH_AARCH64, callsOfARM64[:]},
}

func architectureOf(arch string) (architecture, error) {
	a, ok := architectures[arch]
	if !ok {
		return architecture{}, fmt.Errorf("%w: no table of system calls for %s: have amd64 and arm64", ErrUnavailable, arch)
	}
	return a, nil
}

// weightOften is how much more a call of often weighs than one that is not.
const weightOften = 64

// Filter returns the program for an architecture, named as by runtime.GOARCH:
// amd64 or arm64. Others are an [ErrUnavailable].
func (p Policy) Filter(arch string) ([]unix.SockFilter, error) {
	machine, err := architectureOf(arch)
	if err != nil {
		return nil, err
	}
	a := assembler{returns: map[uint32]label{}}
	wrongArch := a.leave(killed)
	unknown := a.leave(enosys)
	leads := map[string]label{}
	for _, c := range p.classes() {
		l := a.verdict(c.verdict)
		for name := range strings.FieldsSeq(c.calls) {
			leads[name] = l
		}
	}
	weights := map[string]int{}
	for name := range strings.FieldsSeq(often) {
		weights[name] = weightOften
	}

	// Numbers past the end, those with the x32 bit among them, are unknown, as
	// are those that have no name.
	spans := []span{}
	for number, name := range append(machine.calls, "") {
		l, weight := unknown, 1
		if name != "" {
			l, weight = leads[name], 1+weights[name]
		}
		if n := len(spans); n > 0 && spans[n-1].leads == l {
			spans[n-1].weight += weight
			continue
		}
		spans = append(spans, span{uint32(number), l, weight})
	}
	start := a.before(a.search(spans), opLoad, dataCall)
	start = a.branch(opEqual, machine.audit, start, wrongArch)
	a.before(start, opLoad, dataArch)
	return a.program(), nil
}

// Describe says in one line what the filter does on this machine.
func (p Policy) Describe() string { return p.describe(runtime.GOARCH) }

func (p Policy) describe(arch string) string {
	machine, err := architectureOf(arch)
	if err != nil {
		return err.Error()
	}
	known := map[string]bool{}
	for _, name := range machine.calls {
		known[name] = true
	}
	var open, checked, refused int
	for _, c := range p.classes() {
		for name := range strings.FieldsSeq(c.calls) {
			switch {
			case !known[name]:
			case c.verdict.otherwise != allowed:
				refused++
			case len(c.verdict.rules) > 0:
				checked++
			default:
				open++
			}
		}
	}
	sockets := "no sockets but connected pairs"
	if p.UnixSockets {
		sockets = "no sockets but unix streams and connected pairs"
	}
	return fmt.Sprintf("seccomp filter: %d system calls allowed, %d by their arguments, %d refused, newer ones absent; %s", open, checked, refused, sockets)
}
