// Package build is BuildKit in the engine's process: it solves builds over the engine's
// own image store, runs their steps through an executor that it is handed, and speaks
// BuildKit's control API to clients such as buildx.
//
// What it promises:
//
//   - An engine that never builds pays nothing: the databases are opened, and
//     BuildKit's goroutines started, at the first use.
//   - What a build makes is an image like any other: its blobs, layers and names lie in
//     the store of internal/store, its layers as plain tar archives that are compressed
//     only when they leave the machine.
//   - `# syntax=docker/dockerfile:1` needs no registry: it is answered by the Dockerfile
//     frontend that is built in. Any other frontend is fetched and run, in a container.
//   - After a kill -9 at any instant the next [Builder] has the cache of what was
//     finished before, and nothing of what was under way.
package build
