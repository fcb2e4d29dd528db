package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/store"
)

// Config is what a [Service] stands on.
type Config struct {
	// Store holds blobs, names, layers and leases.
	Store *store.Store
	// Registry talks to registries.
	Registry *registryclient.Client
	// Events, if not nil, is told of every change: action is one of Docker's image
	// events ("pull", "load", "tag", "untag", "delete"), id the image's id and name
	// the familiar name that the event is about. It must not block.
	Events func(action, id, name string)
}

// Service is the engine's set of images.
type Service struct {
	cfg Config
}

// New makes a service on an opened store.
func New(ctx context.Context, cfg Config) (*Service, error) {
	return &Service{cfg: cfg}, nil
}

// Image is one platform's image, resolved from a name or id: all that a container
// needs to be created. It is immutable and shared; do not change what it points at.
type Image struct {
	// ID is the digest of the target descriptor that the name points at.
	ID digest.Digest
	// Ref is the familiar form of what was asked for: "nginx:latest", or the id
	// if it was asked for by id.
	Ref string
	// Config is the image's configuration with Docker's extensions (Healthcheck,
	// OnBuild, Shell).
	Config dockerspec.DockerOCIImage
	// Platform is the platform that the image was made for.
	Platform ocispec.Platform
	// Target is the descriptor that the name points at: an index or a manifest.
	Target ocispec.Descriptor
	// Manifest is the manifest of this platform.
	Manifest ocispec.Descriptor
	// ChainID names the unpacked layers, "" for an image without layers.
	ChainID digest.Digest
}

// PullRequest says what to pull.
type PullRequest struct {
	// Ref is a name in any spelling: "nginx", "nginx:1.27", "host:5000/x@sha256:…".
	Ref string
	// Tag, if not empty, is the tag or the digest to pull, and overrides Ref's tag.
	// If both are without one, "latest" is pulled.
	Tag string
	// Platform is "os[/arch[/variant]]"; "" is the engine's own platform.
	Platform string
	// AuthConfig is sent only to the registry that Ref names, never to a mirror.
	AuthConfig *registry.AuthConfig
}

// LoadOptions are the choices of [Service.Load].
type LoadOptions struct {
	// Quiet leaves out the progress records, not the "Loaded image" ones.
	Quiet bool
	// Platforms limits what is loaded from multi-platform archives ("os/arch[/variant]"
	// each); empty is all that the archive holds.
	Platforms []string
}

// ListRequest says what [Service.List] shall give.
type ListRequest struct {
	// All is accepted for the API's sake: there are no intermediate images to hide.
	All bool
	// SharedSize fills Summary.SharedSize; it is -1 otherwise.
	SharedSize bool
	// Manifests fills Summary.Manifests.
	Manifests bool
	// Filters are Docker's: before, dangling, label, reference, since, until.
	Filters map[string][]string
}

// User is a container that uses an image.
type User struct {
	ContainerID string
	Name        string
	Running     bool
}

// RemoveOptions are the choices of [Service.Remove].
type RemoveOptions struct {
	// Force removes names in spite of stopped containers, and all names of an id.
	Force bool
	// NoPrune keeps untagged parents. Images have no parents in this store, so
	// nothing is ever pruned and it changes nothing.
	NoPrune bool
}

var errSkeleton = errdefs.ErrNotImplemented

// Close waits for background work and drops what is cached. The store stays open.
func (s *Service) Close() error { return nil }

// Pull fetches an image and unpacks it, asking the registry even if the name is
// known here.
func (s *Service) Pull(ctx context.Context, req PullRequest, progress func(jsonstream.Message)) error {
	return errSkeleton
}

// Load takes all images of an archive (docker save or OCI layout).
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions, progress func(jsonstream.Message)) error {
	return errSkeleton
}

// Tag gives the image src the further name repo:tag ("" is "latest").
func (s *Service) Tag(ctx context.Context, src, repo, tag string) error { return errSkeleton }

// List describes all images. uses, if not nil, gives the number of containers by
// image id.
func (s *Service) List(ctx context.Context, req ListRequest, uses func() map[string]int64) ([]image.Summary, error) {
	return nil, errSkeleton
}

// Inspect describes one image. platform "" is the engine's own, or else the only one
// that is there.
func (s *Service) Inspect(ctx context.Context, ref, platform string) (*image.InspectResponse, error) {
	return nil, errSkeleton
}

// History gives the layers of an image, newest first.
func (s *Service) History(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error) {
	return nil, errSkeleton
}

// Remove removes a name or an image by Docker's rules. users gives the containers
// that use an image.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions, users func(imageID string) []User) ([]image.DeleteResponse, error) {
	return nil, errSkeleton
}

// Resolve finds an image by name, id or id prefix.
func (s *Service) Resolve(ctx context.Context, ref, platform string) (*Image, error) {
	return nil, errSkeleton
}

// Lower gives the directories that are the image's layers, topmost first, for the
// lower side of an overlay. It makes sure that they are unpacked, and holds them (one
// lease per image) until [Service.ReleaseUnused] or [Service.Reconcile] finds the image
// unused and without a name. Only ID, ChainID and, for an image that was never
// unpacked, Manifest of img are read: a container's record may keep just these.
func (s *Service) Lower(ctx context.Context, img *Image) ([]string, error) {
	return nil, errSkeleton
}

// Hold counts a container in the making as a user of the image, so that a removal
// between Resolve and the writing of the container's record cannot take the layers
// away. The returned function ends it and may be called more than once.
func (s *Service) Hold(imageID digest.Digest) func() { return func() {} }

// ReleaseUnused lets go of the layers of images that have no name any more and for
// which inUse is false. It only looks in memory when there is nothing to let go.
func (s *Service) ReleaseUnused(ctx context.Context, inUse func(imageID string) bool) error {
	return errSkeleton
}

// Reconcile does the same at engine start, for the leases left by earlier engines.
func (s *Service) Reconcile(ctx context.Context, inUse map[string]struct{}) error { return errSkeleton }
