package solve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/sync/errgroup"
)

// node is a target among others, some of which use its result as a context.
type node struct {
	ready chan struct{} // closed when res or err is there
	once  sync.Once
	res   *gateway.Result
	err   error
	users sync.WaitGroup // targets that use it and have not ended
	used  bool
}

func (n *node) settle(res *gateway.Result, err error) {
	n.once.Do(func() {
		n.res, n.err = res, err
		close(n.ready)
	})
}

// errLinked is the failure of a target that another one uses: it is told once, by that one.
var errLinked = errors.New("a target that this one uses has failed")

// BuildAll builds targets at the same time, not more than most of them if that is not 0. A
// target whose result others use stays in the engine until these have ended. The first
// failure cancels all.
func (e *Engine) BuildAll(ctx context.Context, targets map[string]*Target, most int, p *Progress) (map[string]*Result, error) {
	if _, err := e.BuildKit(ctx); err != nil { // made once, before there are many
		return nil, err
	}
	nodes := map[string]*node{}
	for name := range targets {
		nodes[name] = &node{ready: make(chan struct{})}
	}
	for name, t := range targets {
		for _, other := range t.Links {
			n := nodes[other]
			if n == nil {
				return nil, fmt.Errorf("target %s uses target %s, which is not built", name, other)
			}
			if most > 0 && most < len(targets) {
				return nil, errors.New("limited parallelism is not supported with linked targets")
			}
			n.used = true
			n.users.Add(1)
		}
	}
	var mu sync.Mutex
	out := map[string]*Result{}
	eg, ctx := errgroup.WithContext(ctx)
	if most > 0 {
		eg.SetLimit(most)
	}
	for name, t := range targets {
		eg.Go(func() error {
			for _, other := range t.Links {
				defer nodes[other].users.Done()
			}
			res, err := e.buildNode(ctx, t, nodes, nodes[name], p)
			nodes[name].settle(nil, errLinked) // if it has not come to a result
			if err != nil {
				if len(targets) > 1 {
					err = fmt.Errorf("target %s: %w", name, err)
				}
				return err
			}
			mu.Lock()
			out[name] = res
			mu.Unlock()
			return nil
		})
	}
	return out, eg.Wait()
}

func (e *Engine) buildNode(ctx context.Context, t *Target, nodes map[string]*node, self *node, p *Progress) (*Result, error) {
	for name, other := range t.Links {
		n := nodes[other]
		select {
		case <-n.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if n.err != nil {
			<-ctx.Done() // the target that failed says why
			return nil, errors.Join(n.err, context.Cause(ctx))
		}
		in, err := inputOf(n.res)
		if err != nil {
			return nil, fmt.Errorf("the result of target %s cannot be used: %w", other, err)
		}
		if t.Inputs == nil {
			t.Inputs = map[string]Input{}
		}
		t.Inputs[name] = in
	}
	if !self.used {
		return e.Build(ctx, t, p)
	}
	t.hold = func(res *gateway.Result) {
		self.settle(res, nil)
		self.users.Wait()
	}
	return e.Build(ctx, t, p)
}

// held evaluates the result and keeps it until those who use it have ended.
func (t *Target) held(ctx context.Context, c *bkclient.Client, so *bkclient.SolveOpt, ch chan *bkclient.SolveStatus) (*Result, error) {
	return evaluated(ctx, c, so, ch, func(_ context.Context, _ gateway.Client, res *gateway.Result, err error) error {
		if err == nil {
			t.hold(res)
		}
		return err
	})
}

// evaluated builds with the frontend driven from here, so that the engine keeps the result, or what a failed step has
// left, until then has returned; its error is the build's.
func evaluated(ctx context.Context, c *bkclient.Client, so *bkclient.SolveOpt, ch chan *bkclient.SolveStatus,
	then func(ctx context.Context, g gateway.Client, res *gateway.Result, err error) error) (*Result, error) {
	req, err := frontendRequest(ctx, so)
	if err != nil {
		close(ch)
		return nil, err
	}
	req.Evaluate = true
	r, err := c.Build(ctx, *so, "cleat", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		res, err := g.Solve(ctx, req)
		if err := then(ctx, g, res, err); err != nil {
			return nil, err
		}
		return res, nil
	}, ch)
	if err != nil {
		return nil, err
	}
	return &Result{Ref: so.Ref, Response: r.ExporterResponse}, nil
}

// configKey is where a result has the image's configuration; of several platforms, with
// their names after it.
const configKey = "containerimage.config"

// inputOf makes of a result what another build takes as a context.
func inputOf(res *gateway.Result) (Input, error) {
	in := Input{States: map[string]llb.State{}, Metadata: map[string]string{}}
	add := func(platform string, ref gateway.Reference) error {
		state := llb.Scratch()
		if ref != nil {
			var err error
			if state, err = ref.ToState(); err != nil {
				return err
			}
		}
		in.States[platform] = state
		config, ok := res.Metadata[strings.TrimSuffix(configKey+"/"+platform, "/")]
		if !ok {
			return nil
		}
		data, err := json.Marshal(map[string][]byte{configKey: config})
		in.Metadata[platform] = string(data)
		return err
	}
	if res.Ref != nil || len(res.Refs) == 0 {
		return in, add("", res.Ref)
	}
	for platform, ref := range res.Refs {
		if err := add(platform, ref); err != nil {
			return in, err
		}
	}
	return in, nil
}
