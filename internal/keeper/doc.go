// Package keeper is the contract between the engine and its keepers: the small processes, one for each process the
// engine starts, that outlive the engine.
//
// A keeper is the stub of package launch after it has cloned the container's process. It blocks all signals, stands in
// /, is in no container's control group, is the last that the kernel would kill for memory, and has nothing but these
// descriptors:
//
//	StatusFD  the status file    StdoutFD  read end of stdout, or the terminal's master
//	StderrFD  read end of stderr StdinFD   write end of stdin, if stdin stays open between attached clients
//	HeldFD…   what the engine wants to outlive it besides: sockets inside the container's network namespace
//
// It waits for the process, writes how it ended to the status file, and exits. An engine holds a lock on the status
// file of each of its processes while it lives (Lock). A keeper whose process ends while there is no engine first saves
// the output that nobody has read into the status file, so that the next engine finds it (Rest): as much as a pipe
// holds, as others that have the stream may go on writing. While there is an engine, the keeper lets it read (for a
// second at most). The numbers and the file's format are LayoutVersion 2; a Record
// carries the version, so that each later engine can adopt the keepers of earlier ones. Version 1 had no HeldFD.
//
// A killed keeper does not take its process along: the process goes on, its standard streams end, and how it ended is
// then asked of the kernel (ExitInfo says how far that is possible).
package keeper

// LayoutVersion is the version of the descriptors and of the status file that this engine's keepers have.
const LayoutVersion = 2

// known says whether keepers of this layout can be adopted.
func known(layout int) bool { return layout >= 1 && layout <= LayoutVersion }

// MaxHeld is how many descriptors from HeldFD on a keeper may hold.
const MaxHeld = 2

// What a keeper holds. Descriptors that a process does not need (stderr with a terminal) are closed in its keeper.
const (
	StatusFD = 5 + iota
	StdoutFD // or the terminal's master
	StderrFD
	StdinFD
	// HeldFD is the first of MaxHeld.
	HeldFD
	// FirstTransientFD and all above are closed in the keeper.
	FirstTransientFD = HeldFD + MaxHeld
)
