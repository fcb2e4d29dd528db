package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) push() spec {
	return spec{
		use: "push [OPTIONS] NAME[:TAG]", short: "Upload an image to a registry",
		args: a.exactArgs(1), top: 7, shownAs: []string{"image push", "push"},
		setup: func(fs *pflag.FlagSet) action {
			all := fs.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
			// Unlike pull's, it does not follow DOCKER_DEFAULT_PLATFORM: images are pushed as they are.
			platform := fs.String("platform", "", "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			unsigned := fs.Bool("disable-content-trust", true, "Skip image signing")
			_ = fs.MarkHidden("disable-content-trust")
			return func(ctx context.Context, args []string) error {
				if !*unsigned {
					return errors.New("content trust (--disable-content-trust=false) is not supported: sign what is at the registry, for instance with cosign or notation")
				}
				return a.pushImage(ctx, args[0], *platform, *all, *quiet)
			}
		},
	}
}

const platformNote = `Using --platform pushes only the specified platform manifest of a multi-platform image index.
Other components, like attestations, will not be included.
To push the complete multi-platform image, remove the --platform flag.`

func (a *app) pushImage(ctx context.Context, name, platform string, all, quiet bool) error {
	var o client.ImagePushOptions
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return fmt.Errorf("invalid platform: %w", err)
		}
		o.Platform = &p
		a.note(platformNote)
	}
	ref, err := reference.ParseNormalizedNamed(name)
	switch {
	case err != nil:
		return err
	case all && !reference.IsNameOnly(ref):
		return errors.New("tag can't be used with --all-tags/-a")
	case !all && reference.IsNameOnly(ref):
		ref = reference.TagNameOnly(ref)
		if !quiet {
			_, _ = fmt.Fprintln(a.out, "Using default tag: latest")
		}
	}
	if o.RegistryAuth, err = a.registryAuth(ref.String()); err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	o.All = all
	body, err := c.ImagePush(ctx, reference.FamiliarString(ref), o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	out := a.out
	if quiet {
		out = term.NewOutput(io.Discard)
	}
	var notes []string
	err = showMessages(ctx, body, out, func(aux json.RawMessage) { notes = append(notes, pushNotes(aux)...) })
	for _, n := range notes {
		a.note(n)
	}
	if err == nil && quiet {
		_, _ = fmt.Fprintln(a.out, ref.String())
	}
	return err
}

// note tells the user what a command does not fail for. It is no part of its output.
func (a *app) note(text string) { _, _ = fmt.Fprintf(a.err, "Info: %s\n", text) }

// pushNotes are what the engine has to say about what was pushed.
func pushNotes(aux json.RawMessage) []string {
	var notes []string
	var instead auxprogress.ManifestPushedInsteadOfIndex
	if json.Unmarshal(aux, &instead) == nil && instead.ManifestPushedInsteadOfIndex {
		what := "the available single-platform image was"
		if instead.SelectedManifest.MediaType == ocispec.MediaTypeImageIndex {
			what = "the available platforms were"
		}
		notes = append(notes, fmt.Sprintf("Not all multiplatform-content is present and only %s pushed\n%s -> %s", what, instead.OriginalIndex.Digest, instead.SelectedManifest.Digest))
	}
	var missing auxprogress.ContentMissing
	if json.Unmarshal(aux, &missing) == nil && missing.ContentMissing {
		notes = append(notes, "Of the image that the name stands for not all content is here.\nPull it for the platforms that are to be pushed, or choose one that is here with --platform.")
	}
	return notes
}
