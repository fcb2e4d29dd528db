// Package cli is the cleat command: Docker's commands, flags, output and exit
// codes over the Engine API, so that scripts and fingers need not learn anything
// new, and `cleat engine` for the engine itself.
//
// It speaks to any engine with the Docker API, asks for nothing over the network
// before a command needs it, and links no engine code. What scripts look at is
// kept to the byte: ids and tables on stdout, everything else on stderr, exit
// codes 125 (the engine refused), 126 and 127 (the program could not be started),
// and the program's own.
package cli
