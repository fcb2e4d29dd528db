package build

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
)

// complete answers a shell that asks how a command line may go on.
func (a *app) complete(ctx context.Context, args []string) error {
	root := &cobra.Command{Use: a.program, TraverseChildren: true, SilenceErrors: true, SilenceUsage: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	a.globals.Install(root.Flags())
	a.addAll(root, a.commands())
	for _, name := range groups {
		group := &cobra.Command{Use: name}
		root.AddCommand(group)
		a.addAll(group, a.group(name))
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func (a *app) addAll(parent *cobra.Command, list []spec) {
	for _, s := range list {
		cmd := &cobra.Command{Use: s.use, Short: s.short, Hidden: s.hidden, Aliases: s.aliases, Run: func(*cobra.Command, []string) {}, ValidArgsFunction: cobra.NoFileCompletions}
		if s.setup != nil {
			s.setup(cmd.Flags())
			cmd.Flags().String("builder", "", "Override the configured builder instance")
		}
		if strings.Contains(s.use, "PATH | URL") {
			cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
		}
		completeFlags(cmd)
		a.addAll(cmd, s.subs)
		parent.AddCommand(cmd)
	}
}

// completeFlags tells what the values of flags may be.
func completeFlags(cmd *cobra.Command) {
	for flag, values := range map[string][]string{
		"progress":   {"auto", "none", "plain", "quiet", "rawjson", "tty"},
		"network":    {"default", "host", "none"},
		"call":       {"build", "check", "outline", "targets"},
		"allow":      {"network.host", "security.insecure"},
		"platform":   {"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386"},
		"provenance": {"false", "mode=max", "mode=min", "true"},
		"sbom":       {"false", "true"},
		"builder":    {theBuilder},
		"invoke":     {"on-error"},
	} {
		if cmd.Flags().Lookup(flag) != nil {
			// Registering twice is the only error.
			_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}
