package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/dockerconfig"
)

// supplied is the project with what its files do not have: the variables of its providers, which are run for it, and the
// engine's socket.
func (a *app) supplied(ctx context.Context, o *operate.Operator, p *types.Project) (*types.Project, error) {
	p, err := o.ProvideAll(ctx, p)
	if err != nil {
		return nil, err
	}
	return a.withAPISocket(ctx, o, p)
}

// withAPISocket gives the engine's socket and the user's credentials to the services that ask for them.
func (a *app) withAPISocket(ctx context.Context, o *operate.Operator, p *types.Project) (*types.Project, error) {
	if !spec.UsesAPISocket(p) {
		return p, nil
	}
	config, err := dockerconfig.Credentials(a.config())
	if err != nil {
		return nil, fmt.Errorf("use_api_socket: read the credentials for registries: %w", err)
	}
	socket, err := apiSocket(ctx, o)
	if err != nil {
		return nil, err
	}
	return spec.APISocket(p, socket, config)
}

// apiSocket is the engine's socket on its host: the one that it is reached by, or where it listens as a rule.
func apiSocket(ctx context.Context, o *operate.Operator) (string, error) {
	if path, ok := strings.CutPrefix(o.API.DaemonHost(), "unix://"); ok {
		return path, nil
	}
	cleat, err := o.IsCleat(ctx)
	if err != nil {
		return "", err
	}
	if cleat {
		return "/run/cleat.sock", nil
	}
	return "/var/run/docker.sock", nil
}
