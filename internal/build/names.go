package build

import (
	"context"
	"regexp"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/store"
)

// Images is the engine's set of images, as far as builds add to it.
type Images interface {
	// NameBuilt gives an image names, or moves them to it, and returns the image that has them then: unless exact is set
	// that may be an earlier one which differs in nothing but when it was made.
	NameBuilt(ctx context.Context, names []string, image ocispec.Descriptor, exact bool) (ocispec.Descriptor, error)
	// ByID is the image whose id begins with the digits, an errdefs.ErrNotFound where none
	// or more than one does.
	ByID(ctx context.Context, digits string) (ocispec.Descriptor, error)
	// Unpack unpacks the layers of a manifest that are not yet.
	Unpack(ctx context.Context, manifest ocispec.Descriptor) error
	// Built tells of an image that was made, and of its names. It must not block.
	Built(image ocispec.Descriptor, names []string)
}

// names is the store's names of images for BuildKit, whose contexts have no namespace.
// Names are given by the engine's set of images, which knows what becomes of an image
// that loses one.
type names struct {
	s      *store.Store
	images Images
	settle func() error // see Steps; or nil
}

// meantAsID is what BuildKit makes of an image's id in FROM or --from: as the API tells
// it, as Docker's SDK for Python shortens it (ten digits), and as `images` lists it.
var meantAsID = regexp.MustCompile(`^docker\.io/library/(?:sha256:([0-9a-f]{10,64})|([0-9a-f]{12,63}):latest)$`)

// Get finds an image by its name, and else by the id that was completed to one: programs
// build upon what they have just built, which need not have a name.
func (n names) Get(ctx context.Context, name string) (images.Image, error) {
	image, err := n.s.Images.Get(n.s.Context(ctx), name)
	if !errdefs.IsNotFound(err) {
		return image, err
	}
	digits := meantAsID.FindStringSubmatch(name)
	if digits == nil {
		return image, err
	}
	target, notFound := n.images.ByID(ctx, digits[1]+digits[2])
	if notFound != nil {
		return image, err
	}
	return images.Image{Name: name, Target: target}, nil
}

func (n names) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return n.s.Images.List(n.s.Context(ctx), filters...)
}

// naming, in a context, holds the names of an image back until it is complete. It belongs to one export.
type naming struct {
	exact bool // see Images.NameBuilt
	given []string
	image ocispec.Descriptor // set with the first name
}

type namingKey struct{}

// give gives the names that were held back, if there are any. What steps have written is on the disk before. Then image
// is the one that has them.
func (g *naming) give(ctx context.Context, n names) error {
	if len(g.given) == 0 {
		return nil
	}
	if n.settle != nil {
		if err := n.settle(); err != nil {
			return err
		}
	}
	record.Failpoint("build.export.before-name")
	var err error
	g.image, err = n.images.NameBuilt(ctx, g.given, g.image, g.exact)
	return err
}

func (n names) Create(ctx context.Context, image images.Image) (images.Image, error) {
	return n.Update(ctx, image)
}

// Update is called by BuildKit's exporter within imageExport.Export.
func (n names) Update(ctx context.Context, image images.Image, _ ...string) (images.Image, error) {
	held, ok := ctx.Value(namingKey{}).(*naming)
	if !ok {
		held = &naming{exact: true}
	}
	held.given, held.image = append(held.given, image.Name), image.Target
	if ok {
		return image, nil
	}
	return image, held.give(ctx, n)
}

func (n names) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return n.s.Images.Delete(n.s.Context(ctx), name, opts...)
}
