package image

import "github.com/moby/moby/api/types/registry"

// PullRequest says what to pull.
type PullRequest struct {
	// Ref is a name in any spelling: "nginx", "nginx:1.27", "host:5000/x@sha256:…".
	Ref string
	// Tag, if not empty, is the tag or the digest to pull, and overrides Ref's. If
	// neither has one, every tag of the repository is pulled.
	Tag string
	// Platform is "os[/arch[/variant]]"; "" is the engine's own platform.
	Platform string
	// AuthConfig is sent only to the registry that Ref names, never to a mirror. It
	// may be nil.
	AuthConfig *registry.AuthConfig
}

// LoadOptions are the choices of [Service.Load].
type LoadOptions struct {
	// Quiet leaves out the progress records, not the "Loaded image" ones.
	Quiet bool
	// Platforms limits what is loaded from multi-platform archives, "os/arch[/variant]"
	// each; empty is all that the archive holds.
	Platforms []string
}

// ListRequest says what [Service.List] shall give.
type ListRequest struct {
	// SharedSize fills Summary.SharedSize; it is -1 otherwise.
	SharedSize bool
	// Manifests fills Summary.Manifests.
	Manifests bool
	// Filters are Docker's: before, dangling, label, reference, since, until. Any
	// other is refused by name.
	Filters map[string][]string
}

// User is a container that uses an image.
type User struct {
	ContainerID string
	Running     bool
	// Images are the image as the container has it: for one platform, or for several. Of each, what [Service.Lower] reads
	// is set.
	Images []*Image
}

// RemoveOptions are the choices of [Service.Remove].
type RemoveOptions struct {
	// Force removes names in spite of stopped containers, and all names of an id.
	Force bool
	// Unused is for an id that was found to be of no use: all of its names go, unless a
	// container, running or not, uses the image by now.
	Unused bool
	// Nameless has an id stay that has a name by now.
	Nameless bool
}
