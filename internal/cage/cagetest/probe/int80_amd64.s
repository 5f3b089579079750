#include "textflag.h"

// func int80(nr, a, b, c uint32) int32
//
// A system call through the 32-bit gate, whose numbers are those of i386: a
// filter that looks at the number alone takes it for another call.
TEXT ·int80(SB), NOSPLIT, $0-20
	MOVL nr+0(FP), AX
	MOVL a+4(FP), BX
	MOVL b+8(FP), CX
	MOVL c+12(FP), DX
	INT  $0x80
	MOVL AX, ret+16(FP)
	RET
