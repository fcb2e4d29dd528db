package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all that compose has.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.upCommand(), a.createCommand(), a.downCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(), a.killCommand(), a.rmCommand(),
		a.pauseCommand(), a.unpauseCommand(), a.scaleCommand(), a.waitCommand(), a.watchCommand(),
		a.psCommand(), a.lsCommand(), a.imagesCommand(), a.volumesCommand(), a.topCommand(), a.portCommand(), a.logsCommand(), a.eventsCommand(),
		a.pullCommand(), a.pushCommand(), a.buildCommand(), a.configCommand(), a.vizCommand(), a.publishCommand(), a.versionCommand(),
		a.execCommand(), a.runCommand(), a.attachCommand(), a.cpCommand(), a.statsCommand(), a.exportCommand(), a.commitCommand(),
		refused("alpha", "what was tried out there has commands of its own: watch, viz, scale, publish"),
		refused("bridge", "models for Kubernetes and others are made by other programs, as kompose"),
	}
}

// refused is a command of docker compose's that is not here.
func refused(name, why string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error { return fmt.Errorf("compose %s is not supported: %s", name, why) },
	}
}

// command is one with services as arguments.
func command(use, short string, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) },
	}
}

// refusal is a flag that is known and has no effect here: using it is an error.
func (a *app) refusal(cmd *cobra.Command, name, why string) {
	cmd.Flags().String(name, "", "Not supported: "+why)
	cmd.Flags().Lookup(name).NoOptDefVal = "true"
	_ = cmd.Flags().MarkHidden(name)
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s is not supported: %s", name, why)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// formerly lets flags go by other names that docker compose has or had for them, too.
func formerly(f *pflag.FlagSet, names map[string]string) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if now, ok := names[name]; ok {
			name = now
		}
		return pflag.NormalizedName(name)
	})
}

// orphansFlag adds --remove-orphans. Where it is not given COMPOSE_REMOVE_ORPHANS counts, which the project's .env may
// have: the function gives its value once that has been read.
func orphansFlag(f *pflag.FlagSet) func() bool {
	asked := f.Bool("remove-orphans", false, "Remove containers for services not defined in the Compose file")
	return func() bool {
		if f.Changed("remove-orphans") {
			return *asked
		}
		return enabled("COMPOSE_REMOVE_ORPHANS", false)
	}
}

// timeoutFlag adds -t; the function gives its value, nil if it was not given.
func timeoutFlag(cmd *cobra.Command, what string) func() *int {
	n := cmd.Flags().IntP("timeout", "t", 0, what)
	return func() *int {
		if !cmd.Flags().Changed("timeout") {
			return nil
		}
		return n
	}
}
