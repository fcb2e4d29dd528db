#include "textflag.h"

// The stub: a position-independent interpreter of launch programs (see doc.go and layout.go for the formats). It becomes the whole text
// of a static executable, never runs inside the engine, and calls nothing. Registers while a program runs:
//
//	R12 base of the arena   R13 current operation   R14 its index   BX number of operations   R15 scratch memory (128 < top < stack)
//
// Scratch memory lies on the stack the kernel gave us, so it is private to each process even where the arena is not.
// func stub()
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, R15
	SUBQ $64, R15

	// prctl(PR_SET_DUMPABLE, 0): nobody may ptrace what still holds the host's privileges.
	MOVQ $157, AX
	MOVQ $4, DI
	XORQ SI, SI
	XORQ DX, DX
	XORQ R10, R10
	XORQ R8, R8
	SYSCALL

	// rt_sigaction(n, SIG_DFL) for every signal: the engine may ignore some.
	MOVQ $0, -256(R15)
	MOVQ $0, -248(R15)
	MOVQ $0, -240(R15)
	MOVQ $0, -232(R15)
	MOVQ $64, R14
sigs:
	MOVQ $13, AX
	MOVQ R14, DI
	LEAQ -256(R15), SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL
	DECQ R14
	JNZ  sigs

	// rt_sigprocmask(SIG_SETMASK, all)
	MOVQ $-1, -256(R15)
	MOVQ $14, AX
	MOVQ $2, DI
	LEAQ -256(R15), SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL

begin:
	// pread64(ProgramFD, scratch, 16, 0)
	MOVQ $17, AX
	MOVQ $3, DI
	LEAQ -256(R15), SI
	MOVQ $16, DX
	XORQ R10, R10
	SYSCALL
	CMPQ AX, $-29 // ESPIPE: no file, but the socket where the program will come from
	JEQ  park
	CMPQ AX, $16
	JNE  broken
	MOVQ -256(R15), AX
	MOVQ $0x3174616c63756e43, CX
	CMPQ AX, CX
	JNE  broken

	// mmap(Base, size, READ|WRITE, PRIVATE|FIXED_NOREPLACE, ProgramFD, 0)
	MOVQ $9, AX
	MOVQ $0x1000000000, DI
	MOVQ DI, R12
	MOVQ -248(R15), SI
	MOVQ $3, DX
	MOVQ $0x100002, R10
	MOVQ $3, R8
	XORQ R9, R9
	SYSCALL
	CMPQ AX, R12
	JNE  broken

	// close_range(first that was not handed over, ~0, 0)
	MOVQ $436, AX
	MOVQ 32(R12), DI
	MOVL $-1, SI
	XORQ DX, DX
	SYSCALL

	// close(n) for each bit n of the header's set
	MOVQ 40(R12), R14
unused:
	BSFQ R14, DI
	JZ   program
	LEAQ -1(R14), CX
	ANDQ CX, R14
	MOVQ $3, AX
	SYSCALL
	JMP  unused

program:
	MOVQ 16(R12), R13
	MOVQ 24(R12), BX
	XORQ R14, R14
	MOVQ $0x10000, -264(R15) // attempts for all of the program
loop:
	CMPQ R14, BX
	JCC  fellOff
	MOVQ 0(R13), AX
	MOVL 72(R13), CX
	MOVQ 8(R13), DI
	TESTL $1, CX
	JZ   arg1
	MOVQ (DI), DI
arg1:
	MOVQ 16(R13), SI
	TESTL $2, CX
	JZ   arg2
	MOVQ (SI), SI
arg2:
	MOVQ 24(R13), DX
	TESTL $4, CX
	JZ   arg3
	MOVQ (DX), DX
arg3:
	MOVQ 32(R13), R10
	TESTL $8, CX
	JZ   arg4
	MOVQ (R10), R10
arg4:
	MOVQ 40(R13), R8
	TESTL $16, CX
	JZ   arg5
	MOVQ (R8), R8
arg5:
	MOVQ 48(R13), R9
	TESTL $32, CX
	JZ   call
	MOVQ (R9), R9
