package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// manifests are docker's commands for lists of manifests, as far as they look at what is in
// a registry. Those that put a list together on the client's disk first, and push it then,
// have a better successor in imagetools, which they name.
func (a *app) manifests() []spec {
	return []spec{
		a.manifestSuperseded("annotate", "imagetools create --annotation"), a.manifestSuperseded("create", "imagetools create -t MANIFEST_LIST MANIFEST..."),
		a.manifestInspect(), a.manifestSuperseded("push", "imagetools create -t MANIFEST_LIST MANIFEST..."), a.manifestSuperseded("rm", ""),
	}
}

func (a *app) manifestSuperseded(name, by string) spec {
	return spec{
		use: name, short: "Not supported", hidden: true,
		setup: func(fs *pflag.FlagSet) action {
			fs.ParseErrorsAllowlist.UnknownFlags = true
			return func(context.Context, []string) error {
				if by == "" {
					return fmt.Errorf("manifest %s is not supported: no lists of manifests are kept on this machine", name)
				}
				return fmt.Errorf("manifest %s is not supported: '%s buildx %s' makes the list where it belongs, in the registry", name, a.program, by)
			}
		},
	}
}

func (a *app) manifestInspect() spec {
	return spec{
		use: "inspect [OPTIONS] MANIFEST", short: "Display an image manifest, or manifest list", args: exactly(1),
		setup: func(fs *pflag.FlagSet) action {
			verbose := fs.BoolP("verbose", "v", false, "Output additional info including layers and platform")
			insecure := fs.Bool("insecure", false, "Allow communication with an insecure registry")
			return func(ctx context.Context, args []string) error {
				ref, err := parseReference(args[0])
				if err != nil {
					return err
				}
				r := a.registryOver(*insecure)
				data, desc, err := fetch(ctx, r, ref.String())
				if errdefs.IsNotFound(err) {
					return &exitError{exitFailed, "no such manifest: " + ref.String()}
				}
				if err != nil {
					return err
				}
				if *verbose {
					return a.showManifests(ctx, r, ref, data, desc)
				}
				indent := "\t"
				if images.IsIndexType(desc.MediaType) {
					indent = "   "
				}
				var out bytes.Buffer
				if err := json.Indent(&out, data, "", indent); err != nil {
					return fmt.Errorf("the manifest of %s cannot be read: %w", ref, err)
				}
				_, err = fmt.Fprintln(a.stdout, out.String())
				return err
			}
		},
	}
}

// oneManifest is what the verbose form has of a manifest.
type oneManifest struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// showManifests shows a manifest with all that belongs to it, or those of a list.
func (a *app) showManifests(ctx context.Context, r remotes.Resolver, ref reference.Named, data []byte, desc ocispec.Descriptor) error {
	if !images.IsIndexType(desc.MediaType) {
		one, err := describeManifest(ctx, r, ref, ref.String(), data, desc)
		if err != nil {
			return err
		}
		return a.showJSON(one)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(data, &idx); err != nil {
		return fmt.Errorf("the index of %s cannot be read: %w", ref, err)
	}
	list := []*oneManifest{}
	for _, m := range idx.Manifests {
		text, err := fetchBlob(ctx, r, ref.String(), m)
		if err != nil {
			return err
		}
		one, err := describeManifest(ctx, r, ref, ref.String()+"@"+m.Digest.String(), text, m)
		if err != nil {
			return err
		}
		list = append(list, one)
	}
	return a.showJSON(list)
}

func describeManifest(ctx context.Context, r remotes.Resolver, ref reference.Named, name string, data []byte, desc ocispec.Descriptor) (*oneManifest, error) {
	one := &oneManifest{Ref: name, Descriptor: desc, Raw: data}
	switch {
	case !json.Valid(data):
		return nil, fmt.Errorf("the manifest %s cannot be read", name)
	case desc.MediaType == images.MediaTypeDockerSchema2Manifest:
		one.SchemaV2Manifest = data
	default:
		one.OCIManifest = data
	}
	if desc.Platform == nil {
		config, err := imageConfig(ctx, r, ref, desc)
		if err != nil {
			return nil, err
		}
		one.Descriptor.Platform = &config.Platform
	}
	return one, nil
}

func (a *app) showJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err == nil {
		_, err = fmt.Fprintln(a.stdout, string(text))
	}
	if err != nil {
		return errors.Join(errors.New("the manifest cannot be shown"), err)
	}
	return nil
}
