package solve

import (
	"context"
	"errors"
	"maps"

	bkclient "github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// Result is what the engine says of a finished build.
type Result struct {
	Ref      string            // of the build in the engine's history
	Response map[string]string // of the exporters, and of the frontend if it was called
}

// ImageID is the image's identifier, empty if there is no image.
func (r *Result) ImageID() string {
	if id := r.Response["containerimage.config.digest"]; id != "" {
		return id
	}
	return r.Response["containerimage.digest"]
}

// Build builds t and returns when its outputs are complete. Ending ctx cancels the build.
func (e *Engine) Build(ctx context.Context, t *Target, p *Progress) (*Result, error) {
	so, err := t.request(ctx, e)
	if err != nil {
		return nil, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	serveWhole(so, fail, p.Warn)
	c, err := e.BuildKit(ctx)
	if err != nil {
		return nil, err
	}
	ch, wait := p.channel(t.Name)
	defer wait()
	var res *Result
	switch {
	case t.Invoke != nil:
		res, err = t.invoked(ctx, c, so, ch, p)
	case t.hold != nil:
		res, err = t.held(ctx, c, so, ch)
	case t.Call != nil:
		res, err = call(ctx, c, so, t.Call.Name, ch)
	default:
		// The frontend is run by the engine itself, which saves the round trips of
		// driving it from here.
		var r *bkclient.SolveResponse
		if r, err = c.Solve(ctx, nil, *so, ch); err == nil {
			res = &Result{Ref: so.Ref, Response: r.ExporterResponse}
		}
	}
	if bad := (*FileError)(nil); errors.As(context.Cause(ctx), &bad) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if res.Response == nil {
		res.Response = map[string]string{}
	}
	for _, ex := range so.Exports {
		if ex.Attrs["prefer-image-digest"] == "true" {
			delete(res.Response, "containerimage.config.digest")
		}
	}
	return res, nil
}

// call asks the frontend a question.
func call(ctx context.Context, c *bkclient.Client, so *bkclient.SolveOpt, name string, ch chan *bkclient.SolveStatus) (*Result, error) {
	req, err := frontendRequest(ctx, so)
	if err != nil {
		close(ch)
		return nil, err
	}
	const capability = "moby.buildkit.frontend.subrequests+forward"
	if caps := req.FrontendOpt["frontend.caps"]; caps != "" {
		req.FrontendOpt["frontend.caps"] = caps + "," + capability
	} else {
		req.FrontendOpt["frontend.caps"] = capability
	}
	req.FrontendOpt["requestid"] = "frontend." + name
	answer := map[string]string{}
	_, err = c.Build(ctx, *so, "cleat", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		res, err := g.Solve(ctx, req)
		if err != nil {
			return nil, err
		}
		for k, v := range res.Metadata {
			answer[k] = string(v)
		}
		return res, nil
	}, ch)
	return &Result{Ref: so.Ref, Response: answer}, err
}

// frontendRequest takes from so what the frontend is asked, for driving it from here.
func frontendRequest(ctx context.Context, so *bkclient.SolveOpt) (gateway.SolveRequest, error) {
	inputs := map[string]*pb.Definition{}
	for name, state := range so.FrontendInputs {
		def, err := state.Marshal(ctx)
		if err != nil {
			return gateway.SolveRequest{}, err
		}
		inputs[name] = def.ToPB()
	}
	req := gateway.SolveRequest{Frontend: so.Frontend, FrontendInputs: inputs, FrontendOpt: maps.Clone(so.FrontendAttrs)}
	so.Frontend, so.FrontendInputs = "", nil
	return req, nil
}
