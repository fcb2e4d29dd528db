package build

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/client/build/option"
)

// source is what an index is made of: an image, and what is said of it beside that.
type source struct {
	ref  reference.Named // nil until the repository is known
	said ocispec.Descriptor
}

// parseSource reads a reference, a digest, or a descriptor as JSON.
func parseSource(arg string) (source, error) {
	arg = strings.TrimSpace(arg)
	if dgst := digest.Digest(arg); dgst.Validate() == nil {
		return source{said: ocispec.Descriptor{Digest: dgst}}, nil
	}
	if !strings.HasPrefix(arg, "{") {
		ref, err := parseReference(arg)
		return source{ref: ref}, err
	}
	var desc struct {
		SchemaVersion int `json:"schemaVersion"`
		ocispec.Descriptor
	}
	if err := json.Unmarshal([]byte(arg), &desc); err != nil {
		return source{}, fmt.Errorf("invalid descriptor %s: %w", arg, err)
	}
	if desc.SchemaVersion != 0 {
		return source{}, fmt.Errorf("this is a manifest or an index, and a descriptor of one is needed, with its digest: %.200s", arg)
	}
	if err := desc.Digest.Validate(); err != nil {
		return source{}, fmt.Errorf("invalid descriptor %s: its digest: %w", arg, err)
	}
	return source{said: desc.Descriptor}, nil
}

// parseSources reads sources. What has no repository is of the one that the result goes to or, where it goes nowhere, of
// that of the others.
func parseSources(args []string, tags []reference.Named) ([]source, error) {
	var sources []source
	var repositories []string
	if len(tags) > 0 {
		repositories = []string{tags[0].Name()}
	}
	for _, arg := range args {
		s, err := parseSource(arg)
		if err != nil {
			return nil, err
		}
		if s.ref != nil && len(tags) == 0 {
			repositories = append(repositories, s.ref.Name())
		}
		sources = append(sources, s)
	}
	repositories = option.Unique(repositories)
	for i, s := range sources {
		if s.ref != nil {
			continue
		}
		dgst := s.said.Digest
		if len(repositories) != 1 {
			return nil, fmt.Errorf("of which repository is %[1]s? Give it as REPOSITORY@%[1]s, or a --tag", dgst)
		}
		name, err := reference.WithName(repositories[0])
		if err == nil {
			sources[i].ref, err = reference.WithDigest(name, dgst)
		}
		if err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// describe puts what is said of the image over what its registry tells.
func (s source) describe(desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if s.said.Size != 0 && s.said.Size != desc.Size {
		return desc, fmt.Errorf("%s has %d bytes, and its descriptor says %d", s.ref, desc.Size, s.said.Size)
	}
	if s.said.MediaType != "" {
		desc.MediaType = s.said.MediaType
	}
	if len(s.said.Annotations) > 0 {
		desc.Annotations = s.said.Annotations
	}
	desc.Platform = s.said.Platform
	return desc, nil
}

// withSaid is a platform as a descriptor says it, with what that leaves out.
func withSaid(p, said ocispec.Platform) ocispec.Platform {
	if said.OS == "" {
		said.OS = p.OS
	}
	if said.Architecture == "" {
		said.Architecture = p.Architecture
		if said.Variant == "" {
			said.Variant = p.Variant
		}
	}
	return said
}
