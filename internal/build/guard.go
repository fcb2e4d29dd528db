package build

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// guardedBuild is the Dockerfile frontend, which reads no Dockerfile that [CheckExpansion] refuses.
func guardedBuild(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	g := &guard{Client: c, args: map[string]string{}}
	for name, value := range c.BuildOpts().Opts {
		if arg, ok := strings.CutPrefix(name, "build-arg:"); ok {
			g.args[arg] = value
		}
	}
	result, err := dockerfile.Build(ctx, g)
	if err != nil {
		return nil, err
	}
	return unguarded(result), nil
}

// guard stands between the frontend and BuildKit: it sees what files the frontend reads, which images it begins with, and
// what it warns of.
type guard struct {
	gateway.Client
	args map[string]string

	mu     sync.Mutex
	texts  [][]byte // of Dockerfiles
	from   foundation
	warned int // bytes of warnings; more than mostWarned once one was left out
}

// mostWarned bounds the warnings of a build, in bytes. Each has the whole Dockerfile with it, and BuildKit makes one
// message of many, of which clients take no larger ones than 16 MiB.
const mostWarned = 8 << 20

// Warn leaves out what is too much, and says so once.
func (g *guard) Warn(ctx context.Context, vertex digest.Digest, msg string, opts gateway.WarnOpts) error {
	size := len(msg) + len(opts.URL) + len(opts.SourceInfo.GetData())
	for _, d := range opts.Detail {
		size += len(d)
	}
	g.mu.Lock()
	before := g.warned
	if before <= mostWarned {
		g.warned += size
	}
	after := g.warned
	g.mu.Unlock()
	switch {
	case before > mostWarned:
		return nil
	case after > mostWarned:
		return g.Client.Warn(ctx, vertex, "There are more warnings than are told here: mend these first", gateway.WarnOpts{Level: opts.Level})
	}
	return g.Client.Warn(ctx, vertex, msg, opts)
}

// Solve gives references that tell of what is read by them.
func (g *guard) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	result, err := g.Client.Solve(ctx, req)
	if err != nil {
		return nil, err
	}
	return eachRef(result, func(r gateway.Reference) gateway.Reference { return &guardedRef{r, g} }), nil
}

// ResolveImageConfig looks at what an image adds to the variables.
func (g *guard) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	name, d, config, err := g.Client.ResolveImageConfig(ctx, ref, opt)
	if err == nil {
		err = g.image(config)
	}
	return name, d, config, err
}

func (g *guard) image(config []byte) error {
	var image struct {
		Config struct {
			ocispec.ImageConfig
			OnBuild []string
		}
	}
	if json.Unmarshal(config, &image) != nil {
		return nil // the frontend says it
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from.env == nil {
		g.from.env = map[string]int{}
	}
	for _, e := range image.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		g.from.env[name] = max(g.from.env[name], len(value))
	}
	g.from.triggers = append(g.from.triggers, image.Config.OnBuild...)
	for _, text := range g.texts {
		if err := checkExpansion(text, g.args, g.from); err != nil {
			return err
		}
	}
	return nil
}

// read looks at a file that the frontend reads.
func (g *guard) read(name string, text []byte) error {
	if strings.HasSuffix(name, ".dockerignore") {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.texts = append(g.texts, text)
	return checkExpansion(text, g.args, g.from)
}

type guardedRef struct {
	gateway.Reference
	guard *guard
}

func (r *guardedRef) ReadFile(ctx context.Context, req gateway.ReadRequest) ([]byte, error) {
	text, err := r.Reference.ReadFile(ctx, req)
	if err == nil {
		err = r.guard.read(req.Filename, text)
	}
	return text, err
}

// unguarded gives BuildKit back its own references.
func unguarded(result *gateway.Result) *gateway.Result {
	return eachRef(result, func(r gateway.Reference) gateway.Reference {
		if g, ok := r.(*guardedRef); ok {
			return g.Reference
		}
		return r
	})
}

// eachRef is a result with other references.
func eachRef(result *gateway.Result, change func(gateway.Reference) gateway.Reference) *gateway.Result {
	if result == nil {
		return nil
	}
	changed := func(r gateway.Reference) gateway.Reference {
		if r == nil {
			return nil
		}
		return change(r)
	}
	other := result.Clone()
	other.Ref = changed(result.Ref)
	for name, r := range other.Refs {
		other.Refs[name] = changed(r)
	}
	for name, list := range other.Attestations {
		list = append(list[:0:0], list...)
		for i := range list {
			list[i].Ref = changed(list[i].Ref)
		}
		other.Attestations[name] = list
	}
	return other
}
