// Package launch compiles and runs launch programs: lists of raw system calls that turn a new process into a container.
//
// A Program is data. It is written into a memfd, and a static executable of a few hundred bytes (the stub:
// position-independent assembly, one file per architecture) maps it at Base and interprets it. No Go code runs in the
// child; nothing is allocated there, and nothing of the engine is shared with it. A program has no conditions but
// these: an operation may name errors to ignore, a fork operation's two sides go different ways, and execve attempts
// remember EACCES for the end. An openat2 of which the kernel says that something moved meanwhile is tried again.
//
// An operation that fails ends the process: it writes the operation's index and errno to the report pipe (ReportFD) and
// exits with 127. All descriptors are close-on-exec, so the end of that pipe without such a report means that the last
// program was executed.
//
// The promises to the process being started: it is not dumpable until its execve, all its signal dispositions are the
// default, all its signals are blocked until the program says otherwise, and its descriptors are exactly those handed
// to Stub.Start.
package launch
