package classic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	solveerrors "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Solver is the part of BuildKit's client that a build needs.
type Solver interface {
	Solve(ctx context.Context, def *llb.Definition, opt client.SolveOpt, status chan *client.SolveStatus) (*client.SolveResponse, error)
}

// Builder serves classic builds. It holds no state of them.
type Builder struct {
	// Solver is BuildKit.
	Solver Solver
	// Dir is where contexts lie while they are built: a directory of the engine's own.
	Dir string
}

// Build builds one image. The context is read from body unless r.Remote is set. emit is
// called from one goroutine at a time. An error before the first call of emit is one of the
// request; a step that fails is a [*jsonstream.Error] with the exit code. The build ends
// when ctx does.
func (b *Builder) Build(ctx context.Context, r *Request, body io.Reader, emit func(jsonstream.Message)) error {
	opt := r.solveOpt()
	var steps []step
	if r.Remote == "" {
		sources, err := readSources(ctx, b.Dir, body)
		if err != nil {
			return err
		}
		defer sources.Close()
		dockerfile, err := findDockerfile(sources, r.Dockerfile)
		if err != nil {
			return err
		}
		if steps, err = plan(dockerfile, r.Target); err != nil {
			return err
		}
		opt.LocalMounts = map[string]fsutil.FS{"context": sources, "dockerfile": sources}
	} else {
		opt.FrontendAttrs["context"] = r.Remote
	}
	return b.solve(ctx, r, opt, steps, emit)
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

// solveOpt is the build as BuildKit's Dockerfile frontend takes it.
func (r *Request) solveOpt() client.SolveOpt {
	attributes := make(map[string]string, len(r.attributes)+1)
	for k, v := range r.attributes {
		attributes[k] = v
	}
	attributes["filename"] = path.Clean(r.Dockerfile)
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attributes,
		Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{string(exptypes.OptKeyName): strings.Join(r.Tags, ",")}}},
		Session: []session.Attachable{credentials{auths: r.Auths}},
		// Contexts of one name are likely to be alike: only what differs is kept anew.
		SharedKey: "classic:" + digest.FromString(strings.Join(r.Tags, ",")+"\n"+r.Dockerfile).Encoded(),
	}
	for _, ref := range r.cacheFrom {
		opt.CacheImports = append(opt.CacheImports, client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	if r.hostNet {
		opt.AllowedEntitlements = []string{string(entitlements.EntitlementNetworkHost)}
	}
	return opt
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
	data, err := json.Marshal(build.Result{ID: id})
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
// is not in the context what may have shut it out.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *gateway.ExitError
	var solve *solveerrors.SolveError
	if errors.As(err, &exit) && errors.As(err, &solve) {
		if run := solve.Op.GetExec(); run != nil && exit.ExitCode != gateway.UnknownExitStatus {
			text := fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(run.GetMeta().GetArgs(), " "), exit.ExitCode)
			return &jsonstream.Error{Code: int(exit.ExitCode), Message: text}
		}
	}
	text := err.Error()
	if missing, ok := missingFile(text); ok {
		return failure.NotFound("COPY failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", missing)
	}
	return err
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
