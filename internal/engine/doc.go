// Package engine is the verbs of containers: create, start, stop, exec, attach,
// wait, remove, list, inspect and the rest, with Docker's semantics.
//
// Promises:
//   - Every verb is a method of a small type that is handed only the services it
//     uses; New wires them, and nothing here knows HTTP.
//   - Requests are checked whole before anything is made: a failed create leaves
//     no container, no reserved name and no anonymous volume; a failed start
//     leaves the container as it was, with the reason in its state.
//   - An option that is not supported is refused by its name (fields.go holds the
//     list and a test holds it complete); none is accepted and ignored.
//   - A container that is busy or stuck never delays queries or other containers.
//   - Containers outlive the engine: when its tasks are told to end they are left
//     running, and Recovery takes them over again with what happened meanwhile.
//
// Errors carry the errdefs class that the API turns into a status, and Docker's
// text where clients match on it. All methods may be called concurrently.
package engine
