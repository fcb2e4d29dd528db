// Package api is the engine's door: the Docker Engine API, versions 1.22 to
// 1.56, over HTTP/1.1, and BuildKit's own API over HTTP/2.
//
// It promises:
//
//   - Every operation of the newest API description is answered: served, or
//     refused by name with a status and a text that says what is missing.
//   - The engine speaks the newest shapes only. What older clients send and
//     expect (fields, defaults, content types) is translated here and nowhere
//     else, and golden files in testdata hold the answers of each version.
//   - An error becomes an HTTP status in one place, writeError, from its
//     github.com/containerd/errdefs class. Its text reaches the user unchanged
//     as {"message": "..."}.
//   - Lists and maps are [] and {} when empty, never null, and JSON is written
//     without HTML escaping.
//   - A handler ends when its client has gone, except where the client's going
//     must not leave a container half changed: create, start, stop, restart,
//     kill, rename and remove run to their end.
//   - A panic in a handler is answered with 500 and logged; the engine lives.
//
// New returns the http.Handler; Server adds the listening sockets and a
// shutdown that ends streams instead of waiting for them.
package api
