package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

// Pull fetches an image, several layers at a time, unpacks each as it arrives, and
// then gives it its name. The registry is asked even if the name is known here. progress
// gets Docker's messages, one call at a time; it may be nil. Cancelling ctx ends the
// pull; then, and after any error, nothing of it is left. Two pulls of the same layers
// at a time fetch and unpack them once. If the name meant another image before, that
// image stays, without a name.
func (s *Service) Pull(ctx context.Context, req PullRequest, progress func(jsonstream.Message)) error {
	name, all, err := pullName(req.Ref, req.Tag)
	if err != nil {
		return err
	}
	wish, err := parsePlatform(req.Platform)
	if err != nil {
		return err
	}
	p := &pull{s: s, name: name, wish: wish, auth: req.AuthConfig, report: newReporter(progress)}
	if all {
		return p.everyTag(s.store.Context(ctx))
	}
	return p.one(s.store.Context(ctx))
}

type pull struct {
	s      *Service
	name   reference.Named
	wish   *ocispec.Platform
	auth   *registry.AuthConfig
	report *reporter
}

func (p *pull) everyTag(ctx context.Context) error {
	session, err := p.s.registry.Open(p.name, p.auth)
	if err != nil {
		return err
	}
	defer session.Close()
	tags, err := session.Tags(ctx)
	if err != nil {
		return session.Explain(err)
	}
	if len(tags) == 0 {
		return failure.NotFound("the repository %s has no tags", reference.FamiliarName(p.name))
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(p.name, tag)
		if err != nil {
			return err
		}
		one := &pull{s: p.s, name: tagged, wish: p.wish, auth: p.auth, report: newReporter(p.report.send)}
		if err := one.one(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *pull) one(ctx context.Context) error {
	session, err := p.s.registry.Open(p.name, p.auth)
	if err != nil {
		return err
	}
	defer session.Close()
	target, err := session.Resolve(ctx)
	if err != nil {
		return session.Explain(err)
	}
	switch {
	case target.MediaType == images.MediaTypeDockerSchema1Manifest:
		return errSchema1
	case !images.IsManifestType(target.MediaType) && !images.IsIndexType(target.MediaType):
		return failure.Invalid("%s is not an image: what the registry at %s gave is of the type %q", reference.FamiliarString(p.name), session.Address(), target.MediaType)
	}
	p.report.message(tagOrDigest(p.name), "Pulling from "+reference.Path(p.name))
	newer, err := p.bring(ctx, session, target)
	if err != nil {
		return err
	}
	p.report.message("", "Digest: "+target.Digest.String())
	if newer {
		p.report.message("", "Status: Downloaded newer image for "+reference.FamiliarString(p.name))
	} else {
		p.report.message("", "Status: Image is up to date for "+reference.FamiliarString(p.name))
	}
	p.s.events("pull", reference.FamiliarString(p.name), reference.FamiliarName(p.name))
	return nil
}

// bring makes target present and named. newer is false if it was both already.
func (p *pull) bring(ctx context.Context, session *registryclient.Session, target ocispec.Descriptor) (newer bool, err error) {
	s := p.s
	c, err := s.catalog(ctx)
	if err != nil {
		return false, err
	}
	known, named := c.names[p.name.String()]
	newer = !named || known.Target.Digest != target.Digest && pushedAs(known) != target.Digest
	if !newer {
		whole, err := s.whole(ctx, c, known.Target, p.wish)
		if err != nil || whole {
			return false, err
		}
	}
	fetcher, err := session.Fetcher(ctx)
	if err != nil {
		return false, session.Explain(err)
	}
	leased, done, err := s.store.WithTemporaryLease(ctx)
	if err != nil {
		return false, s.explainWrite(err, target)
	}
	// The collector takes what a failed pull leaves in its lease.
	defer func() {
		done()
		if err != nil {
			s.store.ScheduleGC()
		}
	}()
	t := &transfer{s: s, report: p.report, fetcher: fetcher, session: session, source: p.name, wish: p.wish, extracting: statusExtracting, done: statusPulled}
	if err := t.run(leased, target); err != nil {
		return false, session.Explain(err)
	}
	record.Failpoint("image.pull.after-transfer")
	if err := s.setName(leased, p.name.String(), target, ""); err != nil {
		return false, s.explainWrite(fmt.Errorf("name the image %s: %w", p.name, err), target)
	}
	record.Failpoint("image.pull.after-name")
	if t.plain() {
		// The registry has it uncompressed, as it is here.
		img := images.Image{Name: p.name.String(), Target: target}
		if err := s.noteDigest(leased, img, target.Digest); err != nil {
			return newer, s.explainWrite(fmt.Errorf("note the digest of %s: %w", p.name, err), target)
		}
	}
	return newer, nil
}

// whole reports whether the variant of an image that a pull would fetch is here, with
// all blobs and unpacked.
func (s *Service) whole(ctx context.Context, c *catalog, target ocispec.Descriptor, wish *ocispec.Platform) (bool, error) {
	variants, err := s.variantsOf(ctx, c, target)
	if err != nil {
		return false, err
	}
	v := s.choose(variants, wish)
	if v == nil {
		return false, nil
	}
	if wish == nil && !s.host.Match(v.platform) && len(variants) > 1 {
		return false, nil // another platform's variant was pulled before; this one's was not
	}
	size, err := s.sizeOf(ctx, c, v)
	if err != nil || !size.available {
		return false, err
	}
	return s.unpacked(ctx, v.chainID)
}

func tagOrDigest(name reference.Named) string {
	switch n := name.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return ""
}

// setName makes name mean target, in one commit. An image that loses its last name to
// it stays as a dangling one; one that was dangling is so no longer. If the image is
// known by another name, from, that name must still be there.
func (s *Service) setName(ctx context.Context, name string, target ocispec.Descriptor, from string) error {
	return s.moveName(ctx, name, target, from, s.keepDangling)
}

// replaceName is setName for an image that nobody will miss.
func (s *Service) replaceName(ctx context.Context, name string, target ocispec.Descriptor, from string) error {
	defer s.store.ScheduleGC()
	return s.moveName(ctx, name, target, from, func(context.Context, images.Image) error { return nil })
}

func (s *Service) moveName(ctx context.Context, name string, target ocispec.Descriptor, from string, keep func(context.Context, images.Image) error) error {
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	return s.store.Update(ctx, func(ctx context.Context) error {
		names := s.store.Images
		if from != "" {
			if img, err := names.Get(ctx, from); err != nil || img.Target.Digest != target.Digest {
				return failure.NotFound("No such image: %s", familiar(from))
			}
		}
		old, err := names.Get(ctx, name)
		switch {
		case errdefs.IsNotFound(err):
			_, err = names.Create(ctx, images.Image{Name: name, Target: target})
		case err != nil:
		case old.Target.Digest == target.Digest:
			// What was noted of the image at the registry still holds.
			_, err = names.Update(ctx, images.Image{Name: name, Target: target, Labels: old.Labels})
		default:
			if err = keep(ctx, old); err == nil {
				_, err = names.Update(ctx, images.Image{Name: name, Target: target})
			}
		}
		if err != nil {
			return err
		}
		if isDangling(name) {
			return nil
		}
		err = names.Delete(ctx, danglingName(target.Digest))
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// keepDangling gives an image that is about to lose the name img its place among the
// dangling ones, if that is its last name. It runs inside of a transaction.
func (s *Service) keepDangling(ctx context.Context, img images.Image) error {
	list, err := s.store.Images.List(ctx, "target.digest=="+img.Target.Digest.String())
	if err != nil {
		return err
	}
	for _, other := range list {
		if other.Name != img.Name {
			return nil
		}
	}
	_, err = s.store.Images.Create(ctx, images.Image{Name: danglingName(img.Target.Digest), Target: img.Target, Labels: img.Labels})
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}
