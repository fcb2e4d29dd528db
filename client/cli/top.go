package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) top() spec {
	return spec{
		use: "top CONTAINER [ps OPTIONS]", short: "Display the running processes of a container",
		args: a.minArgs(1), shownAs: []string{"container top", "top"},
		setup: func(fs *pflag.FlagSet) action {
			fs.SetInterspersed(false) // what follows the container is for ps
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.ContainerTop(ctx, args[0], client.ContainerTopOptions{Arguments: args[1:]})
				if err != nil {
					return err
				}
				t := term.NewTable(a.out, 20, 3)
				for _, row := range append([][]string{res.Titles}, res.Processes...) {
					_, _ = fmt.Fprintln(t, strings.Join(row, "\t"))
				}
				return t.Flush()
			}
		},
	}
}
