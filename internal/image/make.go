package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// MakeRequest describes an image that is made of one new layer: on top of another image
// (commit) or on its own (import).
type MakeRequest struct {
	// Base is the image below; nil makes one of the layer alone.
	Base *Image
	// Platform is that of an image without a base; "" is the engine's own.
	Platform string
	Config   dockerspec.DockerOCIImageConfig
	// Action is the event that tells of the image; "" is create.
	Action string
	// Author, Comment and CreatedBy are for the history.
	Author, Comment, CreatedBy string
	// Repo and Tag name the image; without Repo it has no name.
	Repo, Tag string
	// Layer writes the layer as a plain tar stream. empty says that it has nothing.
	Layer func(ctx context.Context, w io.Writer) (empty bool, err error)
}

// Make makes an image and gives its id and its familiar name, "" without one. Whatever
// goes wrong, nothing of it is left.
func (s *Service) Make(ctx context.Context, req MakeRequest) (id digest.Digest, name string, err error) {
	full := ""
	if req.Repo != "" {
		named, err := newName(req.Repo, req.Tag)
		if err != nil {
			return "", "", err
		}
		full, name = named.String(), reference.FamiliarString(named)
	}
	ctx, done, err := s.store.WithTemporaryLease(s.store.Context(ctx))
	if err != nil {
		return "", "", s.explainWrite(err, ocispec.Descriptor{})
	}
	lease, _ := leases.FromContext(ctx)
	m := &making{s: s, req: req, ref: "make-" + lease}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.abort(ctx))
		}
		done()
		if err != nil {
			s.store.ScheduleGC()
		}
	}()
	target, err := m.blobs(ctx)
	if err != nil {
		return "", "", err
	}
	record.Failpoint("image.make.after-blobs")
	t := &transfer{s: s, report: newReporter(nil)}
	if err := t.run(ctx, target); err != nil {
		return "", "", err
	}
	if err := (&loading{s: s}).link(ctx, target, nil); err != nil {
		return "", "", err
	}
	record.Failpoint("image.make.after-unpack")
	if err := m.name(ctx, full, target); err != nil {
		return "", "", err
	}
	record.Failpoint("image.make.after-name")
	id = target.Digest
	action := req.Action
	if action == "" {
		action = "create"
	}
	s.events(action, id.String(), id.String())
	if name != "" {
		s.events("tag", id.String(), name)
	}
	return id, name, nil
}

type making struct {
	s   *Service
	req MakeRequest
	ref string // of the layer's ingest
}

