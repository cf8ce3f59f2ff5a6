package spawner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// errMessage is for a message that isn't a run job: worker and spawner are of
// the same binary, so it is a bug.
var errMessage = errors.New("malformed job")

// job is a message, decoded. Its slices are views into the message.
type job struct {
	command        []byte
	uid, gid       int64 // -1 keeps the spawner's
	work           []byte
	limits         [maxLimits]resourceLimit
	nlimits        int
	env            [maxVariables][2][]byte
	nenv           int
	link, linkedTo []byte // nil for none
	token          []byte
}

// maxVariables is how many variables a session adds to the environment.
const maxVariables = 16

// decode reads what pyrunner.Run and sandbox.Room.Confine wrote: the tuple
// (op, (command,), (uid, gid, work, limits, env, temp), import_from, token).
func (j *job) decode(message []byte) error {
	r := reader{b: message}
	r.tuple(5)
	if op := r.str(); string(op) != "run" {
		return fmt.Errorf("%w: op %q", errMessage, op)
	}
	r.tuple(1)
	j.command = r.str()
	r.tuple(6)
	j.uid, j.gid = r.int(), r.int()
	j.work = r.str()
	j.nlimits = r.count('(')
	if j.nlimits > maxLimits {
		return fmt.Errorf("%w: %d limits, at most %d", errMessage, j.nlimits, maxLimits)
	}
	for i := range j.nlimits {
		r.tuple(3)
		j.limits[i] = resourceLimit{uintptr(r.int()), unix.Rlimit{Cur: uint64(r.int()), Max: uint64(r.int())}}
	}
	r.code('{')
	for j.nenv = 0; !r.skip('0'); j.nenv++ {
		if r.bad || j.nenv == maxVariables {
			return fmt.Errorf("%w: its environment", errMessage)
		}
		j.env[j.nenv] = [2][]byte{r.str(), r.str()}
	}
	j.link, j.linkedTo = nil, nil
	if !r.skip('N') {
		r.tuple(2)
		j.link, j.linkedTo = r.str(), r.str()
	}
	r.code('N')
	j.token = r.str()
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w: %d bytes", errMessage, len(message))
	}
	return nil
}

// reader reads the few types of Python's marshal format that package pymarshal
// writes. What doesn't fit makes it bad, and everything after that is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// skip reads a type's code if it comes next.
func (r *reader) skip(code byte) bool {
	if len(r.b) == 0 || r.b[0] != code {
		return false
	}
	r.b = r.b[1:]
	return true
}

func (r *reader) code(code byte) {
	if !r.skip(code) {
		r.bad, r.b = true, nil
	}
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// count reads the head of a sized type.
func (r *reader) count(code byte) int {
	r.code(code)
	return int(r.uint32())
}

func (r *reader) tuple(n int) {
	if r.count('(') != n {
		r.bad, r.b = true, nil
	}
}

func (r *reader) str() []byte { return r.take(r.count('u')) }

func (r *reader) int() int64 {
	if !r.skip('l') {
		r.code('i')
		return int64(int32(r.uint32()))
	}
	n := int64(int32(r.uint32())) // digits of 15 bits, negative for a negative number
	sign := int64(1)
	if n < 0 {
		n, sign = -n, -1
	}
	v := int64(0)
	digits := r.take(int(n) * 2)
	for i := len(digits) - 2; i >= 0; i -= 2 {
		v = v<<15 | int64(binary.LittleEndian.Uint16(digits[i:]))
	}
	return sign * v
}

// prepare makes a job's plan. Its strings are in the arena, which is used again
// for the next job; base is the environment that all jobs have.
func (p *plan) prepare(j *job, arena []byte, base []string) []byte {
	p.users = j.uid >= 0
	p.uid, p.gid = uintptr(j.uid), uintptr(j.gid)
	p.limits, p.nlimits = j.limits, j.nlimits

	arena = arena[:0]
	keep := func(parts ...[]byte) int {
		at := len(arena)
		for _, part := range parts {
			arena = append(arena, part...)
		}
		arena = append(arena, 0)
		return at
	}
	keep(shell)
	keep(dashC)
	var envAt [maxVariables]int
	command, work := keep(j.command), keep(j.work)
	for i, kv := range j.env[:j.nenv] {
		envAt[i] = keep(kv[0], equals, kv[1])
	}
	baseAt := len(arena)
	for _, kv := range base {
		if !j.sets(kv) {
			arena = append(append(arena, kv...), 0)
		}
	}
	// The arena doesn't move any more.
	p.path, p.work = &arena[0], &arena[work]
	p.argv = append(p.argv[:0], p.path, &arena[len(shell)+1], &arena[command], nil)
	p.envv = p.envv[:0]
	for _, at := range envAt[:j.nenv] {
		p.envv = append(p.envv, &arena[at])
	}
	for at, start := baseAt, baseAt; at < len(arena); at++ {
		if arena[at] == 0 {
			p.envv = append(p.envv, &arena[start])
			start = at + 1
		}
	}
	p.envv = append(p.envv, nil)
	return arena
}

var shell, dashC, equals = []byte("/bin/sh"), []byte("-c"), []byte("=")

// sets says whether a job has a variable of its own in place of one of all jobs'.
func (j *job) sets(kv string) bool {
	name, _, _ := strings.Cut(kv, "=")
	for i := range j.env[:j.nenv] {
		if string(j.env[i][0]) == name {
			return true
		}
	}
	return false
}
