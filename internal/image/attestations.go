package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// annotationPredicate is the annotation of a statement's layer that says what it is about.
const annotationPredicate = "in-toto.io/predicate-type"

// mediaTypeStatement is that of the layers of an attestation manifest.
const mediaTypeStatement = "application/vnd.in-toto+json"

// AttestationsRequest says which statements about an image are wanted.
type AttestationsRequest struct {
	// Platform chooses among an image's manifests; "" is the engine's own.
	Platform string
	// Types are the predicates' types; none stands for all of them.
	Types []string
	// Statements says whether the statements are wanted, not only what there is.
	Statements bool
}

// Attestations lists the in-toto statements that accompany an image, as builds attach them. An image without any has an
// empty list. Statements that are wanted and not here are an error: they come with a pull of all of the image.
func (s *Service) Attestations(ctx context.Context, ref string, req AttestationsRequest) ([]image.AttestationStatement, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	m, v, err := s.pick(ctx, c, ref, req.Platform)
	if err != nil {
		return nil, err
	}
	variants, err := s.variantsOf(ctx, c, m.target.Target)
	if err != nil {
		return nil, err
	}
	list := []image.AttestationStatement{}
	for i := range variants {
		a := &variants[i]
		if a.kind != image.ManifestKindAttestation || a.attests != v.desc.Digest {
			continue
		}
		for _, l := range a.manifest.Layers {
			predicate := l.Annotations[annotationPredicate]
			if l.MediaType != mediaTypeStatement || len(req.Types) > 0 && !slices.Contains(req.Types, predicate) {
				continue
			}
			st := image.AttestationStatement{Descriptor: l, PredicateType: predicate}
			if req.Statements {
				if st.Statement, err = s.statement(ctx, l); err != nil {
					return nil, fmt.Errorf("attestations of %s: %w", m.ref(), err)
				}
			}
			list = append(list, st)
		}
	}
	return list, nil
}

// statement reads one, as it was written.
func (s *Service) statement(ctx context.Context, desc ocispec.Descriptor) (*json.RawMessage, error) {
	blob, err := s.readBlob(s.store.Context(ctx), desc)
	if errdefs.IsNotFound(err) {
		return nil, failure.NotFound("the statement %s is not here: pull the image again", desc.Digest)
	}
	if err == nil && !json.Valid(blob) {
		err = failure.Invalid("the statement %s is not JSON", desc.Digest)
	}
	return (*json.RawMessage)(&blob), err
}
