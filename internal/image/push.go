package image

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

// PushRequest says what to push.
type PushRequest struct {
	// Ref is a name in any spelling, of an image that is here.
	Ref string
	// Tag, if not empty, is the tag to push, and overrides Ref's. If neither has one,
	// every tag of the repository that is here is pushed.
	Tag string
	// Platform is "os[/arch[/variant]]": only that platform's manifest is pushed. "" is
	// the image as it is.
	Platform string
	// AuthConfig is sent only to the registry that Ref names. It may be nil.
	AuthConfig *registry.AuthConfig
}

// Push sends an image to the registry that its name says, several layers at a time.
// Layers that are kept uncompressed here are sent compressed, and the documents that
// name them are rewritten accordingly; the image here stays the same. What the registry
// has is not sent again. Of an image for several platforms all that is here is sent.
// progress gets Docker's messages, one call at a time; it may be nil.
//
// Cancelling ctx ends the push. The tag at the registry changes last, so a push that
// fails leaves the registry's tag as it was.
func (s *Service) Push(ctx context.Context, req PushRequest, progress func(jsonstream.Message)) error {
	name, all, err := pullName(req.Ref, req.Tag)
	if err != nil {
		return err
	}
	if _, ok := name.(reference.Digested); ok {
		return failure.Invalid("cannot push a digest reference: %s", reference.FamiliarString(name))
	}
	wish, err := parsePlatform(req.Platform)
	if err != nil {
		return err
	}
	c, err := s.catalog(ctx)
	if err != nil {
		return err
	}
	report := newReporter(progress)
	report.message("", "The push refers to repository ["+name.Name()+"]")
	tags := c.tagsOf(name.Name())
	if len(tags) == 0 {
		return failure.NotFound("An image does not exist locally with the tag: %s", reference.FamiliarName(name))
	}
	if !all {
		if _, ok := c.names[name.String()]; !ok {
			return failure.NotFound("tag does not exist: %s", reference.FamiliarString(name))
		}
		tags = []string{name.String()}
	}
	for _, tag := range tags {
		p := &push{s: s, img: c.names[tag], wish: wish, auth: req.AuthConfig, report: newReporter(report.send)}
		if err := p.run(s.store.Context(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// tagsOf gives the names of a repository that have a tag, sorted.
func (c *catalog) tagsOf(repository string) []string {
	var tags []string
	for name := range c.names {
		if isDangling(name) || !strings.HasPrefix(name, repository) {
			continue
		}
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil || named.Name() != repository {
			continue
		}
		if _, ok := named.(reference.NamedTagged); ok {
			tags = append(tags, name)
		}
	}
	sort.Strings(tags)
	return tags
}

// push sends what one name means.
type push struct {
	s      *Service
	img    images.Image
	name   reference.NamedTagged
	wish   *ocispec.Platform
	auth   *registry.AuthConfig
	report *reporter

	session *registryclient.Session
	sent    sentBlobs
}

func (p *push) run(ctx context.Context) error {
	named, err := reference.ParseNormalizedNamed(p.img.Name)
	if err != nil {
		return badName(p.img.Name, err)
	}
	p.name = named.(reference.NamedTagged)
	if p.session, err = p.s.registry.OpenPush(p.name, p.auth); err != nil {
		return err
	}
	defer p.session.Close()
	ctx, done, err := p.s.store.WithTemporaryLease(ctx)
	if err != nil {
		return p.s.explainWrite(err, ocispec.Descriptor{})
	}
	defer done()
	lease, _ := leases.FromContext(ctx)
	err = p.s.store.Leases.AddResource(ctx, leases.Lease{ID: lease}, leases.Resource{ID: p.img.Target.Digest.String(), Type: "content"})
	if err != nil {
		return fmt.Errorf("keep the image %s while it is pushed: %w", p.img.Target.Digest, err)
	}
	root, err := p.choose(ctx)
	if err != nil {
		return err
	}
	pushed, err := p.send(ctx, root)
	if err != nil {
		return err
	}
	record.Failpoint("image.push.after-manifest")
	if pushed.Digest != p.img.Target.Digest || p.img.Labels[pushedLabel] != "" {
		if err := p.s.noteDigest(ctx, p.img, pushed.Digest); err != nil {
			return fmt.Errorf("the image is at the registry, but its digest there could not be noted: %w", err)
		}
	}
	record.Failpoint("image.push.after-note")
	p.tell(pushed, root.part)
	return nil
}

// tell ends the messages of a push as programs expect it. part says that not all of the
// image was sent, without that being asked for.
func (p *push) tell(pushed ocispec.Descriptor, part bool) {
	p.report.message("", fmt.Sprintf("%s: digest: %s size: %d", p.name.Tag(), pushed.Digest, pushed.Size))
	p.report.aux(struct {
		Tag    string
		Digest string
		Size   int64
	}{p.name.Tag(), pushed.Digest.String(), pushed.Size})
	if part {
		p.report.aux(auxprogress.ManifestPushedInsteadOfIndex{ManifestPushedInsteadOfIndex: true, OriginalIndex: p.img.Target, SelectedManifest: pushed})
	}
	p.s.events("push", reference.FamiliarString(p.name), reference.FamiliarName(p.name))
}

// shipment is the part of an image that is to be sent.
type shipment struct {
	// target is the document that gets the tag.
	target ocispec.Descriptor
	// parts are the manifests to send below an index, by digest: images first, then what
	// is about them. The registry is known to have the rest that the index names.
	parts []variant
	// reduced says that the index names more than is to be sent.
	reduced bool
	// part says that this is not all of the image, though nothing less was asked for.
	part bool
}

// choose finds what is to be sent.
func (p *push) choose(ctx context.Context) (shipment, error) {
	target := p.img.Target
	variants, err := p.s.readVariants(ctx, target)
	if err != nil {
		return shipment{}, fmt.Errorf("read the image %s: %w", target.Digest, err)
	}
	var whole []variant
	missing := false
	for _, v := range variants {
		ok, err := p.s.allThere(ctx, v)
		switch {
		case err != nil:
			return shipment{}, err
		case ok:
			whole = append(whole, v)
		case !images.IsIndexType(target.MediaType) || !p.session.HasManifest(ctx, v.desc):
			missing = true
		}
	}
	if p.wish != nil {
		v := p.s.choose(whole, p.wish)
		if v == nil {
			return shipment{}, failure.NotFound("image with reference %s was found but does not provide the specified platform (%s)", reference.FamiliarString(p.name), platforms.FormatAll(*p.wish))
		}
		return shipment{target: v.desc, parts: []variant{*v}}, nil
	}
	list := p.together(whole)
	switch {
	case len(list) == 0:
		p.report.aux(auxprogress.ContentMissing{ContentMissing: true, Desc: target})
		return shipment{}, failure.NotFound("of the image %s not all content is here; pull it again", reference.FamiliarString(p.name))
	case missing && len(list) == 1:
		return shipment{target: list[0].desc, parts: list, part: true}, nil
	}
	return shipment{target: target, parts: list, reduced: missing, part: missing}, nil
}

// together orders images before what is about them, and leaves out what is about an
// image that is not sent.
func (p *push) together(whole []variant) []variant {
	var list, about []variant
	there := map[digest.Digest]bool{}
	for _, v := range whole {
		if v.attests != "" {
			about = append(about, v)
			continue
		}
		list = append(list, v)
		there[v.desc.Digest] = true
	}
	for _, v := range about {
		if there[v.attests] {
			list = append(list, v)
		}
	}
	return list
}

// allThere reports whether all blobs of a manifest are here that a registry wants.
func (s *Service) allThere(ctx context.Context, v variant) (bool, error) {
	if !v.present {
		return false, nil
	}
	for _, d := range append([]ocispec.Descriptor{v.manifest.Config}, v.manifest.Layers...) {
		if images.IsNonDistributable(d.MediaType) {
			continue
		}
		if _, err := s.store.Content.Info(ctx, d.Digest); errdefs.IsNotFound(err) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}

// pushedLabel is on a name whose image may have another digest at the registry than
// here. The value is both: an image that took the name since is not meant.
const pushedLabel = "dev.cleat/pushed"

// noteDigest keeps what digest the registry has under a name.
func (s *Service) noteDigest(ctx context.Context, img images.Image, there digest.Digest) error {
	value := img.Target.Digest.String() + "=" + there.String()
	if img.Labels[pushedLabel] == value {
		return nil
	}
	img.Labels = map[string]string{pushedLabel: value}
	_, err := s.store.Images.Update(ctx, img, "labels."+pushedLabel)
	if errdefs.IsNotFound(err) {
		return nil // the name was removed meanwhile
	}
	return err
}

// pushedAs is the digest that the registry is known to have under a name, "" if it was
// not noted: then it is the image's own, or the image was never pushed.
func pushedAs(img images.Image) digest.Digest {
	here, there, ok := strings.Cut(img.Labels[pushedLabel], "=")
	if !ok || here != img.Target.Digest.String() {
		return ""
	}
	d, err := digest.Parse(there)
	if err != nil {
		return ""
	}
	return d
}

// aux sends a record for programs.
func (r *reporter) aux(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return // none of them can fail
	}
	raw := json.RawMessage(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(jsonstream.Message{Progress: &jsonstream.Progress{}, Aux: &raw})
}
