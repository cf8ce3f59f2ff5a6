package seccomp

import (
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

// call is what a filter is asked about.
type call struct {
	number, arch uint32
	args         [6]uint64
}

// word reads the call as the filter sees it, struct seccomp_data.
func (c call) word(offset uint32) (uint32, error) {
	switch {
	case offset == 0:
		return c.number, nil
	case offset == 4:
		return c.arch, nil
	case offset >= 16 && offset < 64 && offset%4 == 0:
		arg := c.args[(offset-16)/8]
		if offset%8 == 4 {
			arg >>= 32
		}
		return uint32(arg), nil
	}
	return 0, fmt.Errorf("load at %d", offset)
}

// trace is how a filter came to its decision.
type trace struct {
	action uint32
	// steps counts instructions.
	steps int
	// looked says that the decision depends on an argument: the kernel can't
	// remember it.
	looked bool
}

// run interprets a filter, and accepts no more than the kernel does.
func run(filter []unix.SockFilter, c call) (trace, error) {
	var t trace
	var acc uint32
	for pc := 0; pc < len(filter); {
		ins := filter[pc]
		t.steps++
		pc++
		jump := func(taken bool) {
			if taken {
				pc += int(ins.Jt)
			} else {
				pc += int(ins.Jf)
			}
		}
		switch ins.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			w, err := c.word(ins.K)
			if err != nil {
				return t, fmt.Errorf("instruction %d: %w", pc-1, err)
			}
			acc = w
			t.looked = t.looked || ins.K >= 16
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= ins.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(ins.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == ins.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= ins.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(acc > ins.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(acc&ins.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			t.action = ins.K
			return t, nil
		default:
			return t, fmt.Errorf("instruction %d: code %#x", pc-1, ins.Code)
		}
	}
	return t, fmt.Errorf("ran past the end, after %d steps", t.steps)
}

func mustRun(t testing.TB, filter []unix.SockFilter, c call) trace {
	t.Helper()
	got, err := run(filter, c)
	if err != nil {
		t.Fatalf("call %d of %#x, arguments %#x: %v", c.number, c.arch, c.args, err)
	}
	return got
}

// TestAssemblerFarTargets makes programs with more between an instruction and
// its targets than an 8-bit offset covers.
func TestAssemblerFarTargets(t *testing.T) {
	for _, spansCount := range []int{2, 100, 254, 255, 256, 257, 300, 1500} {
		a := assembler{returns: map[uint32]label{}}
		checked := a.verdict(check(rule{is(0, 7), eperm}))
		var spans []span
		want := func(n int) uint32 {
			if n%3 == 0 {
				return enosys
			}
			return allowed
		}
		for i := range spansCount {
			s := span{first: uint32(i), leads: a.leave(want(i)), weight: 1}
			if i%5 == 4 {
				s.leads = checked
			}
			spans = append(spans, s)
		}
		a.before(a.search(spans), opLoad, dataCall)
		filter := a.program()
		for i := range spansCount + 3 {
			last := min(i, spansCount-1)
			for _, arg := range []uint64{0, 7} {
				w := want(last)
				if last%5 == 4 {
					w = allowed
					if arg == 7 {
						w = eperm
					}
				}
				got := mustRun(t, filter, call{number: uint32(i), args: [6]uint64{arg}})
				if got.action != w {
					t.Fatalf("%d spans, number %d, argument %d: action %#x, want %#x", spansCount, i, arg, got.action, w)
				}
				if most := 2*int(math.Ceil(math.Log2(float64(spansCount)))) + 6; got.steps > most {
					t.Errorf("%d spans, number %d: %d steps, more than %d", spansCount, i, got.steps, most)
				}
			}
		}
	}
}

func TestConditions(t *testing.T) {
	const high = 1 << 32
	tests := []struct {
		name    string
		when    condition
		yes, no []uint64
	}{
		{"is one", is(1, 5), []uint64{5, 5 + high}, []uint64{0, 4, 6, 5 << 32}},
		{"is one of three", is(1, 5, 0, 0xffffffff), []uint64{0, 5, 0xffffffff, math.MaxUint64}, []uint64{1, 0xfffffffe}},
		{"is none of two", isNot(1, 5, 9), []uint64{0, 6, 5 << 32}, []uint64{5, 9, 9 + high}},
		{"masked", is(1, 0x20).masked(0xf0), []uint64{0x20, 0x2f, 0xf2f}, []uint64{0x30, 0, 2}},
		{"masked, none of", isNot(1, 1).masked(0xf), []uint64{0, 2, 0x10}, []uint64{1, 0x11, 0x80001}},
		{"a bit", has(1, 0x11), []uint64{1, 0x10, 0xff}, []uint64{0, 2, high}},
		{"more", exceeds(1, 9), []uint64{10, 0x80000000, 0xffffffff}, []uint64{0, 9, high}},
		{"upper half", has(1, ^uint32(0)).high(), []uint64{high, 1 << 63}, []uint64{0, 0xffffffff}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := assembler{returns: map[uint32]label{}}
			a.condition(test.when, a.leave(eperm), a.leave(allowed))
			filter := a.program()
			for _, v := range test.yes {
				if got := mustRun(t, filter, call{args: [6]uint64{0, v}}); got.action != eperm {
					t.Errorf("doesn't hold for %#x", v)
				}
			}
			for _, v := range test.no {
				if got := mustRun(t, filter, call{args: [6]uint64{0, v}}); got.action != allowed {
					t.Errorf("holds for %#x", v)
				}
			}
		})
	}
}
