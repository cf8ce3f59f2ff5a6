package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Actions of a filter, as SECCOMP_RET_ values.
const (
	allowed = unix.SECCOMP_RET_ALLOW
	killed  = unix.SECCOMP_RET_KILL_PROCESS
	// eperm refuses what exists, enosys what a program is to believe that this
	// kernel doesn't have, so that it takes another way.
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	// told refuses what a program that means no harm doesn't do: EPERM too, but
	// with a [Listener], that is told of it first.
	told       = unix.SECCOMP_RET_USER_NOTIF
	einval     = unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)
	eopnotsupp = unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)
)

// verdict is what the filter does with a call: the first rule whose condition
// holds decides, and otherwise the last word does.
type verdict struct {
	rules     []rule
	otherwise uint32
}

var (
	allow  = verdict{otherwise: allowed}
	refuse = verdict{otherwise: eperm}
	forbid = verdict{otherwise: told}
	absent = verdict{otherwise: enosys}
	// unsupported refuses as a file system does that can't.
	unsupported = verdict{otherwise: eopnotsupp}
)

// untold returns the verdict where nobody is told.
func (v verdict) untold() verdict {
	plain := func(action uint32) uint32 {
		if action == told {
			return eperm
		}
		return action
	}
	w := verdict{otherwise: plain(v.otherwise), rules: slices.Clone(v.rules)}
	for i := range w.rules {
		w.rules[i].then = plain(w.rules[i].then)
	}
	return w
}

// check allows what its rules don't decide.
func check(rules ...rule) verdict { return verdict{rules: rules, otherwise: allowed} }

// rule is an action that is taken when a condition holds.
type rule struct {
	when condition
	then uint32
}

// condition looks at one half of one argument.
type condition struct {
	arg int
	// upper takes the half that only pointers, sizes and offsets have: the
	// kernel cuts every other argument to its lower half, and so must we, or a
	// bit set above would hide the value.
	upper bool
	// mask keeps these bits only; zero keeps all.
	mask   uint32
	test   test
	values []uint32
}

type test int

const (
	among  test = iota // equals one of the values
	others             // equals none of the values
	anyBit             // has a bit of the value
	above              // is more than the value, unsigned
)

func is(arg int, values ...uint32) condition {
	return condition{arg: arg, test: among, values: values}
}

func isNot(arg int, values ...uint32) condition {
	return condition{arg: arg, test: others, values: values}
}

func has(arg int, bits uint32) condition {
	return condition{arg: arg, test: anyBit, values: []uint32{bits}}
}

func exceeds(arg int, value uint32) condition {
	return condition{arg: arg, test: above, values: []uint32{value}}
}

func (c condition) masked(bits uint32) condition { c.mask = bits; return c }

// high looks at the upper half.
func (c condition) high() condition { c.upper = true; return c }
