package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/project"
)

// completionPatience bounds what the shell waits for the engine after the tab key.
const completionPatience = 2 * time.Second

// completed has shells be told how the arguments of compose's commands, and the values of its flags, may go on.
func (a *app) completed(compose *cobra.Command) {
	for _, cmd := range compose.Commands() {
		if cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = a.argumentsOf(cmd)
		}
	}
	for flag, complete := range map[string]cobra.CompletionFunc{
		"project-name": a.projectNames, "profile": a.profileNames,
		"progress": cobra.FixedCompletions([]string{"auto", "json", "plain", "quiet", "tty"}, cobra.ShellCompDirectiveNoFileComp),
		"ansi":     cobra.FixedCompletions([]string{"always", "auto", "never"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		_ = compose.RegisterFlagCompletionFunc(flag, complete) // a flag that is twice is the only error
	}
}

// argumentsOf is what the line that says how a command is used makes of its arguments.
func (a *app) argumentsOf(cmd *cobra.Command) cobra.CompletionFunc {
	_, arguments, _ := strings.Cut(cmd.Use, " ")
	arguments = strings.TrimPrefix(arguments, "[OPTIONS] ")
	switch {
	case cmd.Name() == "cp":
		return nil // files, which the shell knows
	case strings.HasPrefix(arguments, "[SERVICE=REPLICAS"):
		return a.serviceNames(func([]string) bool { return true }, "=", cobra.ShellCompDirectiveNoSpace)
	case strings.HasPrefix(arguments, "[SERVICE"), strings.HasPrefix(arguments, "SERVICE [SERVICE"):
		return a.serviceNames(func([]string) bool { return true }, "", cobra.ShellCompDirectiveNoFileComp)
	case strings.HasPrefix(arguments, "SERVICE"): // what follows it is somebody else's
		return a.serviceNames(func(given []string) bool { return len(given) == 0 }, "", cobra.ShellCompDirectiveNoFileComp)
	}
	return cobra.NoFileCompletions
}

// serviceNames are those of the project, enabled or not, that are not given yet, where wanted says so; each with what
// follows it.
func (a *app) serviceNames(wanted func(given []string) bool, follows string, directive cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
		if !wanted(given) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		p, err := project.Load(cmd.Context(), a.options, project.Raw{NoEnvironment: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := append(project.Names(p), p.DisabledServiceNames()...)
		for i := range names {
			names[i] += follows
		}
		return begun(names, given, word), directive
	}
}

// profileNames are those that the project's services have.
func (a *app) profileNames(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	o := a.options
	o.Profiles = nil // the one that is being typed
	p, err := project.Load(cmd.Context(), o, project.Raw{NoEnvironment: true})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range p.AllServices() {
		names = append(names, s.Profiles...)
	}
	return begun(names, nil, word), cobra.ShellCompDirectiveNoFileComp
}

// projectNames are those that the engine has containers of.
func (a *app) projectNames(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	api, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", label.Project)})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range list.Items {
		names = append(names, c.Labels[label.Project])
	}
	return begun(names, nil, word), cobra.ShellCompDirectiveNoFileComp
}

// begun are the names, each once and in order, that begin with a word and are not given already.
func begun(names, given []string, word string) []string {
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, word) || slices.Contains(given, n) })
	slices.Sort(names)
	return slices.Compact(names)
}
