// Package assemble makes an engine out of its parts: it decides from flags and
// host what each service is to work with, starts them in order, serves the API
// and takes everything down again in reverse.
//
// Promises:
//   - One data root and one exec root have one engine: a second is refused and
//     told the first one's PID; what a dead engine left (pidfile, sockets, lock)
//     is taken over.
//   - SIGTERM and SIGINT end the engine and not its containers, unless systemd says
//     that the machine goes down: then they are stopped first. Nor does anything
//     worse end them: the next engine adopts them.
//   - dockerd's flags are all known: each acts, is accepted with a warning because
//     its effect is there all the same, or is refused by name.
package assemble
