package build

import (
	"context"
	"maps"
	"regexp"

	"github.com/distribution/reference"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
)

// solveDockerfile is the Dockerfile frontend.
func solveDockerfile(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	return guardedBuild(ctx, &builtIn{c})
}

// builtIn answers for the images of the Dockerfile frontend, which a `# syntax` line
// names: what they would do is in the engine. Other frontends are forwarded.
type builtIn struct{ gateway.Client }

// frontendTag is a tag that asks for a version of the frontend as new as any. Those of
// the labs channel are the same program since it has no build tags of its own (BuildKit's
// frontend/dockerfile/release).
var frontendTag = regexp.MustCompile(`^(latest|labs|1(\.\d+){0,2}(-labs)?)$`)

const frontendImage = "docker.io/docker/dockerfile"

func (b *builtIn) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if req.Frontend != "gateway.v0" || !isBuiltIn(req.FrontendOpt["source"]) {
		return b.Client.Solve(ctx, req)
	}
	return guardedBuild(ctx, &withOptions{b.Client, maps.Clone(req.FrontendOpt)})
}

// isBuiltIn reports whether the engine can do what a frontend's image does. A digest
// asks for exactly that image.
func isBuiltIn(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil || named.Name() != frontendImage {
		return false
	}
	if _, exact := named.(reference.Digested); exact {
		return false
	}
	tagged, ok := reference.TagNameOnly(named).(reference.Tagged)
	return ok && frontendTag.MatchString(tagged.Tag())
}

// withOptions gives the frontend the options of the request that it is answering. They
// name the frontend, so that it does not look for a syntax line again.
type withOptions struct {
	gateway.Client
	options map[string]string
}

func (o *withOptions) BuildOpts() gateway.BuildOpts {
	opts := o.Client.BuildOpts()
	opts.Opts = o.options
	return opts
}
