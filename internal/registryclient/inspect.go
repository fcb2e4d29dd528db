package registryclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxDocument bounds the manifests, indexes and configs that are read into memory.
const maxDocument = 16 << 20

// Inspect tells what the name means at the registry and for which platforms that is. Its
// error is the user's: credentials that were refused are errdefs.ErrUnauthenticated.
func (s *Session) Inspect(ctx context.Context) (*registry.DistributionInspect, error) {
	found, err := s.inspect(ctx)
	if err == nil {
		return found, nil
	}
	hasStatus, status := statusOf(err)
	if denied(err, hasStatus, status) {
		return nil, failure.New(errdefs.ErrUnauthenticated, "%w", s.Explain(err))
	}
	return nil, s.Explain(err)
}

func (s *Session) inspect(ctx context.Context) (*registry.DistributionInspect, error) {
	target, err := s.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	found := &registry.DistributionInspect{Descriptor: target, Platforms: []ocispec.Platform{}}
	switch {
	case images.IsIndexType(target.MediaType):
		var index ocispec.Index
		if err := s.document(ctx, target, &index); err != nil {
			return nil, err
		}
		for _, m := range index.Manifests {
			if m.Platform != nil {
				found.Platforms = append(found.Platforms, *m.Platform)
			}
		}
	case images.IsManifestType(target.MediaType):
		var manifest ocispec.Manifest
		if err := s.document(ctx, target, &manifest); err != nil {
			return nil, err
		}
		var config ocispec.Image
		if !images.IsConfigType(manifest.Config.MediaType) {
			break // an artifact is for no platform
		}
		if err := s.document(ctx, manifest.Config, &config); err != nil {
			return nil, err
		}
		if config.OS != "" {
			found.Platforms = append(found.Platforms, config.Platform)
		}
	default:
		return nil, failure.Invalid("%s is not an image: what the registry at %s gave is of the type %q", s.name, s.Address(), target.MediaType)
	}
	return found, nil
}

// document reads a JSON document, whose digest must be right.
func (s *Session) document(ctx context.Context, desc ocispec.Descriptor, v any) error {
	if desc.Size > maxDocument {
		return failure.Invalid("%s of %d bytes is too large for a %s", desc.Digest, desc.Size, desc.MediaType)
	}
	f, err := s.Fetcher(ctx)
	if err != nil {
		return err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxDocument+1))
	if err != nil {
		return err
	}
	if err := desc.Digest.Validate(); err != nil || desc.Digest.Algorithm().FromBytes(b) != desc.Digest {
		return failure.New(errdefs.ErrDataLoss, "what the registry at %s sent does not match the digest %s that it promised", s.Address(), desc.Digest)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s at %s is not a valid %s: %w", desc.Digest, s.Address(), desc.MediaType, err)
	}
	return nil
}
