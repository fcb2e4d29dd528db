#include "textflag.h"

// The stub for arm64; see stub_amd64.s for what each part does. Registers while a program runs:
//
//	R19 base of the arena   R20 current operation   R21 its index   R22 number of operations   R23 scratch memory
//	R25 attempts left
//
// func stub()
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	MOVD RSP, R23
	SUB  $512, R23

	MOVD $167, R8 // prctl(PR_SET_DUMPABLE, 0)
	MOVD $4, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	SVC

	MOVD ZR, 0(R23)
	MOVD ZR, 8(R23)
	MOVD ZR, 16(R23)
	MOVD ZR, 24(R23)
	MOVD $64, R24
sigs:
	MOVD $134, R8 // rt_sigaction
	MOVD R24, R0
	MOVD R23, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	SUB  $1, R24
	CBNZ R24, sigs

	MOVD $-1, R0
	MOVD R0, 0(R23)
	MOVD $135, R8 // rt_sigprocmask
	MOVD $2, R0
	MOVD R23, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC

begin:
	MOVD $67, R8 // pread64(ProgramFD, scratch, 16, 0)
	MOVD $3, R0
	MOVD R23, R1
	MOVD $16, R2
	MOVD $0, R3
	SVC
	CMN  $29, R0 // ESPIPE
	BEQ  park
	CMP  $16, R0
	BNE  broken
	MOVD 0(R23), R0
	MOVD $0x3174616c63756e43, R1
	CMP  R1, R0
	BNE  broken

	MOVD $222, R8 // mmap
	MOVD $0x1000000000, R0
	MOVD R0, R19
	MOVD 8(R23), R1
	MOVD $3, R2
	MOVD $0x100002, R3
	MOVD $3, R4
	MOVD $0, R5
	SVC
	CMP  R19, R0
	BNE  broken

	MOVD $436, R8 // close_range
	MOVD 32(R19), R0
	MOVD $0xffffffff, R1
	MOVD $0, R2
	SVC

	MOVD 40(R19), R24
unused:
	CBZ  R24, program
	RBIT R24, R0
	CLZ  R0, R0
	SUB  $1, R24, R9
	AND  R9, R24
	MOVD $57, R8 // close
	SVC
	B    unused

program:
	MOVD 16(R19), R20
	MOVD 24(R19), R22
	MOVD $0, R21
	MOVD $0x10000, R25 // attempts
loop:
	CMP  R22, R21
	BHS  fellOff
	MOVD 0(R20), R8
	MOVWU 72(R20), R9
	MOVD 8(R20), R0
	TBZ  $0, R9, arg1
	MOVD (R0), R0
arg1:
	MOVD 16(R20), R1
	TBZ  $1, R9, arg2
	MOVD (R1), R1
arg2:
	MOVD 24(R20), R2
	TBZ  $2, R9, arg3
	MOVD (R2), R2
arg3:
	MOVD 32(R20), R3
	TBZ  $3, R9, arg4
	MOVD (R3), R3
arg4:
	MOVD 40(R20), R4
	TBZ  $4, R9, arg5
	MOVD (R4), R4
arg5:
	MOVD 48(R20), R5
	TBZ  $5, R9, call
	MOVD (R5), R5
call:
	TBNZ $63, R8, special
	SVC
	CMN  $4095, R0
	BHS  failed
	MOVD 56(R20), R9
	CBZ  R9, next
	MOVD R0, (R9)
next:
	ADD  $80, R20
	ADD  $1, R21
	B    loop

special:
	CMN  $1, R8
	BEQ  jump
	CMN  $2, R8
	BEQ  expect
	CMN  $3, R8
	BEQ  fail
	CMN  $4, R8
	BEQ  keep
	CMN  $5, R8
	BEQ  init
	MOVD $38, R0
	B    report

jump:
	CBZ  R0, next
	MOVD R1, R21
	MOVD $80, R9
	MUL  R9, R1, R1
	MOVD 16(R19), R20
	ADD  R1, R20
	B    loop

expect:
	AND  R1, R0
	CMP  R2, R0
	BEQ  next
	MOVD R3, R0
	B    ignorable

fail:
	CBNZ R0, report
	MOVD R1, R0
	B    report

failed:
	CMN  $11, R0 // EAGAIN of openat2
	BNE  refused
	MOVD 0(R20), R9
	CMP  $437, R9
	BNE  refused
	SUBS $1, R25
	BGE  loop
