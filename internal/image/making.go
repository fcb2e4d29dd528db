package image

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// predicateProvenance begins the kind of a statement that says how an image was made.
const predicateProvenance = "https://slsa.dev/provenance/"

// momentary are the fields of a provenance that are others each time that the same is made: when and by which request, and
// the steps by digests that depend on the client's session. Those of version 0.2 are in the second line.
var momentary = []string{"invocationId", "startedOn", "finishedOn", "digestMapping",
	"buildInvocationID", "buildStartedOn", "buildFinishedOn"}

// sameMaking reports whether two images are the same, or differ in nothing but when their making was attested.
func (s *Service) sameMaking(ctx context.Context, a, b ocispec.Descriptor) bool {
	if a.Digest == b.Digest {
		return true
	}
	if !images.IsIndexType(a.MediaType) || !images.IsIndexType(b.MediaType) {
		return false
	}
	before, err := s.makingOf(ctx, a)
	if err != nil {
		return false // damaged, or not here: another image
	}
	after, err := s.makingOf(ctx, b)
	return err == nil && before == after
}

// makingOf is a digest of an index in which provenances count without what is momentary.
func (s *Service) makingOf(ctx context.Context, index ocispec.Descriptor) (digest.Digest, error) {
	return s.digestWith(ctx, index, "manifests", func(d ocispec.Descriptor) (digest.Digest, error) {
		if d.Annotations[annotationReferenceType] != "attestation-manifest" {
			return d.Digest, nil
		}
		return s.attestedBy(ctx, d)
	})
}

// attestedBy does so for an attestation manifest. Its config follows from its layers.
func (s *Service) attestedBy(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error) {
	return s.digestWith(ctx, manifest, "layers", func(d ocispec.Descriptor) (digest.Digest, error) {
		if !strings.HasPrefix(d.Annotations[annotationPredicate], predicateProvenance) {
			return d.Digest, nil
		}
		var statement any
		if err := s.mustReadJSON(ctx, d, &statement); err != nil {
			return "", err
		}
		forgetMomentary(statement)
		return digestOfJSON(statement)
	})
}

// digestWith is the digest of a document in which the blobs listed in a field count by the digests that by gives.
func (s *Service) digestWith(ctx context.Context, desc ocispec.Descriptor, field string, by func(ocispec.Descriptor) (digest.Digest, error)) (digest.Digest, error) {
	var document map[string]json.RawMessage
	if err := s.mustReadJSON(ctx, desc, &document); err != nil {
		return "", err
	}
	var list []ocispec.Descriptor
	if err := json.Unmarshal(document[field], &list); err != nil {
		return "", failure.Invalid("%s of %s: %w", field, desc.Digest, err)
	}
	for i, d := range list {
		to, err := by(d)
		if err != nil {
			return "", err
		}
		if to != d.Digest {
			list[i].Digest, list[i].Size = to, 0
		}
	}
	delete(document, field)
	if field == "layers" {
		delete(document, "config")
	}
	return digestOfJSON([]any{document, list})
}

func (s *Service) mustReadJSON(ctx context.Context, desc ocispec.Descriptor, v any) error {
	found, err := s.readJSON(ctx, desc, v)
	if err == nil && !found {
		err = failure.NotFound("%s is not here", desc.Digest)
	}
	return err
}

// forgetMomentary removes the momentary fields from what JSON was read into.
func forgetMomentary(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range momentary {
			delete(v, key)
		}
		for _, field := range v {
			forgetMomentary(field)
		}
	case []any:
		for _, element := range v {
			forgetMomentary(element)
		}
	}
}

func digestOfJSON(v any) (digest.Digest, error) {
	text, err := json.Marshal(v)
	return digest.FromBytes(text), err
}
