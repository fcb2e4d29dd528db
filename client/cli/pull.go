package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) pull() spec {
	return spec{
		use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", short: "Download an image from a registry",
		args: a.exactArgs(1), top: 6, shownAs: []string{"image pull", "pull"},
		setup: func(fs *pflag.FlagSet) action {
			all := fs.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
			platform := fs.String("platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			untrusted := newTrustFlag(fs)
			return func(ctx context.Context, args []string) error {
				if !*untrusted {
					return errNoTrust
				}
				ref, err := reference.ParseNormalizedNamed(args[0])
				err = explainReference(args[0], err)
				switch {
				case err != nil:
					return err
				case *all && !reference.IsNameOnly(ref):
					return errors.New("tag can't be used with --all-tags/-a")
				case !*all && reference.IsNameOnly(ref):
					ref = reference.TagNameOnly(ref)
					if !*quiet {
						_, _ = fmt.Fprintln(a.out, "Using default tag: latest")
					}
				}
				var p *ocispec.Platform
				if *platform != "" {
					parsed, err := platforms.Parse(*platform)
					if err != nil {
						return err
					}
					p = &parsed
				}
				out := a.out
				if *quiet {
					out = term.NewOutput(io.Discard)
				}
				if err := a.pullImage(ctx, reference.FamiliarString(ref), p, *all, out); err != nil {
					return err
				}
				_, _ = fmt.Fprintln(a.out, ref.String())
				return nil
			}
		},
	}
}

// newTrustFlag adds the flag by which Docker's clients before 29 were told whether an image's signatures are to be
// checked. Nobody is told that they were.
func newTrustFlag(fs *pflag.FlagSet) *bool {
	untrusted := fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkHidden("disable-content-trust")
	return untrusted
}

var errNoTrust = errors.New("content trust (--disable-content-trust=false) is not supported: pull by digest (NAME@sha256:…), and check signatures with cosign or notation")

// pullImage pulls ref with the user's credentials for its registry. Progress is shown
// on out. When ctx ends the pull does too: the engine sees the connection close.
func (a *app) pullImage(ctx context.Context, ref string, platform *ocispec.Platform, all bool, out *term.Output) error {
	auth, err := a.registryAuth(ref)
	if err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	o := client.ImagePullOptions{RegistryAuth: auth, All: all}
	if platform != nil {
		o.Platforms = []ocispec.Platform{*platform}
	}
	body, err := c.ImagePull(ctx, ref, o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return showProgress(ctx, body, out)
}

// registryAuth is the header with the stored credentials for ref's registry.
func (a *app) registryAuth(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	return dockerconfig.RegistryAuth(a.config(), reference.Domain(named), a.warn)
}

// showProgress shows the engine's messages until they end, and returns the error that
// one of them reports: the HTTP status was sent before it happened.
func showProgress(ctx context.Context, r io.Reader, out *term.Output) error {
	return showMessages(ctx, r, out, func(json.RawMessage) {})
}

// unshownError is what went wrong with showing messages of something that was done nevertheless.
type unshownError struct{ error }

func (e unshownError) Unwrap() error { return e.error }

// showMessages does the same and hands what is for programs to aux. Messages that cannot be shown, on a full disk, end
// nothing of what they are about: that is told at the end.
func showMessages(ctx context.Context, r io.Reader, out *term.Output, aux func(json.RawMessage)) error {
	p := term.NewProgress(out)
	dec := json.NewDecoder(r)
	var unshown error
	for {
		var m jsonstream.Message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return unshown
		} else if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("reading the engine's progress messages: %w", err)
		}
		if m.Aux != nil {
			aux(*m.Aux)
		}
		if err := p.Show(m); err != nil && m.Error != nil {
			return err
		} else if err != nil {
			unshown = unshownError{err}
		}
	}
}

func (a *app) load() spec {
	return spec{
		use: "load [OPTIONS]", short: "Load an image from a tar archive or STDIN",
		args: a.noArgs, shownAs: []string{"image load", "load"},
		setup: func(fs *pflag.FlagSet) action {
			input := fs.StringP("input", "i", "", "Read from tar archive file, instead of STDIN")
			platform := fs.StringSlice("platform", nil, `Load only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8").`)
			quiet := fs.BoolP("quiet", "q", false, "Suppress the load output")
			return func(ctx context.Context, _ []string) error { return a.loadImages(ctx, *input, *platform, *quiet) }
		},
	}
}

func (a *app) loadImages(ctx context.Context, input string, platform []string, quiet bool) error {
	var archive io.Reader = a.in
	switch {
	case input != "":
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		archive = f
	case a.in.IsTerminal():
		return errors.New("requested load from stdin, but stdin is empty")
	}
	var o []client.ImageLoadOption
	if quiet || !a.out.IsTerminal() {
		o = append(o, client.ImageLoadWithQuiet(true))
	}
	ps, err := parsePlatforms(platform)
	if err != nil {
		return err
	}
	if len(ps) > 0 {
		o = append(o, client.ImageLoadWithPlatforms(ps...))
	}
	c, err := a.negotiated(ctx) // what has been read from a pipe cannot be sent twice
	if err != nil {
		return err
	}
	res, err := c.ImageLoad(ctx, archive, o...)
	if err != nil {
		return err
	}
	defer func() { _ = res.Close() }()
	return showProgress(ctx, res, a.out)
}