refused:
	NEG  R0, R0
ignorable:
	MOVWU 64(R20), R9
	MOVD $0xffff, R10
	CMP  R10, R9
	BEQ  next
	CMP  R9, R0
	BEQ  next
	MOVWU 68(R20), R9
	CMP  R9, R0
	BEQ  next
	MOVWU 76(R20), R9
	TBZ  $0, R9, report
	CMP  $13, R0
	BNE  report
	MOVD 56(R20), R9
	MOVD R0, (R9)
	B    next

fellOff:
	MOVD $8, R0
report:
	MOVD $2, R9
	MOVD R9, 0(R23)
	MOVD R21, 8(R23)
	MOVD R0, 16(R23)
	MOVD $64, R8 // write
	MOVD $4, R0
	MOVD R23, R1
	MOVD $24, R2
	SVC
	MOVD $127, R0
	B    exit

park:
	MOVD $167, R8 // prctl(PR_SET_NAME, …)
	MOVD $15, R0
	MOVD 520(R23), R1
	SVC
	MOVD $436, R8 // close_range
	MOVD $4, R0
	MOVD $0xffffffff, R1
	MOVD $0, R2
	SVC
	MOVD 520(R23), R9 // struct iovec
	MOVD R9, 64(R23)
	MOVD $78, R9
	MOVD R9, 72(R23)
	MOVD ZR, 0(R23) // struct msghdr
	MOVD ZR, 8(R23)
	ADD  $64, R23, R9
	MOVD R9, 16(R23)
	MOVD $1, R9
	MOVD R9, 24(R23)
	SUB  $4096, R23, R24
	MOVD R24, 32(R23)
	MOVD ZR, 48(R23)
parked:
	MOVD $1032, R9
	MOVD R9, 40(R23)
	MOVD $212, R8 // recvmsg
	MOVD $3, R0
	MOVD R23, R1
	MOVD $0, R2
	SVC
	CMN  $4, R0
	BEQ  parked
	CMP  $78, R0
	BEQ  given
	CMP  $1, R0
	BNE  broken
	MOVWU 48(R23), R9
	TBNZ $3, R9, broken
	MOVWU 16(R24), R26 // the socket
	MOVD $220, R8 // clone
	MOVD $0x8011, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	SVC
	CBZ  R0, born
	MOVD R0, 128(R23)
	MOVD $57, R8 // close
	MOVD R26, R0
	SVC
	MOVD $64, R8 // write
	MOVD $3, R0
	ADD  $128, R23, R1
	MOVD $8, R2
	SVC
	B    parked

born:
	MOVD 520(R23), R9
	MOVD $0x6572617073, R10
	MOVD R10, 13(R9)
	MOVD $0, R25
own:
	MOVD $24, R8 // dup3
	MOVD R26, R0
	MOVD R25, R1
	MOVD $0, R2
	SVC
	ADD  $1, R25
	CMP  $4, R25
	BLT  own
	MOVD $57, R8 // close
	MOVD R26, R0
	SVC
	MOVD $157, R8 // setsid
	SVC
	B    parked

given:
	MOVWU 48(R23), R9
	TBNZ $3, R9, broken
	MOVD (R24), R24
	SUB  $16, R24
	LSR  $2, R24
	MOVD $0, R25
place:
	MOVD $24, R8 // dup3
	ADD  R25, R24, R0
	MOVD R25, R1
	MOVD $0, R2
	SVC
	CMP  R25, R0
	BNE  broken
	ADD  $1, R25
	CMP  $4, R25
	BLT  place
	B    begin

broken:
	MOVD $126, R0
exit:
	MOVD $94, R8 // exit_group
	SVC
	UNDEF // a filter that forbids even this is not to keep the process for ever

keep:
	MOVD R0, R24
	MOVD R1, R25
	MOVD R4, R26
	MOVD R5, R19
	MOVD $215, R8 // munmap
	MOVD R2, R0
	MOVD R3, R1
	SVC
keepWait:
	MOVD $260, R8 // wait4
	MOVD $-1, R0
	MOVD R23, R1
	MOVD $0x40000000, R2
	MOVD $0, R3
	SVC
	CMN  $4, R0
	BEQ  keepWait
	CMP  $0, R0
	BLE  drained
	CMPW R24, R0
	BEQ  keepWait
	MOVD $1, R9
	MOVW R9, 4(R23)
	MOVD $113, R8 // clock_gettime
	MOVD $0, R0
	ADD  $8, R23, R1
	SVC
	MOVD $68, R8 // pwrite64
	MOVD R25, R0
	MOVD R23, R1
	MOVD $24, R2
	MOVD R26, R3
	SVC
	B    keepWait

