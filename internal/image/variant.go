package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	// maxJSON is how large an index, manifest or config may be to be read into memory.
	maxJSON = 16 << 20
	// maxDocuments is how large those of one image may be together, each as often as an index names it and leastDocument
	// at least: a few that name one another again and again would never have been read.
	maxDocuments  = 32 << 20
	leastDocument = 4 << 10
	// maxHistory is how many steps the making of an image may have had.
	maxHistory = 10_000
)

// The annotations by which builds attach attestations to an index.
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
)

// variant is one manifest of an image: the image for one platform, or something that
// accompanies it.
type variant struct {
	desc ocispec.Descriptor
	kind image.ManifestKind
	// platform is the manifest's, or its config's if the index does not say.
	platform ocispec.Platform
	// attests is the manifest that an attestation is about.
	attests digest.Digest
	// present says that manifest and config are in the store; the fields below are
	// empty otherwise.
	present  bool
	manifest ocispec.Manifest
	config   dockerspec.DockerOCIImage
	chainID  digest.Digest
}

// variantsOf reads all manifests of an image.
func (s *Service) variantsOf(ctx context.Context, c *catalog, target ocispec.Descriptor) ([]variant, error) {
	if v, ok := c.variants.Load(target.Digest); ok {
		return v.([]variant), nil
	}
	v, err := s.readVariants(s.store.Context(ctx), target)
	if err != nil {
		return nil, fmt.Errorf("read the image %s: %w", target.Digest, err)
	}
	c.variants.Store(target.Digest, v)
	return v, nil
}

// variantsOfAny is variantsOf for what goes over all images: none of one that is out of order, as a build's own frontend or
// another program with the image database can make it. It must not keep anybody from the others, nor from its own removal.
func (s *Service) variantsOfAny(ctx context.Context, c *catalog, target ocispec.Descriptor) ([]variant, error) {
	v, err := s.variantsOf(ctx, c, target)
	if errdefs.IsInvalidArgument(err) {
		return nil, nil
	}
	return v, err
}

// maxIndexDepth bounds indexes in indexes; real ones are flat.
const maxIndexDepth = 4

// readVariants reads all manifests of an image, which may be an index of them.
func (s *Service) readVariants(ctx context.Context, target ocispec.Descriptor) ([]variant, error) {
	room := int64(maxDocuments)
	return s.variantsBelow(ctx, target, 0, &room)
}

