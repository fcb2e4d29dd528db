package image

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// danglingPrefix begins the names of images that the user sees as <none>: they exist
// only so that the collector keeps the image. Builds make the same ones.
const danglingPrefix = "moby-dangling@"

func danglingName(id digest.Digest) string { return danglingPrefix + id.String() }

func isDangling(name string) bool { return strings.HasPrefix(name, danglingPrefix) }

// idPrefix is what may be the beginning of an id.
var idPrefix = regexp.MustCompile(`^(?:sha256:)?([a-f0-9]{4,64})$`)

// parseName is the one way a name becomes a reference.
func parseName(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badName(s, err)
	}
	return named, nil
}

func badName(s string, err error) error {
	if strings.HasPrefix(err.Error(), "invalid reference format") {
		return failure.Invalid("%w", err)
	}
	return failure.Invalid("invalid reference format: %q: %w", s, err)
}

// pullName puts together what the two parameters of a pull say. tag may be a tag or a
// digest; all is true if neither parameter has one.
func pullName(ref, tag string) (name reference.Named, all bool, err error) {
	name, err = parseName(ref)
	if err != nil {
		return nil, false, err
	}
	if tag != "" {
		name = reference.TrimNamed(name)
		if dgst, derr := digest.Parse(tag); derr == nil {
			name, err = reference.WithDigest(name, dgst)
		} else {
			name, err = reference.WithTag(name, tag)
		}
		if err != nil {
			return nil, false, badName(ref+":"+tag, err)
		}
		return name, false, nil
	}
	if digested, ok := name.(reference.Digested); ok {
		// With both, the digest decides; the tag is only a comment to the reader.
		name, err = reference.WithDigest(reference.TrimNamed(name), digested.Digest())
		if err != nil {
			return nil, false, badName(ref, err)
		}
	}
	return name, reference.IsNameOnly(name), nil
}

// newName is the name that a tag operation makes.
func newName(repo, tag string) (reference.NamedTagged, error) {
	named, err := parseName(repo)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, failure.Invalid("refusing to create a tag with a digest reference: %s", repo)
	}
	if tag != "" {
		if named, err = reference.WithTag(reference.TrimNamed(named), tag); err != nil {
			return nil, failure.Invalid("%w: %q is not a valid tag", err, tag)
		}
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return nil, failure.Invalid("refusing to create an ambiguous tag using digest algorithm as name: choose another than %s", repo)
	}
	return reference.TagNameOnly(named).(reference.NamedTagged), nil
}

// familiar is the short form of a stored name.
func familiar(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		return reference.FamiliarString(named)
	}
	return name
}

// shortID is an id as shown to people.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// parsePlatform reads "os[/arch[/variant]]" or the JSON object that newer clients
// send. "" is nil: no wish.
func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	if strings.HasPrefix(s, "{") {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return nil, failure.Invalid("invalid platform %s: %w", s, err)
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, failure.Invalid("invalid platform %s: it needs both os and architecture", s)
		}
		p = platforms.Normalize(p)
		return &p, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, failure.Invalid("invalid platform %q: write os[/architecture[/variant]], such as linux/arm64", s)
	}
	return &p, nil
}
