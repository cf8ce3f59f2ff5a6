#include "textflag.h"

// func vfork(trap, flags, stack, pidfd uintptr) (pid, errno uintptr)
//
// The return address is in the link register, where the child's calls, which
// share the stack, can't overwrite it. As rawVforkSyscall of the standard
// library's package syscall.
TEXT ·vfork(SB),NOSPLIT,$0-48
	MOVD	flags+8(FP), R0
	MOVD	stack+16(FP), R1
	MOVD	pidfd+24(FP), R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	trap+0(FP), R8
	SVC
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, pid+32(FP)
	NEG	R0, R0
	MOVD	R0, errno+40(FP)
	RET
ok:
	MOVD	R0, pid+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
