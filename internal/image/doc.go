// Package image holds the images of the engine: pulling, loading, naming,
// describing and removing them, and handing out the layer directories that a
// container's overlay stands on.
//
// What it promises:
//
//   - One spelling rule. Every method normalises a name in the same way
//     ("nginx" is "docker.io/library/nginx:latest"), so an image stored under one
//     spelling is found under every equal one, and a digest in a name is always
//     checked together with the repository.
//   - The id of an image is the digest of its target descriptor (the index or
//     manifest that the name points at), as in Docker's containerd image store.
//   - A pull or load that fails, is cancelled or is killed leaves nothing behind:
//     no lease, no partial blob, no half-unpacked layer, no name.
//   - The layers that a container stands on stay on disk while it needs them,
//     whatever happens to the image's names (see [Service.Lower]).
//   - [Service.Resolve] and a repeated [Service.Lower] touch no disk: they stand
//     on the path of every container create and start.
//
// All methods may be called at the same time from many goroutines.
package image
