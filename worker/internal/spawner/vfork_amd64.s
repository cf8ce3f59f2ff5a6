#include "textflag.h"

// func vfork(trap, flags, stack, pidfd uintptr) (pid, errno uintptr)
//
// The child runs on this thread's stack until it executes a program, and its
// calls overwrite what lies beyond the caller's frame, the return address of this
// call with it: that one waits in a register. As rawVforkSyscall of the standard
// library's package syscall.
TEXT ·vfork(SB),NOSPLIT|NOFRAME,$0-48
	MOVQ	flags+8(FP), DI
	MOVQ	stack+16(FP), SI
	MOVQ	pidfd+24(FP), DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$0, R9
	MOVQ	trap+0(FP), AX
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, pid+32(FP)
	NEGQ	AX
	MOVQ	AX, errno+40(FP)
	RET
ok:
	MOVQ	AX, pid+32(FP)
	MOVQ	$0, errno+40(FP)
	RET