// variantsBelow is readVariants for what is in an index. room is how many bytes may still be read.
func (s *Service) variantsBelow(ctx context.Context, desc ocispec.Descriptor, depth int, room *int64) ([]variant, error) {
	if *room -= max(desc.Size, leastDocument); *room < 0 {
		return nil, failure.Invalid("the image has more than %d MiB of manifests and configs", maxDocuments>>20)
	}
	if !images.IsIndexType(desc.MediaType) {
		v, err := s.readVariant(ctx, desc)
		*room -= v.manifest.Config.Size
		return []variant{v}, err
	}
	if depth == maxIndexDepth {
		return nil, failure.Invalid("indexes are nested more than %d deep", maxIndexDepth)
	}
	var index ocispec.Index
	if found, err := s.readJSON(ctx, desc, &index); err != nil || !found {
		return nil, err
	}
	var all []variant
	for _, m := range index.Manifests {
		below, err := s.variantsBelow(ctx, m, depth+1, room)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

func (s *Service) readVariant(ctx context.Context, desc ocispec.Descriptor) (variant, error) {
	v := variant{desc: desc, kind: image.ManifestKindImage}
	if desc.Platform != nil {
		v.platform = *desc.Platform
	}
	if desc.Annotations[annotationReferenceType] == "attestation-manifest" {
		v.kind = image.ManifestKindAttestation
		v.attests = digest.Digest(desc.Annotations[annotationReferenceDigest])
	}
	found, err := s.readJSON(ctx, desc, &v.manifest)
	if err != nil || !found {
		return v, err
	}
	if v.kind == image.ManifestKindImage && !images.IsConfigType(v.manifest.Config.MediaType) {
		v.kind = image.ManifestKindUnknown
	}
	if v.kind != image.ManifestKindImage {
		v.present = true
		return v, nil
	}
	if err := checkLayers(desc, len(v.manifest.Layers)); err != nil {
		return v, err
	}
	v.present, err = s.readJSON(ctx, v.manifest.Config, &v.config)
	if err != nil || !v.present {
		return v, err
	}
	if err := checkHistory(v.manifest.Config, len(v.config.History)); err != nil {
		return v, err
	}
	if desc.Platform == nil {
		v.platform = v.config.Platform
	}
	v.platform = platforms.Normalize(v.platform)
	v.chainID = identity.ChainID(v.config.RootFS.DiffIDs)
	return v, nil
}

// readBlob reads a small blob whole. What a descriptor says of its size need not be so.
func (s *Service) readBlob(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxJSON {
		return nil, failure.Invalid("%s of %d bytes is too large for a %s", desc.Digest, desc.Size, desc.MediaType)
	}
	blob, err := s.store.Content.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if blob.Size() != desc.Size {
		return nil, wrongSize(desc, blob.Size())
	}
	text := make([]byte, desc.Size)
	_, err = io.ReadFull(content.NewReader(blob), text)
	return text, err
}

func wrongSize(desc ocispec.Descriptor, size int64) error {
	return failure.Invalid("%s %s has %d bytes, but %d are declared", desc.MediaType, desc.Digest, size, desc.Size)
}

// readJSON reads a blob into v; found is false if the store does not have it.
func (s *Service) readJSON(ctx context.Context, desc ocispec.Descriptor, v any) (found bool, err error) {
	blob, err := s.readBlob(ctx, desc)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(blob, v); err != nil {
		return false, failure.Invalid("%s is not a valid %s: %w", desc.Digest, desc.MediaType, err)
	}
	return true, nil
}

// checkLayers refuses a manifest of so many layers.
func checkLayers(desc ocispec.Descriptor, layers int) error {
	if layers > maxLayers {
		return failure.Invalid("the manifest %s has %d layers, more than %d layers no image can have", desc.Digest, layers, maxLayers)
	}
	return nil
}

// checkHistory refuses a config with so many steps in its history.
func checkHistory(desc ocispec.Descriptor, steps int) error {
	if steps > maxHistory {
		return failure.Invalid("the config %s has a history of %d steps, more than %d steps are not taken", desc.Digest, steps, maxHistory)
	}
	return nil
}

// choose picks the variant to run. Without a wish it is the engine's own platform, or
// else whatever is there; with one, nothing else will do.
func (s *Service) choose(variants []variant, wish *ocispec.Platform) *variant {
	matcher := s.host
	if wish != nil {
		matcher = platforms.Only(*wish)
	}
	var best, any *variant
	for i := range variants {
		v := &variants[i]
		if v.kind != image.ManifestKindImage || !v.present {
			continue
		}
		if any == nil {
			any = v
		}
		if matcher.Match(v.platform) && (best == nil || matcher.Less(v.platform, best.platform)) {
			best = v
		}
	}
	if best == nil && wish == nil {
		return any
	}
	return best
}

// pick finds an image and the variant of it that is meant.
func (s *Service) pick(ctx context.Context, c *catalog, ref, platform string) (*match, *variant, error) {
	wish, err := parsePlatform(platform)
	if err != nil {
		return nil, nil, err
	}
	m, err := c.find(ref)
	if err != nil {
		return nil, nil, err
	}
	variants, err := s.variantsOf(ctx, c, m.target.Target)
	if err != nil {
		return nil, nil, err
	}
	v := s.choose(variants, wish)
	switch {
	case v != nil:
		return m, v, nil
	case wish != nil:
		return nil, nil, failure.NotFound("image with reference %s was found but does not provide the specified platform (%s)", m.ref(), platforms.FormatAll(*wish))
	default:
		return nil, nil, failure.NotFound("image with reference %s was found but none of its content is here; pull it again", m.ref())
	}
}

// variantSize is how much disk a variant takes.
type variantSize struct {
	content   int64 // blobs that are here
	unpacked  int64 // layers that are unpacked
	available bool  // all blobs are here
}

func (z variantSize) total() int64 { return z.content + z.unpacked }

func (s *Service) sizeOf(ctx context.Context, c *catalog, v *variant) (variantSize, error) {
	if z, ok := c.sizes.Load(v.desc.Digest); ok {
		return z.(variantSize), nil
	}
	ctx = s.store.Context(ctx)
	z := variantSize{available: v.present}
	seen := map[digest.Digest]bool{}
	for _, b := range v.blobs() {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		info, err := s.store.Content.Info(ctx, b.Digest)
		switch {
		case errdefs.IsNotFound(err):
			z.available = false
		case err != nil:
			return z, err
		default:
			z.content += info.Size
		}
	}
	usage, err := s.layerUsage(ctx, v)
	if err != nil {
		return z, err
	}
	for _, n := range usage {
		z.unpacked += n
	}
	c.sizes.Store(v.desc.Digest, z)
	return z, nil
}

// blobs are those a variant consists of, here or not; a layer that it has twice is there twice.
func (v *variant) blobs() []ocispec.Descriptor {
	list := append([]ocispec.Descriptor{v.desc}, v.manifest.Layers...)
	if v.manifest.Config.Digest != "" {
		list = append(list, v.manifest.Config)
	}
	return list
}

// layerUsage is the disk space of each unpacked layer, bottom first; 0 for one that is
// not unpacked.
func (s *Service) layerUsage(ctx context.Context, v *variant) ([]int64, error) {
	usage := make([]int64, len(v.config.RootFS.DiffIDs))
	for i, chain := range chainIDs(v.config.RootFS.DiffIDs) {
		u, err := s.store.Snapshots.Usage(ctx, chain.String())
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		usage[i] = u.Size
	}
	return usage, nil
}

// chainIDs names the state after each layer.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
}
