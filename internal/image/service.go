package image

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/cleatlabs/cleat/internal/failure"
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
	// events (pull, load, tag, untag, delete), id and name what Docker gives as the
	// event's actor and its name attribute. It must not block.
	Events func(action, id, name string)
	// MaxDownloads is how many layers are downloaded at a time, by all pulls
	// together; 0 is 3, as dockerd's --max-concurrent-downloads.
	MaxDownloads int
	// MaxDownloadAttempts is how often a layer is tried to be downloaded; 0 is 5, as
	// dockerd's --max-download-attempts.
	MaxDownloadAttempts int
	// MaxUploads is how many layers are sent at a time, by all pushes together; 0 is 5,
	// as dockerd's --max-concurrent-uploads.
	MaxUploads int
}

// Service is the engine's set of images.
type Service struct {
	store    *store.Store
	registry *registryclient.Client
	events   func(action, id, name string)

	host      platforms.MatchComparer // what this machine runs, best first
	downloads atomic.Pointer[limiter]
	uploads   atomic.Pointer[limiter]
	attempts  atomic.Int64 // of a download
	unpacks   *semaphore.Weighted
	transfers store.KeyedLock // one blob, and one layer, is brought in once at a time

	current atomic.Pointer[catalog]
	naming  sync.Mutex // held by who gives names to what was built, so that equal builds see each other's
	layers  layers
}

// New makes a service on an opened store.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Events == nil {
		cfg.Events = func(string, string, string) {}
	}
	if cfg.MaxDownloads <= 0 {
		cfg.MaxDownloads = 3
	}
	if cfg.MaxDownloadAttempts <= 0 {
		cfg.MaxDownloadAttempts = 5
	}
	if cfg.MaxUploads <= 0 {
		cfg.MaxUploads = 5
	}
	parallel := int64(max(2, min(8, runtime.NumCPU())))
	s := &Service{
		store:    cfg.Store,
		registry: cfg.Registry,
		events:   cfg.Events,
		host:     platforms.Default(),
		unpacks:  semaphore.NewWeighted(parallel),
	}
	s.SetMaxDownloads(cfg.MaxDownloads)
	s.SetMaxDownloadAttempts(cfg.MaxDownloadAttempts)
	s.SetMaxUploads(cfg.MaxUploads)
	if err := s.loadLayers(s.store.Context(ctx)); err != nil {
		return nil, err
	}
	return s, nil
}

// limiter bounds how many layers are on their way at the same time.
type limiter struct {
	*semaphore.Weighted
	max int
}

// SetMaxDownloads bounds the downloads of the pulls that begin from now on to n layers
// at a time, all of them together.
func (s *Service) SetMaxDownloads(n int) {
	s.downloads.Store(&limiter{semaphore.NewWeighted(int64(n)), n})
}

// SetMaxDownloadAttempts bounds how often a download is tried, of those that fail from now on.
func (s *Service) SetMaxDownloadAttempts(n int) { s.attempts.Store(int64(n)) }

// SetMaxUploads bounds the uploads of the pushes that begin from now on in the same way.
func (s *Service) SetMaxUploads(n int) {
	s.uploads.Store(&limiter{semaphore.NewWeighted(int64(n)), n})
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
	// Manifest is the manifest of this platform.
	Manifest ocispec.Descriptor
	// ChainID names the unpacked layers, "" for an image without layers.
	ChainID digest.Digest
}

// Resolve finds an image by name, id or id prefix, and the variant of it for platform
// ("os[/arch[/variant]]"). "" is the engine's own platform, or else the only one that
// is there. An unknown image is an errdefs.ErrNotFound that reads `No such image: …`.
// Once resolved, an image costs no disk access until some image's name changes.
func (s *Service) Resolve(ctx context.Context, ref, platform string) (*Image, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	key := resolveKey{ref, platform}
	if img, ok := c.resolved.Load(key); ok {
		return img.(*Image), nil
	}
	m, v, err := s.pick(ctx, c, ref, platform)
	if err == nil {
		err = s.mustHaveLayers(s.store.Context(ctx), m, v)
	}
	if err != nil {
		return nil, err
	}
	if t := v.config.RootFS.Type; t != "" && t != "layers" {
		return nil, fmt.Errorf("the image %s has a root file system of the unknown type %q", m.ref(), t)
	}
	img := &Image{
		ID:       m.id(),
		Ref:      m.ref(),
		Config:   v.config,
		Platform: v.platform,
		Manifest: v.desc,
		ChainID:  v.chainID,
	}
	c.resolved.Store(key, img)
	return img, nil
}

// mustHaveLayers refuses what is left of a pull that failed, where another platform of the image was here before.
func (s *Service) mustHaveLayers(ctx context.Context, m *match, v *variant) error {
	if there, err := s.unpacked(ctx, v.chainID); err != nil || there {
		return err
	}
	for _, l := range v.manifest.Layers {
		_, err := s.store.Content.Info(ctx, l.Digest)
		if errdefs.IsNotFound(err) {
			return failure.NotFound("image with reference %s was found but its layer %s for %s is not here; pull it again", m.ref(), l.Digest, platforms.FormatAll(v.platform))
		}
		if err != nil {
			return fmt.Errorf("look for the layer %s: %w", l.Digest, err)
		}
	}
	return nil
}

// Failed is why no names can be given until the engine is started again, or nil; see [store.Store.Failed].
func (s *Service) Failed() error { return s.store.Failed() }
