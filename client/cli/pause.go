package cli

import (
	"context"

	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) pause() spec {
	return spec{
		use: "pause CONTAINER [CONTAINER...]", short: "Pause all processes within one or more containers",
		args: a.minArgs(1), shownAs: []string{"container pause", "pause"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, names []string) error {
				return a.forEach(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.ContainerPause(ctx, name, client.ContainerPauseOptions{})
					return err
				})
			}
		},
	}
}

func (a *app) unpause() spec {
	return spec{
		use: "unpause CONTAINER [CONTAINER...]", short: "Unpause all processes within one or more containers",
		args: a.minArgs(1), shownAs: []string{"container unpause", "unpause"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, names []string) error {
				return a.forEach(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{})
					return err
				})
			}
		},
	}
}