drained:
	MOVD $50000, R20
drainLook:
	MOVD ZR, 0(R23)
	MOVD ZR, 8(R23)
	MOVD $29, R8 // ioctl
	MOVD R19, R0
	MOVD $0x541b, R1
	MOVD R23, R2
	SVC
	MOVD $29, R8
	ADD  $1, R19, R0
	MOVD $0x541b, R1
	ADD  $8, R23, R2
	SVC
	MOVD $32, R8 // flock, before FIONREAD is believed
	MOVD R25, R0
	MOVD $6, R1
	SVC
	CBZ  R0, save
	MOVWU 0(R23), R9
	MOVWU 8(R23), R10
	ORR  R9, R10
	CBZ  R10, keepDone
	MOVD $500000000, R9
	CMP  R9, R20
	BGT  keepDone
	MOVD ZR, 0(R23)
	MOVD R20, 8(R23)
	LSL  $1, R20
	MOVD $101, R8 // nanosleep
	MOVD R23, R0
	MOVD $0, R1
	SVC
	B    drainLook

save:
	MOVD ZR, 0(R23)
	MOVD ZR, 8(R23)
	MOVD R23, R24 // where the current stream's length is counted
	ADD  $40, R26, R20
	MOVD $0, R21
saveRead:
	MOVD $0x100000, R2
	MOVD (R24), R9
	SUB  R9, R2
	CMP  $4096, R2
	BLE  saveSome
	MOVD $4096, R2
saveSome:
	MOVD $63, R8 // read
	ADD  R21, R19, R0
	SUB  $8192, R23, R1
	SVC
	CMP  $0, R0
	BLE  saveNext
	MOVD R0, R2
	MOVD $68, R8
	MOVD R25, R0
	SUB  $8192, R23, R1
	MOVD R20, R3
	SVC
	CMP  $0, R0
	BLE  saveEnd
	ADD  R0, R20
	MOVD (R24), R9
	ADD  R0, R9
	MOVD R9, (R24)
	B    saveRead
saveNext:
	ADD  $8, R24
	ADD  $1, R21
	CMP  $2, R21
	BLT  saveRead
saveEnd:
	MOVD $68, R8
	MOVD R25, R0
	MOVD R23, R1
	MOVD $16, R2
	ADD  $24, R26, R3
	SVC
keepDone:
	MOVD $0, R0
	B    exit

init:
	MOVD R0, R24
	MOVD $215, R8 // munmap
	MOVD R1, R0
	MOVD R2, R1
	SVC
	MOVD $-1, R9
	MOVD R9, 0(R23)
initWait:
	MOVD $137, R8 // rt_sigtimedwait
	MOVD R23, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	CMP  $-4, R0 // EINTR
	BEQ  initWait
	CMP  $0, R0
	BLE  initBarred
	CMP  $17, R0
	BEQ  initReap
	CMP  $21, R0
	BEQ  initWait
	CMP  $22, R0
	BEQ  initWait
	MOVD R0, R1
	MOVD R24, R0
	MOVD $129, R8 // kill
	SVC
	B    initWait
initReap:
	MOVD $260, R8 // wait4
	MOVD $-1, R0
	ADD  $8, R23, R1
	MOVD $0x40000001, R2
	MOVD $0, R3
	SVC
	CMP  $0, R0
	BEQ  initWait
	BLT  initBarred
	CMPW R24, R0
	BNE  initReap
	MOVWU 8(R23), R9
	AND  $0x7f, R9, R0
	CBNZ R0, initKilled
	LSR  $8, R9
	AND  $0xff, R9, R0
	B    exit
initKilled:
	ADD  $128, R0
	B    exit
initBarred:
	MOVD $1, R0
	B    exit

	WORD $0x41454c43 // "CLEA"
	WORD $0x444e4554 // "TEND"
	RET

// func stubAddress() uintptr
TEXT ·stubAddress(SB), NOSPLIT, $0-8
	MOVD $·stub(SB), R0
	MOVD R0, ret+0(FP)
	RET