call:
	TESTQ AX, AX
	JLT  special
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	MOVQ 56(R13), CX
	TESTQ CX, CX
	JZ   next
	MOVQ AX, (CX)
next:
	ADDQ $80, R13
	INCQ R14
	JMP  loop

special:
	CMPQ AX, $-1
	JEQ  jump
	CMPQ AX, $-2
	JEQ  expect
	CMPQ AX, $-3
	JEQ  fail
	CMPQ AX, $-4
	JEQ  keep
	CMPQ AX, $-5
	JEQ  init
	MOVQ $38, AX // ENOSYS
	JMP  report

jump: // to operation SI if DI is not 0
	TESTQ DI, DI
	JZ   next
	MOVQ SI, R14
	IMUL3Q $80, SI, SI
	MOVQ 16(R12), R13
	ADDQ SI, R13
	JMP  loop

expect: // DI & SI == DX, else error R10
	ANDQ SI, DI
	CMPQ DI, DX
	JEQ  next
	MOVQ R10, AX
	JMP  ignorable

fail: // with DI, or with SI if DI is 0
	MOVQ DI, AX
	TESTQ AX, AX
	JNZ  report
	MOVQ SI, AX
	JMP  report

failed:
	CMPQ AX, $-11 // EAGAIN of openat2: something, anywhere, was renamed or mounted while the kernel walked over a ".."
	JNE  refused
	CMPQ 0(R13), $437
	JNE  refused
	DECQ -264(R15)
	JGE  loop
refused:
	NEGQ AX
ignorable:
	MOVL 64(R13), CX
	CMPL CX, $0xffff
	JEQ  next
	CMPL CX, AX
	JEQ  next
	MOVL 68(R13), CX
	CMPL CX, AX
	JEQ  next
	TESTL $1, 76(R13) // remember EACCES
	JZ   report
	CMPL AX, $13
	JNE  report
	MOVQ 56(R13), CX
	MOVQ AX, (CX)
	JMP  next

fellOff:
	MOVQ $8, AX // ENOEXEC
report: // write(ReportFD, {2, index, errno}, 24), then exit_group(127)
	MOVQ $2, -256(R15)
	MOVQ R14, -248(R15)
	MOVQ AX, -240(R15)
	MOVQ $1, AX
	MOVQ $4, DI
	LEAQ -256(R15), SI
	MOVQ $24, DX
	SYSCALL
	MOVQ $127, DI
	JMP  exit

// park: wait at the socket for a start (see park.go). Its message is the process's new title, which takes the place of the arguments, and
// brings the descriptors, which the kernel gives the numbers from 4 on: the report pipe, those from FirstFD on, stdio, the program. A
// message of one byte brings the socket of another parked process, which this one makes as its parent's child; it answers with the PID or
// the error.
park:
	MOVQ 72(R15), SI // the first argument
	MOVQ $157, AX    // prctl(PR_SET_NAME, …)
	MOVQ $15, DI
	SYSCALL
	MOVQ $436, AX // close_range(4, ~0, 0)
	MOVQ $4, DI
	MOVL $-1, SI
	XORQ DX, DX
	SYSCALL
	MOVQ 72(R15), AX // struct iovec
	MOVQ AX, -64(R15)
	MOVQ $78, -56(R15)
	MOVQ $0, -128(R15) // struct msghdr
	MOVQ $0, -120(R15)
	LEAQ -64(R15), AX
	MOVQ AX, -112(R15)
	MOVQ $1, -104(R15)
	LEAQ -4096(R15), AX
	MOVQ AX, -96(R15)
	MOVQ $0, -80(R15)
parked:
	MOVQ $1032, -88(R15)
	MOVQ $47, AX // recvmsg(3, &msghdr, 0)
	MOVQ $3, DI
	LEAQ -128(R15), SI
	XORQ DX, DX
	SYSCALL
	CMPQ AX, $-4 // EINTR
	JEQ  parked
	CMPQ AX, $78
	JEQ  given
	CMPQ AX, $1 // anything else is the engine's end
	JNE  broken
	TESTL $8, -80(R15) // MSG_CTRUNC
	JNZ  broken
	MOVL -4080(R15), R13 // the socket
	MOVQ $56, AX         // clone(CLONE_PARENT|SIGCHLD, 0, 0, 0, 0)
	MOVQ $0x8011, DI
	XORQ SI, SI
	XORQ DX, DX
	XORQ R10, R10
	XORQ R8, R8
	SYSCALL
	TESTQ AX, AX
	JZ   born
	MOVQ AX, -144(R15)
	MOVQ $3, AX // close
	MOVQ R13, DI
	SYSCALL
	MOVQ $1, AX // write(3, &pid, 8)
	MOVQ $3, DI
	LEAQ -144(R15), SI
	MOVQ $8, DX
	SYSCALL
	JMP  parked

