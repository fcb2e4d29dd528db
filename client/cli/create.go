package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

func (a *app) create() spec {
	return spec{
		use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Create a new container",
		args: a.minArgs(1), ownHelp: true, shownAs: []string{"container create", "create"},
		setup: func(fs *pflag.FlagSet) action {
			f := newContainerFlags(fs, "creating")
			return func(ctx context.Context, args []string) error {
				req, err := a.prepareRequest(f, args)
				if err != nil {
					return &statusError{code: 125, msg: a.withHelp(err, "create").Error(), cause: err}
				}
				id, err := a.createContainer(ctx, f, req)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(a.out, id)
				return nil
			}
		},
	}
}

// prepareRequest checks the flags and builds the request, with the proxy settings of
// the user's configuration for this engine.
func (a *app) prepareRequest(f *containerFlags, args []string) (*request, error) {
	switch f.pull {
	case "": // as scripts write it whose variable is not set
		f.pull = pullMissing
	case pullAlways, pullMissing, pullNever:
	default:
		return nil, fmt.Errorf(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, f.pull)
	}
	req, err := f.request(args)
	if err != nil {
		return nil, err
	}
	if cfg := a.config(); len(cfg.Proxies) > 0 {
		c, err := a.api()
		if err != nil {
			return nil, err
		}
		req.config.Env = withProxies(req.config.Env, cfg.ParseProxyConfig(c.DaemonHost(), opts.ConvertKVStringsToMapWithNil(req.config.Env)))
	}
	return req, nil
}

// withProxies adds those of the merged settings that env does not have yet.
func withProxies(env []string, merged map[string]*string) []string {
	have := opts.ConvertKVStringsToMapWithNil(env)
	for _, k := range slices.Sorted(maps.Keys(merged)) {
		if _, ok := have[k]; !ok && merged[k] != nil {
			env = append(env, k+"="+*merged[k])
		}
	}
	return env
}

// createContainer creates the container and returns its id. An image that the engine
// does not have is pulled first, if --pull allows it.
func (a *app) createContainer(ctx context.Context, f *containerFlags, req *request) (string, error) {
	cid, err := newCIDFile(f.cidFile)
	if err != nil {
		return "", err
	}
	defer cid.close()
	image, err := parseImage(req.config.Image)
	if err != nil {
		return "", err
	}
	var platform *ocispec.Platform
	if f.platform != "" {
		p, err := platforms.Parse(f.platform)
		if err != nil {
			return "", fmt.Errorf("error parsing specified platform: %w", err)
		}
		platform = &p
	}
	c, err := a.api()
	if err != nil {
		return "", err
	}
	if f.pull == pullAlways {
		if err := a.pullFor(ctx, f, req.config.Image, platform); err != nil {
			return "", err
		}
	}
	rows, cols := a.out.Size()
	req.host.ConsoleSize = [2]uint{rows, cols}
	options := client.ContainerCreateOptions{Name: f.name, Platform: platform, Config: req.config, HostConfig: req.host, NetworkingConfig: req.networking}
	res, err := c.ContainerCreate(ctx, options)
	if named, ok := image.(reference.Named); err != nil && ok && f.pull == pullMissing && errdefs.IsNotFound(err) && isMissingImage(err) {
		if !f.quiet {
			_, _ = fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", reference.FamiliarString(reference.TagNameOnly(named)))
		}
		if err := a.pullFor(ctx, f, req.config.Image, platform); err != nil {
			return "", err
		}
		res, err = c.ContainerCreate(ctx, options)
	}
	if err != nil {
		return "", err
	}
	for _, w := range res.Warnings {
		_, _ = fmt.Fprintln(a.err, "WARNING:", w)
	}
	return res.ID, cid.write(res.ID)
}

// pullFor pulls the image of a container to be, telling its progress on stderr: only
// the container's own output belongs on stdout.
func (a *app) pullFor(ctx context.Context, f *containerFlags, image string, platform *ocispec.Platform) error {
	out := a.err
	if f.quiet {
		out = term.NewOutput(io.Discard)
	}
	err := a.pullImage(ctx, image, platform, false, out)
	if unshown := (unshownError{}); errors.As(err, &unshown) {
		return nil // the image is there
	}
	return err
}

// isMissingImage tells a missing image from other things that were not found, such
// as a network or the container of --volumes-from.
func isMissingImage(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "image")
}

// cidFile is the file of --cidfile. It exists from before the container is created,
// so that two runs cannot share it, and goes away if none is.
type cidFile struct {
	path    string
	f       *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, errors.New("container ID file found, make sure the other container isn't running or delete " + path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{path: path, f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	if _, err := io.WriteString(c.f, id); err != nil {
		return fmt.Errorf("failed to write the container ID (%s) to file: %w", id, err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() {
	if c.f == nil {
		return
	}
	_ = c.f.Close()
	if !c.written {
		_ = os.Remove(c.path)
	}
}
