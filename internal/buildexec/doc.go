// Package buildexec runs the steps of builds: it is BuildKit's executor, made of the engine's own launch programs,
// control groups and networks.
//
// What it promises:
//   - A step is confined as a container is: the same capabilities, filter of system calls, masked paths and devices.
//     Only a step that BuildKit was allowed to run without confinement (--security=insecure) is not.
//   - Paths of the root filesystem and of mounted directories, which a hostile image or an earlier step has made, are
//     resolved inside them, by file descriptor: no link in them leads a mount, a working directory or a user's entry
//     outside.
//   - All output has been handed over when Run returns, and no process of the step runs on.
//   - What Run makes in the root filesystem to mount things on is gone when it returns, with the times of the
//     directories around it.
//   - Steps do not outlive the engine, in whatever way that ends: a guard kills their control group. What they leave
//     behind then, control groups and files on tmpfs, the next engine's New removes. Their mounts and network
//     namespaces have no name and go with their processes.
//   - A start waits for no disk and runs no program but the one of package launch.
//
// An option that is not supported (CDI devices, BuildKit's proxy network, systemd slices) is refused by name.
package buildexec
