package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completionPatience bounds what the shell waits for the engine after the tab key.
const completionPatience = 2 * time.Second

func (a *app) completion() spec {
	return spec{
		use: "completion COMMAND", short: "Generate the autocompletion script for the specified shell (bash, zsh, fish, powershell)",
		args: a.exactArgs(1), long: `Generate the autocompletion script for a shell. For bash, for example:

  ` + a.name + ` completion bash > /etc/bash_completion.d/` + a.name + `
  ` + a.name + ` completion zsh > "${fpath[1]}/_` + a.name + `"
  ` + a.name + ` completion fish > ~/.config/fish/completions/` + a.name + `.fish`,
		setup: func(*pflag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				root := a.root("")
				switch args[0] {
				case "bash":
					return root.GenBashCompletionV2(a.out, true)
				case "zsh":
					return root.GenZshCompletion(a.out)
				case "fish":
					return root.GenFishCompletion(a.out, true)
				case "powershell":
					return root.GenPowerShellCompletionWithDesc(a.out)
				}
				return fmt.Errorf("unknown shell %q: choose bash, zsh, fish or powershell", args[0])
			}
		},
	}
}

// isCompletion says whether the shell asks how a command line may go on.
func isCompletion(args []string) bool {
	return len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}

// complete answers the shell: with commands and flags, and with names that the engine knows.
func (a *app) complete(ctx context.Context, root *cobra.Command, args []string) error {
	a.globals.Install(root.Flags())
	a.negotiate = true // a request that is refused as too new would only show as nothing to complete
	var walk func(*cobra.Command, string)
	walk = func(cmd *cobra.Command, path string) {
		a.ready(cmd)
		if ask := a.namesFor(strings.TrimSpace(path)); ask != nil {
			cmd.ValidArgsFunction = ask
		}
		a.completeFlags(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub, path+" "+sub.Name())
		}
	}
	walk(root, "")
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// names finds candidates; word is what has been typed of one.
type names func(ctx context.Context, word string) ([]string, error)

// namesFor is what the arguments of a command are: as many as there can be of one kind, or one of each.
func (a *app) namesFor(path string) cobra.CompletionFunc {
	path = strings.TrimPrefix(path, "container ")
	running, all := a.containerNames(), a.containerNames(everyState...)
	stopped := a.containerNames(container.StateCreated, container.StateExited)
	switch path {
	case "kill", "pause", "restart", "stop", "stats":
		return a.many(running)
	case "unpause":
		return a.many(a.containerNames(container.StatePaused))
	case "start":
		return a.many(stopped)
	case "rm", "wait", "inspect", "update":
		return a.many(all)
	case "attach", "top":
		return a.each(running)
	case "exec":
		return a.each(running)
	case "logs", "port", "rename", "diff", "export", "commit", "network check":
		return a.each(all)
	case "run", "create", "history", "push", "image history", "image push", "tag", "image tag":
		return a.each(a.imageNames)
	case "rmi", "save", "image rm", "image save", "image inspect":
		return a.many(a.imageNames)
	case "volume inspect", "volume rm":
		return a.many(a.volumeNames)
	case "volume clone", "volume rename", "volume snapshot", "volume snapshots", "volume restore", "volume export":
		return a.each(a.volumeNames)
	case "network inspect", "network rm":
		return a.many(a.networkNames)
	case "network connect", "network disconnect":
		return a.each(a.networkNames, all)
	case "context inspect", "context rm":
		return a.many(a.contextNames)
	case "context use", "context export", "context update":
		return a.each(a.contextNames)
	case "completion":
		return a.each(func(context.Context, string) ([]string, error) {
			return []string{"bash", "zsh", "fish", "powershell"}, nil
		})
	case "load", "import", "context import", "cp":
		return nil // files, which the shell knows
	}
	return cobra.NoFileCompletions
}

// many completes any number of different arguments of one kind.
func (a *app) many(find names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
		list, directive := a.ask(cmd, find, word)
		return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(given, s) }), directive
	}
}

// each completes one argument of each kind; what follows belongs to somebody else.
func (a *app) each(kinds ...names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(given) >= len(kinds) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.ask(cmd, kinds[len(given)], word)
	}
}

func (a *app) ask(cmd *cobra.Command, find names, word string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	list, err := find(ctx, word)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list = slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, word) })
	slices.Sort(list)
	return slices.Compact(list), cobra.ShellCompDirectiveNoFileComp
}

// completeFlags tells what the values of a command's flags may be.
func (a *app) completeFlags(cmd *cobra.Command) {
	fixed := func(values ...string) names {
		return func(context.Context, string) ([]string, error) { return values, nil }
	}
	for flag, find := range map[string]names{
		"network":      a.networkNames,
		"volumes-from": a.containerNames(everyState...),
		"link":         a.containerNames(),
		"restart":      fixed("always", "no", "on-failure", "unless-stopped"),
		"log-driver":   fixed("fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"),
		"pull":         fixed("always", "missing", "never"),
		"platform":     fixed("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386"),
		"signal":       fixed("HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "USR1", "USR2"),
		"stop-signal":  fixed("HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "USR1", "USR2"),
		"ipc":          fixed("host", "none", "private", "shareable"),
		"pid":          fixed("host"),
		"uts":          fixed("host"),
		"cgroupns":     fixed("host", "private"),
		"security-opt": fixed("apparmor=", "label=disable", "no-new-privileges", "seccomp=", "systempaths=unconfined"),
		"context":      a.contextNames,
	} {
		if cmd.Flags().Lookup(flag) == nil {
			continue
		}
		// Registering twice is the only error.
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return a.ask(cmd, find, word)
		})
	}
}

// everyState is each that a container can be in: whoever looks for one that ends again and again finds it restarting.
var everyState = []container.ContainerState{
	container.StateCreated, container.StateRunning, container.StatePaused, container.StateRestarting, container.StateRemoving, container.StateExited, container.StateDead,
}

// containerNames finds containers in one of the given states; none is the running ones.
func (a *app) containerNames(states ...container.ContainerState) names {
	return func(ctx context.Context, _ string) ([]string, error) {
		c, err := a.api()
		if err != nil {
			return nil, err
		}
		res, err := c.ContainerList(ctx, client.ContainerListOptions{All: len(states) > 0})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, i := range res.Items {
			if len(states) == 0 || slices.Contains(states, i.State) {
				for _, n := range i.Names {
					out = append(out, strings.TrimPrefix(n, "/"))
				}
			}
		}
		return out, nil
	}
}

func (a *app) imageNames(ctx context.Context, word string) ([]string, error) {
	c, err := a.api()
	if err != nil {
		return nil, err
	}
	res, err := c.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range res.Items {
		for _, tag := range i.RepoTags {
			out = append(out, tag)
			// The tag is offered where one is being typed.
			if name, ok := strings.CutSuffix(tag, ":latest"); ok && !strings.Contains(word, ":") {
				out[len(out)-1] = name
			}
		}
	}
	return out, nil
}

func (a *app) volumeNames(ctx context.Context, _ string) ([]string, error) {
	c, err := a.api()
	if err != nil {
		return nil, err
	}
	res, err := c.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, v := range res.Items {
		out = append(out, v.Name)
	}
	return out, nil
}

func (a *app) networkNames(ctx context.Context, _ string) ([]string, error) {
	c, err := a.api()
	if err != nil {
		return nil, err
	}
	res, err := c.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range res.Items {
		out = append(out, n.Name)
	}
	return out, nil
}

func (a *app) contextNames(context.Context, string) ([]string, error) {
	list, err := a.contexts().List()
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	return out, err
}
