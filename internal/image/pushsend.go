package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

// compressors is how many processors compress one layer.
func compressors() int { return runtime.GOMAXPROCS(0) }

// sentBlobs are the blobs that the registry has got or had, as it has them, by their
// digest here.
type sentBlobs struct {
	mu    sync.Mutex
	blobs replacements
}

func (b *sentBlobs) add(here digest.Digest, there ocispec.Descriptor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[here] = there
}

// send sends a shipment, blobs first and the document with the tag last, and gives the
// latter's descriptor at the registry.
func (p *push) send(ctx context.Context, sh shipment) (ocispec.Descriptor, error) {
	p.sent.blobs = replacements{}
	if err := p.sendBlobs(ctx, sh.parts); err != nil {
		return ocispec.Descriptor{}, err
	}
	record.Failpoint("image.push.after-blobs")
	manifests := replacements{}
	var last document
	for _, v := range sh.parts {
		d, err := p.manifest(ctx, v, manifests)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		manifests[v.desc.Digest] = d.desc
		if v.desc.Digest == sh.target.Digest {
			last = d
			continue
		}
		if err := p.put(ctx, d, ""); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if images.IsIndexType(sh.target.MediaType) {
		var err error
		if last, err = p.index(ctx, sh, sh.target, manifests); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return last.desc, p.put(ctx, last, p.name.Tag())
}

// document is a manifest or index as it is sent.
type document struct {
	desc ocispec.Descriptor
	body []byte
}

func newDocument(mediaType string, body []byte) document {
	return document{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}, body}
}

func (p *push) put(ctx context.Context, d document, tag string) error {
	return p.session.ExplainPush(p.session.PushManifest(ctx, d.desc, d.body, tag, nil))
}

// manifest gives a manifest as it is sent; for that of an attestation its blobs are sent
// too, since they may name the digest of the manifest that they are about.
func (p *push) manifest(ctx context.Context, v variant, manifests replacements) (document, error) {
	body, err := p.s.readBlob(ctx, v.desc)
	if err != nil {
		return document{}, err
	}
	if v.attests == "" {
		body, err = rewriteManifest(body, p.sent.blobs)
	} else {
		body, err = p.attestation(ctx, v, body, manifests)
	}
	if err != nil {
		return document{}, fmt.Errorf("the manifest %s: %w", v.desc.Digest, err)
	}
	return newDocument(v.desc.MediaType, body), nil
}

// attestation sends the blobs of an attestation and gives its manifest.
func (p *push) attestation(ctx context.Context, v variant, body []byte, manifests replacements) ([]byte, error) {
	var about replacements
	if to, ok := manifests[v.attests]; ok {
		about = replacements{v.attests: to}
	}
	blobs := replacements{}
	for _, d := range append(slices.Clone(v.manifest.Layers), v.manifest.Config) {
		if d.Size > maxJSON || !about.differ() {
			if err := p.blob(ctx, d, ""); err != nil {
				return nil, err
			}
			continue
		}
		old, err := p.s.readBlob(ctx, d)
		if err != nil {
			return nil, err
		}
		text := rewriteDigests(old, about)
		if d.Digest == v.manifest.Config.Digest {
			text = rewriteDigests(text, blobs)
		}
		blobs[d.Digest] = ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
		if err := p.small(ctx, blobs[d.Digest], text); err != nil {
			return nil, err
		}
	}
	return rewriteAttestation(body, blobs, about)
}

// index gives an index as it is sent, after those below it.
func (p *push) index(ctx context.Context, sh shipment, desc ocispec.Descriptor, manifests replacements) (document, error) {
	body, err := p.s.readBlob(ctx, desc)
	if err != nil {
		return document{}, err
	}
	var index ocispec.Index
	if _, err := p.s.readJSON(ctx, desc, &index); err != nil {
		return document{}, err
	}
	for _, child := range index.Manifests {
		if !images.IsIndexType(child.MediaType) {
			continue
		}
		if _, err := p.s.store.Content.Info(ctx, child.Digest); err != nil {
			continue // it counts as missing, with all below it
		}
		below, err := p.index(ctx, sh, child, manifests)
		if err != nil {
			return document{}, err
		}
		if err := p.put(ctx, below, ""); err != nil {
			return document{}, err
		}
		manifests[child.Digest] = below.desc
	}
	body, err = rewriteIndex(body, manifests, func(d digest.Digest) bool {
		_, sent := manifests[d]
		return sent || !sh.reduced
	})
	if err != nil {
		return document{}, fmt.Errorf("the index %s: %w", desc.Digest, err)
	}
	return newDocument(desc.MediaType, body), nil
}

// sendBlobs sends layers and configs of images, several at a time.
func (p *push) sendBlobs(ctx context.Context, parts []variant) error {
	var layers, configs []ocispec.Descriptor
	for _, v := range parts {
		if v.attests != "" {
			continue
		}
		configs = append(configs, v.manifest.Config)
		for _, l := range v.manifest.Layers {
			if !images.IsNonDistributable(l.MediaType) {
				layers = append(layers, l)
			}
		}
	}
	uploads := p.s.uploads.Load()
	p.report.announce(layers, statusPreparing, uploads.max)
	g, ctx := errgroup.WithContext(ctx)
	seen := map[digest.Digest]bool{}
	for _, d := range slices.Concat(layers, configs) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		g.Go(func() error {
			if err := uploads.Acquire(ctx, 1); err != nil {
				return err
			}
			defer uploads.Release(1)
			return p.blob(ctx, d, d.Digest)
		})
	}
	return g.Wait()
}