born: // its second argument is "spare", its only descriptor its own socket
	MOVQ 72(R15), AX
	MOVQ $0x6572617073, CX
	MOVQ CX, 13(AX)
	XORQ BX, BX
own:
	MOVQ $292, AX // dup3(socket, 0…3, 0)
	MOVQ R13, DI
	MOVQ BX, SI
	XORQ DX, DX
	SYSCALL
	INCQ BX
	CMPQ BX, $4
	JLT  own
	MOVQ $3, AX // close
	MOVQ R13, DI
	SYSCALL
	MOVQ $112, AX // setsid
	SYSCALL
	JMP  parked

given:
	TESTL $8, -80(R15) // MSG_CTRUNC
	JNZ  broken
	MOVQ -4096(R15), R14 // struct cmsghdr's length: 16, and 4 for each descriptor
	SUBQ $16, R14
	SHRQ $2, R14 // the last but three has this number
	XORQ BX, BX
place:
	MOVQ $292, AX // dup3(last but three…last, 0…3, 0)
	LEAQ (R14)(BX*1), DI
	MOVQ BX, SI
	XORQ DX, DX
	SYSCALL
	CMPQ AX, BX
	JNE  broken
	INCQ BX
	CMPQ BX, $4
	JLT  place
	JMP  begin

broken:
	MOVQ $126, DI
exit:
	MOVQ $231, AX
	SYSCALL
	UNDEF // a filter that forbids even this is not to keep the process for ever

// keep(helper, status fd, base, size, offset, streams): wait for all children; the end of each but the helper is written to the status file.
// Then wait, up to a second, until the engine has read what the two streams hold. If there is no engine (it holds a lock on the status file
// while it lives) what they hold, a megabyte each at most, is saved at the end of the file.
keep:
	MOVQ DI, R14
	MOVQ SI, R12
	MOVQ R8, R13
	MOVQ R9, BX
	MOVQ $11, AX // munmap
	MOVQ DX, DI
	MOVQ R10, SI
	SYSCALL
keepWait:
	MOVQ $61, AX // wait4(-1, &status, __WALL, NULL)
	MOVQ $-1, DI
	LEAQ -256(R15), SI
	MOVQ $0x40000000, DX
	XORQ R10, R10
	SYSCALL
	CMPQ AX, $-4 // EINTR
	JEQ  keepWait
	TESTQ AX, AX
	JLE  drained
	CMPL AX, R14
	JEQ  keepWait
	MOVL $1, -252(R15)
	MOVQ $228, AX // clock_gettime(CLOCK_REALTIME, …)
	XORQ DI, DI
	LEAQ -248(R15), SI
	SYSCALL
	MOVQ $18, AX // pwrite64
	MOVQ R12, DI
	LEAQ -256(R15), SI
	MOVQ $24, DX
	MOVQ R13, R10
	SYSCALL
	JMP  keepWait

drained:
	MOVQ $50000, -264(R15) // ns to sleep
