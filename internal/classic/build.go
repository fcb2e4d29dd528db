package classic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/tonistiigi/fsutil"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Solver is BuildKit.
type Solver interface {
	// Attributes are what the Dockerfile frontend is told of a request.
	Attributes(r *build.Request) (map[string]string, error)
	// Solve has the contract of BuildKit's client.
	Solve(ctx context.Context, def *llb.Definition, opt client.SolveOpt, status chan *client.SolveStatus) (*client.SolveResponse, error)
}

// Request is a classic build.
type Request struct {
	build.Request
	// Quiet prints only the image's id.
	Quiet bool
	// Credentials are those for registries, by the registry.
	Credentials map[string]registry.AuthConfig
}

// Builder serves classic builds. It holds no state of them.
type Builder struct {
	Solver Solver
	// Dir is where contexts lie while they are built: a directory of the engine's own.
	Dir string
}

// Build builds one image. emit is called from one goroutine at a time. An error that is a
// [*jsonstream.Error] is one of the build, with the exit code of the step that failed; any
// other is one of the request, before anything was built or emitted. The build ends when
// ctx does.
func (b *Builder) Build(ctx context.Context, r Request, emit func(jsonstream.Message)) error {
	if err := normalize(&r); err != nil {
		return err
	}
	opt, err := b.solveOpt(&r)
	if err != nil {
		return err
	}
	var steps []step
	if r.Remote == "" {
		sources, err := readSources(ctx, b.Dir, r.Context)
		if err != nil {
			return err
		}
		defer sources.Close()
		dockerfile, err := findDockerfile(sources, r.Dockerfile)
		if err != nil {
			return err
		}
		if steps, err = plan(dockerfile, r.Target, opt.FrontendAttrs); err != nil {
			return err
		}
		if err := sources.dropIgnored(r.Dockerfile); err != nil {
			return err
		}
		opt.LocalMounts = map[string]fsutil.FS{"context": sources, "dockerfile": definition(r.Dockerfile, dockerfile)}
		// BuildKit's copy of a context goes on to serve one of the same key, of which only files of another size or time
		// are read. Archives have times of whole seconds, or none, and anybody's may come: so only the very same has that key.
		opt.SharedKey = "classic:" + sources.digest.String()
	} else {
		opt.FrontendAttrs["context"] = r.Remote
	}
	return b.solve(ctx, &r, opt, steps, emit)
}

// normalize fills in what a classic client leaves out, and refuses what it cannot ask for.
func normalize(r *Request) error {
	if r.Dockerfile == "" {
		r.Dockerfile = "Dockerfile"
	}
	r.Dockerfile = path.Clean(r.Dockerfile)
	if r.NetworkMode == "bridge" {
		r.NetworkMode = "" // the same to a step
	}
	if r.Remote != "" {
		if err := build.CheckURL(r.Remote); err != nil {
			return err
		}
	}
	if len(r.Outputs) > 0 {
		return failure.Invalid("outputs need BuildKit: build with version=2, as docker buildx and cleat build do")
	}
	var tags []string
	for _, text := range r.Tags {
		if text == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return failure.Invalid("invalid reference format: tag %q: %w", text, err)
		}
		if _, ok := named.(reference.Canonical); ok {
			return failure.Invalid("build tag cannot contain a digest: %q", text)
		}
		if name := reference.TagNameOnly(named).String(); !slices.Contains(tags, name) {
			tags = append(tags, name)
		}
	}
	r.Tags = tags
	return nil
}

// solve runs the build and prints its progress.
func (b *Builder) solve(ctx context.Context, r *Request, opt client.SolveOpt, steps []step, emit func(jsonstream.Message)) error {
	out := &output{emit: emit, quiet: r.Quiet}
	status := make(chan *client.SolveStatus)
	printed := make(chan struct{})
	p := newPrinter(steps, out.print)
	go func() {
		defer close(printed)
		for s := range status {
			p.update(s)
		}
	}()
	response, err := b.Solver.Solve(ctx, nil, opt, status)
	<-printed
	p.finish(err == nil)
	if err != nil {
		out.release()
		return explain(ctx, err)
	}
	return out.success(response, r.Tags)
}

// solveOpt is the build as BuildKit's client asks for it.
func (b *Builder) solveOpt(r *Request) (client.SolveOpt, error) {
	attributes, err := b.Solver.Attributes(&r.Request)
	if err != nil {
		return client.SolveOpt{}, err
	}
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attributes,
		Exports: []client.ExportEntry{{Type: build.ExporterMoby, Attrs: map[string]string{string(exptypes.OptKeyName): strings.Join(r.Tags, ",")}}},
		Session: []session.Attachable{credentials{auths: r.Credentials}},
	}
	if r.NetworkMode == "host" {
		opt.AllowedEntitlements = []string{entitlements.EntitlementNetworkHost.String()}
	}
	return opt, nil
}

// output writes the stream. A quiet build's lines are kept for the case that it fails.
type output struct {
	emit  func(jsonstream.Message)
	quiet bool
	kept  []string
}

func (o *output) print(text string) {
	if o.quiet {
		o.kept = append(o.kept, text)
		return
	}
	o.emit(jsonstream.Message{Stream: text})
}

// release prints what a quiet build kept.
func (o *output) release() {
	for _, text := range o.kept {
		o.emit(jsonstream.Message{Stream: text})
	}
	o.kept = nil
}

// result is what SDKs read.
type result struct{ ID string }

// success prints the result in the words that SDKs look for.
func (o *output) success(response *client.SolveResponse, tags []string) error {
	id := response.ExporterResponse[exptypes.ExporterImageDigestKey]
	if id == "" {
		id = response.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
	}
	if o.quiet {
		o.emit(jsonstream.Message{Stream: id + "\n"})
		return nil
	}
	data, err := json.Marshal(result{id})
	if err != nil {
		return fmt.Errorf("describe the image: %w", err)
	}
	aux := json.RawMessage(data)
	o.emit(jsonstream.Message{Aux: &aux})
	o.print("Successfully built " + short(strings.TrimPrefix(id, "sha256:")) + "\n")
	for _, name := range tags {
		o.print("Successfully tagged " + familiar(name) + "\n")
	}
	return nil
}

// explain gives a failed step Docker's words and its exit code, and says of a file that
// is not in the context what may have shut it out. What it returns is a record of the
// stream: the build has begun.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *gateway.ExitError
	text := err.Error()
	if errors.As(err, &exit) {
		if command, ok := failedCommand(text); ok {
			text = fmt.Sprintf("The command '%s' returned a non-zero code: %d", command, exit.ExitCode)
		}
		return &jsonstream.Error{Code: int(exit.ExitCode), Message: text}
	}
	if missing, ok := missingFile(text); ok {
		text = fmt.Sprintf("COPY failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", missing)
	}
	return &jsonstream.Error{Message: text}
}

// failedCommand finds the command in BuildKit's error about a step that has failed.
func failedCommand(text string) (string, bool) {
	_, rest, ok := strings.Cut(text, "process ")
	if !ok {
		return "", false
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", false
	}
	command, err := strconv.Unquote(quoted)
	return command, err == nil
}

// missingFile finds the name in BuildKit's error about a file that is to be copied.
func missingFile(text string) (string, bool) {
	const begin, end = `failed to calculate checksum of ref `, `": not found`
	if !strings.Contains(text, begin) || !strings.HasSuffix(text, end) {
		return "", false
	}
	text = strings.TrimSuffix(text, end)
	return strings.TrimPrefix(text[strings.LastIndexByte(text, '"')+1:], "/"), true
}
