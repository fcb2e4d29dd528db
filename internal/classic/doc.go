// Package classic is Docker's classic builder (POST /build without BuildKit's session),
// as SDKs, Terraform, testcontainers and DOCKER_BUILDKIT=0 use it, on top of BuildKit: the
// parameters become a solve, and its progress becomes the lines that those clients read
// ("Step 1/3 : FROM busybox", "Successfully built 0123456789ab").
//
// It promises:
//   - A context that a client sends is kept in one unlinked file while the build runs and
//     never unpacked on the host: no entry of a hostile archive is ever a path here.
//   - Parameters and the Dockerfile are checked before anything is sent, so that their
//     errors are statuses; later ones are records.
//   - Each step's header comes before its output, and steps that run at the same time
//     are not mixed.
//
// There are no intermediate images and containers: rm and forcerm have their effect
// without doing anything.
package classic
