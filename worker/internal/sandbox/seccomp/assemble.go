package seccomp

import (
	"math"

	"golang.org/x/sys/unix"
)

// What a filter reads: struct seccomp_data of linux/seccomp.h. Both
// architectures are little-endian.
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16
)

// Instructions are those that the kernel accepts in a filter (seccomp(2)) and,
// up to the first look at an argument, those that it can carry out beforehand
// to remember which calls are always allowed (seccomp_is_const_allow in
// kernel/seccomp.c, Linux 5.11+).
const (
	opLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump   = unix.BPF_JMP | unix.BPF_JA
	opEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opLeast  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opAbove  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opAnyBit = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opReturn = unix.BPF_RET | unix.BPF_K
)

// assembler writes a program from its end to its beginning: BPF jumps forward
// only, so that whatever an instruction leads to is there already.
type assembler struct {
	// backwards holds the instructions, the last one first.
	backwards []unix.SockFilter
	// returns are the return instructions nearest to the beginning.
	returns map[uint32]label
}

// label is an instruction, as an index of backwards.
type label int

func (a *assembler) add(i unix.SockFilter) label {
	a.backwards = append(a.backwards, i)
	return label(len(a.backwards) - 1)
}

// leave returns from the filter with an action.
func (a *assembler) leave(action uint32) label {
	if l, ok := a.returns[action]; ok {
		return l
	}
	l := a.add(unix.SockFilter{Code: opReturn, K: action})
	a.returns[action] = l
	return l
}

// distance is how many instructions the next one would jump over to get to l.
func (a *assembler) distance(l label) int { return len(a.backwards) - 1 - int(l) }

// reach brings l within limit instructions of the next one.
func (a *assembler) reach(l label, limit int) label {
	if a.distance(l) <= limit {
		return l
	}
	to := a.backwards[l]
	if to.Code != opReturn {
		return a.add(unix.SockFilter{Code: opJump, K: uint32(a.distance(l))})
	}
	if near := a.returns[to.K]; a.distance(near) <= limit {
		return near
	}
	delete(a.returns, to.K)
	return a.leave(to.K)
}

// branch compares the accumulator with k.
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	// Offsets are 8 bits. Bringing one target nearer takes the other, by one
	// instruction, farther.
	yes = a.reach(yes, math.MaxUint8-1)
	no = a.reach(no, math.MaxUint8)
	return a.add(unix.SockFilter{Code: op, K: k, Jt: uint8(a.distance(yes)), Jf: uint8(a.distance(no))})
}

// before puts an instruction that doesn't jump in front of l.
func (a *assembler) before(l label, op uint16, k uint32) label {
	a.reach(l, 0)
	return a.add(unix.SockFilter{Code: op, K: k})
}

// verdict carries out the rules of a call.
func (a *assembler) verdict(v verdict) label {
	next := a.leave(v.otherwise)
	for i := len(v.rules) - 1; i >= 0; i-- {
		next = a.condition(v.rules[i].when, a.leave(v.rules[i].then), next)
	}
	return next
}

func (a *assembler) condition(c condition, yes, no label) label {
	var l label
	switch c.test {
	case anyBit:
		l = a.branch(opAnyBit, c.values[0], yes, no)
	case above:
		l = a.branch(opAbove, c.values[0], yes, no)
	case others:
		l = a.equalsOne(c.values, no, yes)
	default:
		l = a.equalsOne(c.values, yes, no)
	}
	if c.mask != 0 {
		l = a.before(l, opAnd, c.mask)
	}
	offset := uint32(dataArgs + 8*c.arg)
	if c.upper {
		offset += 4
	}
	return a.before(l, opLoad, offset)
}

func (a *assembler) equalsOne(values []uint32, yes, no label) label {
	next := no
	for _, v := range values {
		next = a.branch(opEqual, v, yes, next)
	}
	return next
}

// span is a run of numbers, up to the next span, that are decided alike.
type span struct {
	first  uint32
	leads  label
	weight int
}

// search finds the span of a number by halving what is left, by weight: what is
// called often takes fewer steps.
func (a *assembler) search(spans []span) label {
	if len(spans) == 1 {
		return spans[0].leads
	}
	total := 0
	for _, s := range spans {
		total += s.weight
	}
	middle, left, best := 1, 0, math.MaxInt
	for i, s := range spans[:len(spans)-1] {
		left += s.weight
		if off := max(left, total-left); off < best {
			middle, best = i+1, off
		}
	}
	yes := a.search(spans[middle:])
	no := a.search(spans[:middle])
	return a.branch(opLeast, spans[middle].first, yes, no)
}

// program returns what was assembled, from the beginning.
func (a *assembler) program() []unix.SockFilter {
	p := make([]unix.SockFilter, len(a.backwards))
	for i, ins := range a.backwards {
		p[len(p)-1-i] = ins
	}
	return p
}
