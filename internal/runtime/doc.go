// Package runtime starts containers, executes processes in them, and adopts those that earlier engines have started.
//
// Start compiles a Spec into a launch program (package launch) and runs it: a keeper (package keeper), which clones the
// container's first process, which builds its own mounts, gives up its privileges and executes the command. What the
// program does is decided and opened before the fork; Dump prints it.
//
// What it promises:
//   - A path of the container is resolved inside the container, by openat2; mounts are attached by descriptor. No link
//     in an image, in a volume or in a race with another container leads one outside.
//   - A process holds nothing of the host: its descriptors are stdin, stdout and stderr, its signal state is the
//     default, its executable cannot be written to, and a process that joins a container has dropped its privileges
//     before it appears there.
//   - An error leaves nothing behind: no process, directory, control group or mount.
//   - The engine can end at any time. Processes go on, and Adopt finds their streams, terminals and exit codes, and the
//     output that nobody had read, by their Records; Sweep removes what was being started.
package runtime
