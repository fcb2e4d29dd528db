// Command cleatd is the engine: it serves the Docker Engine API on Unix sockets
// and runs containers that outlive it. It takes dockerd's flags.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/internal/assemble"
)

// version is set by the linker.
var version = "unknown"

func main() {
	// The image libraries log through logrus what is ordinary here (a file system
	// without fs-verity, a mirror that lacks an image). What matters comes as errors.
	logrus.SetLevel(logrus.ErrorLevel)
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "cleatd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	config := assemble.Config{Version: version}
	config.Commit, config.BuildTime = revision()
	showVersion := false
	root := &cobra.Command{
		Use: "cleatd [OPTIONS]", Short: "A container engine", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if showVersion {
				return nil
			}
			return config.Check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case showVersion:
				fmt.Fprintf(cmd.OutOrStdout(), "Cleat version %s, build %s\n", version, config.Commit)
				return nil
			case config.Validate:
				fmt.Fprintln(cmd.OutOrStdout(), "configuration OK")
				return nil
			}
			return assemble.Run(cmd.Context(), config, cmd.OutOrStdout())
		},
	}
	config.BindFlags(root.PersistentFlags())
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "Print version information and quit")
	root.AddCommand(debugCommand(&config), shutdownCommand(&config))
	return root
}

// shutdownCommand is what the unit cleat-containers runs when it is stopped.
func shutdownCommand(config *assemble.Config) *cobra.Command {
	return &cobra.Command{
		Use: "shutdown", Short: "Stop the containers that a stopped engine has left running; their restart policies hold after the boot",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return assemble.Shutdown(cmd.Context(), *config) },
	}
}

func debugCommand(config *assemble.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use: "debug", Short: "Look into an engine and its traces",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // else what is mistyped would be a success
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "launch CONTAINER", Short: "Print the launch program of a container: the system calls that start it", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return assemble.DebugLaunch(cmd.Context(), *config, args[0], cmd.OutOrStdout())
			},
		},
		&cobra.Command{
			Use: "fsck", Short: "Compare the engine's records with the kernel and say what differs", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return assemble.DebugFsck(cmd.Context(), *config, cmd.OutOrStdout())
			},
		},
		&cobra.Command{
			Use: "teardown", Short: "Remove bridge, nftables table, cgroups and exec root of a stopped engine without running containers", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return assemble.DebugTeardown(cmd.Context(), *config, cmd.OutOrStdout())
			},
		},
	)
	return cmd
}

// revision is the version control revision that the binary was built from, and when
// that was made.
func revision() (commit, made string) {
	commit = "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return commit, ""
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = s.Value[:12]
		case s.Key == "vcs.time":
			made = s.Value
		}
	}
	return commit, made
}
