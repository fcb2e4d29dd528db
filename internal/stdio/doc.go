// Package stdio copies what a process writes to its log and to the clients that
// are attached to it, and what a client types to the process.
//
// # What it promises
//
// One reader per output stream. Nothing that the process wrote is lost or
// logged twice, also if the engine is killed with SIGKILL at any instant and a
// new engine starts a Pump on the same directory and the same pipes.
//
// # How
//
// A Pump with a Sink moves the bytes of a pipe into a journal, a small file on
// tmpfs, with splice(2). The kernel takes bytes out of the pipe and adds them to
// the file in one system call, so the journal's size says exactly what was
// consumed. Whole lines are then read from the journal and appended to the
// Sink, and one small write to a state file records both how far the journal
// has been appended and where the log then ended. After a SIGKILL the log is cut
// back to the recorded end and the rest of the journal is appended again.
//
// Unfinished lines stay in the journal until their newline, their 16 KiB limit
// or the end of the stream, so they need no other memory. A terminal cannot be
// spliced; its bytes are read straight into a shared mapping of its journal.
//
// Live clients are served from the same batch right after it is in the log: see
// Hub. Without a Sink (execs, log driver none) there is no journal at all.
//
// An idle Pump holds one goroutine and one file descriptor per stream; journals
// and state are made at the first output, buffers are borrowed from a Pool.
package stdio