// blob sends one blob of the store. line is the layer whose line tells of it.
func (p *push) blob(ctx context.Context, here ocispec.Descriptor, line digest.Digest) error {
	there, err := p.s.compressed(ctx, here, func(n int64) { p.report.bytes(line, statusPreparing, n) })
	if err != nil {
		return err
	}
	p.report.resize(line, there.Size)
	info, err := p.s.store.Content.Info(ctx, there.Digest)
	if err != nil {
		return fmt.Errorf("the blob %s: %w", there.Digest, err)
	}
	from := sourceFor(p.name, info)
	outcome, err := p.session.PushBlob(ctx, registryclient.Upload{
		Descriptor: there,
		Open: func(offset int64) (io.ReadCloser, error) {
			ra, err := p.s.store.Content.ReaderAt(ctx, there)
			if err != nil {
				return nil, err
			}
			return sectionCloser{io.NewSectionReader(ra, offset, there.Size-offset), ra}, nil
		},
		From:     from,
		Sent:     func(n int64) { p.report.bytes(line, statusPushing, n) },
		Retrying: func(wait time.Duration) { p.report.step(line, retrying(wait)) },
	})
	if err != nil {
		return p.session.ExplainPush(err)
	}
	p.sent.add(here.Digest, there)
	switch outcome {
	case registryclient.Existing:
		p.report.step(line, statusRemote)
	case registryclient.Mounted:
		p.report.step(line, statusMounted+" "+from)
	default:
		p.report.step(line, statusPushed)
	}
	return p.remember(ctx, info)
}

// small sends a blob that was made for the registry.
func (p *push) small(ctx context.Context, desc ocispec.Descriptor, body []byte) error {
	_, err := p.session.PushBlob(ctx, registryclient.Upload{Descriptor: desc, Open: func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(body[offset:])), nil
	}})
	return p.session.ExplainPush(err)
}

type sectionCloser struct {
	io.Reader
	io.Closer
}

func retrying(wait time.Duration) string {
	seconds := int(wait.Round(time.Second).Seconds())
	if seconds == 1 {
		return "Retrying in 1 second"
	}
	return fmt.Sprintf("Retrying in %d seconds", seconds)
}

// remember notes that the repository has a blob.
func (p *push) remember(ctx context.Context, info content.Info) error {
	key := sourceLabel(reference.Domain(p.name))
	value := withSource(info.Labels[key], p.name)
	if value == info.Labels[key] || labels.Validate(key, value) != nil {
		return nil
	}
	_, err := p.s.store.Content.Update(ctx, content.Info{Digest: info.Digest, Labels: map[string]string{key: value}}, "labels."+key)
	if err != nil && !errors.Is(err, context.Canceled) {
		return p.s.explainWrite(fmt.Errorf("note where %s is: %w", info.Digest, err), ocispec.Descriptor{Digest: info.Digest})
	}
	return err
}