// abort removes a layer that was not written to its end.
func (m *making) abort(ctx context.Context) error {
	err := m.s.store.Content.Abort(context.WithoutCancel(ctx), m.ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// name keeps the image by its name, or among those without.
func (m *making) name(ctx context.Context, full string, target ocispec.Descriptor) error {
	if full == "" {
		c, err := m.s.catalog(ctx)
		if err != nil {
			return err
		}
		if len(c.byID[target.Digest]) > 0 {
			return nil // the very image is here
		}
		full = danglingName(target.Digest)
	}
	if err := m.s.setName(ctx, full, target, ""); err != nil {
		return fmt.Errorf("name the image %s: %w", target.Digest, err)
	}
	return nil
}

// blobs writes layer, configuration and manifest.
func (m *making) blobs(ctx context.Context) (ocispec.Descriptor, error) {
	manifest, config, err := m.base(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer, diffID, empty, err := m.layer(ctx, manifest.MediaType == images.MediaTypeDockerSchema2Manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	now := time.Now().UTC()
	config.Created, config.Author, config.Config = &now, m.req.Author, m.req.Config
	config.History = append(config.History[:len(config.History):len(config.History)], ocispec.History{
		Created: &now, CreatedBy: m.req.CreatedBy, Author: m.req.Author, Comment: m.req.Comment, EmptyLayer: empty,
	})
	config.RootFS.Type = "layers"
	if !empty {
		manifest.Layers = append(manifest.Layers[:len(manifest.Layers):len(manifest.Layers)], layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs[:len(config.RootFS.DiffIDs):len(config.RootFS.DiffIDs)], diffID)
	}
	if config.RootFS.DiffIDs == nil {
		config.RootFS.DiffIDs = []digest.Digest{}
	}
	if manifest.Layers == nil {
		manifest.Layers = []ocispec.Descriptor{}
	}
	if manifest.Config, err = m.document(ctx, manifest.Config.MediaType, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return m.document(ctx, manifest.MediaType, manifest)
}

// base gives the manifest and configuration to go on from. The collector leaves them and the layers alone until the image
// is made, though the base may lose its names meanwhile.
func (m *making) base(ctx context.Context) (manifest ocispec.Manifest, config dockerspec.DockerOCIImage, err error) {
	if m.req.Base == nil {
		manifest = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		manifest.Config.MediaType = ocispec.MediaTypeImageConfig
		config.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
		wish, err := parsePlatform(m.req.Platform)
		if wish != nil {
			config.Platform = *wish
		}
		return manifest, config, err
	}
	lease, _ := leases.FromContext(ctx)
	kept := leases.Resource{ID: m.req.Base.Manifest.Digest.String(), Type: "content"}
	if err := m.s.store.Leases.AddResource(ctx, leases.Lease{ID: lease}, kept); err != nil {
		return manifest, config, fmt.Errorf("keep the image %s while another is made of it: %w", m.req.Base.ID, err)
	}
	v, err := m.s.readVariant(ctx, m.req.Base.Manifest)
	if err != nil {
		return manifest, config, err
	}
	if !v.present {
		return manifest, config, failure.NotFound("the content of the image %s is gone, on which the new one is to stand; pull or load it again", m.req.Base.ID)
	}
	for _, l := range v.manifest.Layers {
		if _, err := m.s.store.Content.Info(ctx, l.Digest); err != nil {
			return manifest, config, failure.NotFound("the layer %s of the image %s is gone, on which the new one is to stand; pull or load it again", l.Digest, m.req.Base.ID)
		}
	}
	manifest, config = v.manifest, v.config
	manifest.Annotations, manifest.Subject = nil, nil // they are about the base
	if manifest.MediaType == "" {
		manifest.MediaType = m.req.Base.Manifest.MediaType
	}
	return manifest, config, nil
}

// document writes a JSON blob.
func (m *making) document(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	blob, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	err = content.WriteBlob(ctx, m.s.store.Content, m.ref+"-"+desc.Digest.Encoded(), bytes.NewReader(blob), desc)
	return desc, m.s.explainWrite(err, desc)
}

// layer writes the layer. It is not compressed: that is done when, and if, it is pushed.
func (m *making) layer(ctx context.Context, docker bool) (desc ocispec.Descriptor, diffID digest.Digest, empty bool, err error) {
	w, err := content.OpenWriter(ctx, m.s.store.Content, content.WithRef(m.ref))
	if err != nil {
		return desc, "", false, m.s.explainWrite(err, desc)
	}
	defer w.Close()
	empty, err = m.req.Layer(ctx, w)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		// It comes from whoever sends the files, and no registry has to do with it.
		return desc, "", false, failure.Invalid("%w", err)
	}
	if err != nil {
		return desc, "", false, m.s.explainWrite(err, ocispec.Descriptor{Digest: "the new layer"})
	}
	if empty {
		return desc, "", true, m.s.store.Content.Abort(ctx, m.ref)
	}
	status, err := w.Status()
	if err != nil {
		return desc, "", false, err
	}
	desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: w.Digest(), Size: status.Offset}
	if docker {
		desc.MediaType = images.MediaTypeDockerSchema2Layer
	}
	err = w.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(map[string]string{labels.LabelUncompressed: desc.Digest.String()}))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, "", false, m.s.explainWrite(err, desc)
	}
	return desc, desc.Digest, false, nil
}