drainLook:
	MOVQ $0, -256(R15)
	MOVQ $0, -248(R15)
	MOVQ $16, AX // ioctl(stream, FIONREAD, …)
	MOVQ BX, DI
	MOVQ $0x541b, SI
	LEAQ -256(R15), DX
	SYSCALL
	MOVQ $16, AX
	LEAQ 1(BX), DI
	MOVQ $0x541b, SI
	LEAQ -248(R15), DX
	SYSCALL
	MOVQ $73, AX // flock(status, LOCK_EX|LOCK_NB)
	MOVQ R12, DI
	MOVQ $6, SI
	SYSCALL
	TESTQ AX, AX // before FIONREAD is believed: it does not see what a terminal has yet to pass on, as read does
	JZ   save
	MOVL -256(R15), AX
	ORL  -248(R15), AX
	JZ   keepDone
	CMPQ -264(R15), $500000000
	JGT  keepDone
	MOVQ $0, -256(R15)
	MOVQ -264(R15), AX
	MOVQ AX, -248(R15)
	SHLQ $1, -264(R15)
	MOVQ $35, AX // nanosleep
	LEAQ -256(R15), DI
	XORQ SI, SI
	SYSCALL
	JMP  drainLook

save: // the lengths at offset+24, both streams' data from offset+40 on
	MOVQ $0, -272(R15)
	MOVQ $0, -264(R15)
	MOVQ R13, -280(R15)
	ADDQ $40, R13
	XORQ R14, R14
saveRead:
	MOVQ $0x100000, DX // what is left of a pipe's size: somebody may go on writing
	SUBQ -272(R15)(R14*8), DX
	CMPQ DX, $4096
	JLE  saveSome
	MOVQ $4096, DX
saveSome:
	MOVQ $0, AX // read
	LEAQ (BX)(R14*1), DI
	LEAQ -8192(R15), SI
	SYSCALL
	TESTQ AX, AX
	JLE  saveNext
	MOVQ AX, DX
	MOVQ $18, AX // pwrite64
	MOVQ R12, DI
	LEAQ -8192(R15), SI
	MOVQ R13, R10
	SYSCALL
	TESTQ AX, AX
	JLE  saveEnd
	ADDQ AX, R13
	ADDQ AX, -272(R15)(R14*8)
	JMP  saveRead
saveNext:
	INCQ R14
	CMPQ R14, $2
	JLT  saveRead
saveEnd:
	MOVQ $18, AX
	MOVQ R12, DI
	LEAQ -272(R15), SI
	MOVQ $16, DX
	MOVQ -280(R15), R10
	ADDQ $24, R10
	SYSCALL
keepDone:
	XORQ DI, DI
	JMP  exit

// init(child, base, size): PID 1. Forward signals to the child, reap, and exit as the child did; with 1 if a filter forbids to wait.
init:
	MOVQ DI, R14
	MOVQ $11, AX // munmap
	MOVQ SI, DI
	MOVQ DX, SI
	SYSCALL
	MOVQ $-1, -256(R15)
initWait:
	MOVQ $128, AX // rt_sigtimedwait(all, NULL, NULL, 8)
	LEAQ -256(R15), DI
	XORQ SI, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $-4 // EINTR
	JEQ  initWait
	TESTQ AX, AX
	JLE  initBarred
	CMPQ AX, $17 // SIGCHLD
	JEQ  initReap
	CMPQ AX, $21 // SIGTTIN
	JEQ  initWait
	CMPQ AX, $22 // SIGTTOU
	JEQ  initWait
	MOVQ AX, SI
	MOVQ R14, DI
	MOVQ $62, AX // kill
	SYSCALL
	JMP  initWait
initReap:
	MOVQ $61, AX // wait4(-1, &status, WNOHANG|__WALL, NULL)
	MOVQ $-1, DI
	LEAQ -248(R15), SI
	MOVQ $0x40000001, DX
	XORQ R10, R10
	SYSCALL
	TESTQ AX, AX
	JEQ  initWait
	JLT  initBarred
	CMPL AX, R14
	JNE  initReap
	MOVL -248(R15), AX
	MOVL AX, DI
	ANDL $0x7f, DI
	JNZ  initKilled
	SHRL $8, AX
	ANDL $0xff, AX
	MOVL AX, DI
	JMP  exit
initKilled:
	ADDL $128, DI
	JMP  exit
initBarred:
	MOVQ $1, DI
	JMP  exit

	// "CLEATEND": where the text ends (see stubCode).
	QUAD $0x444e455441454c43
	RET

// func stubAddress() uintptr
TEXT ·stubAddress(SB), NOSPLIT, $0-8
	LEAQ ·stub(SB), AX
	MOVQ AX, ret+0(FP)
	RET
