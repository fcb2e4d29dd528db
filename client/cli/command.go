package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/usage"
)

// spec describes one command. Its flags are built only if it is the one that runs.
type spec struct {
	use, short string
	long       string // instead of short in its own help
	args       cobra.PositionalArgs
	aliases    []string // other names beside the first word of use
	shownAs    []string // every path it can be called by, for its help
	top        int      // place among the common commands; 0 is none of them
	hidden     bool     // from lists of commands
	ownHelp    bool     // has --help without -h, which means something else there
	setup      func(fs *pflag.FlagSet) action
}

// action runs a command whose flags have been parsed.
type action func(ctx context.Context, args []string) error

// command makes s a command of the tree.
func (a *app) command(s spec) *cobra.Command {
	cmd := &cobra.Command{
		Use: s.use, Short: s.short, Long: s.long, Args: s.args, Aliases: s.aliases,
		DisableFlagsInUseLine: true, Hidden: s.hidden,
		Annotations: map[string]string{},
	}
	if len(s.shownAs) > 0 {
		cmd.Annotations[usage.AnnotationPaths] = strings.Join(s.shownAs, ",")
	}
	if s.top > 0 {
		cmd.Annotations[usage.AnnotationTop] = string(rune('a' + s.top))
	}
	if s.ownHelp {
		cmd.Flags().Bool("help", false, "Print usage")
	}
	var run action
	a.prepare[cmd] = func() { run = s.setup(cmd.Flags()) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }
	return cmd
}

// group is a management command: it only holds others.
func (a *app) group(use, short string, subs ...spec) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: a.noArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error { a.usage(cmd, a.err); return nil },
	}
	for _, s := range subs {
		cmd.AddCommand(a.command(s))
	}
	return cmd
}

// as is s as a member of a management command, under another name.
func (s spec) as(use string, aliases ...string) spec {
	if use != "" {
		s.use = use
	}
	s.aliases, s.top = aliases, 0
	return s
}

// name is what the command is called by.
func (s spec) name() string { name, _, _ := strings.Cut(s.use, " "); return name }

// root makes the tree of commands. If only is one of those that stand directly at the
// root, it is the only one: to make them all takes as long as to run one.
func (a *app) root(only string) *cobra.Command {
	root := a.bareRoot()
	specs := a.topCommands()
	if i := slices.IndexFunc(specs, func(s spec) bool { return s.name() == only }); i >= 0 {
		root.AddCommand(a.command(specs[i]))
		return root
	}
	for _, s := range specs {
		root.AddCommand(a.command(s))
	}
	root.AddCommand(a.pluginCommands()...)
	root.AddCommand(a.groups()...)
	return root
}

// bareRoot is the root without commands, but for help.
func (a *app) bareRoot() *cobra.Command {
	root := &cobra.Command{
		Use:                   a.name + " [OPTIONS] COMMAND [ARG...]",
		Short:                 "A container engine that starts in milliseconds",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:                  func(cmd *cobra.Command, _ []string) error { a.usage(cmd, a.err); return nil },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().BoolP("help", "h", false, "Print usage")
	_ = root.PersistentFlags().MarkShorthandDeprecated("help", "use --help")
	root.PersistentFlags().Lookup("help").Hidden = true
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.ready(cmd); a.usage(cmd, a.out) })
	root.SetFlagErrorFunc(a.flagError)
	help := &cobra.Command{
		Use: "help [command]", Short: "Help about the command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := root.Find(args)
			if err != nil || target == nil || len(rest) > 0 {
				if target == root {
					if err := a.execDockerPlugin(args[0]); err != nil {
						return err
					}
				}
				return fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))
			}
			a.ready(target)
			a.usage(target, a.out)
			return nil
		},
	}
	root.SetHelpCommand(help)
	root.AddCommand(help)
	return root
}

// topCommands are those that stand directly at the root.
func (a *app) topCommands() []spec {
	return []spec{
		a.run(), a.exec(), a.ps(), a.pull(), a.push(), a.images(), a.versionCommand(), a.info(), a.attach(),
		a.commit(), a.cp(), a.create(), a.diff(), a.events(), a.export(), a.history(), a.importImage(), a.inspect(),
		a.kill(), a.load(), a.login(), a.logout(), a.logs(), a.pause(), a.port(), a.rename(), a.restart(), a.rm(),
		a.rmi(), a.save(), a.search(), a.start(), a.stats(), a.stop(), a.tag(), a.top(), a.completion(), a.unpause(),
		a.update(), a.wait(),
	}
}

// groups are the commands by what they are about.
func (a *app) groups() []*cobra.Command {
	return []*cobra.Command{
		a.group("container", "Manage containers",
			a.attach().as(""), a.commit().as(""), a.diff().as(""), a.export().as(""), a.cp().as(""), a.containerPrune(), a.create().as(""), a.exec().as(""), a.containerInspect(), a.kill().as(""), a.logs().as(""),
			a.ps().as("ls [OPTIONS]", "ps", "list"), a.rename().as(""), a.restart().as(""), a.rm().as("", "remove"), a.run().as(""),
			a.start().as(""), a.stop().as(""), a.wait().as(""), a.pause().as(""), a.port().as(""), a.stats().as(""), a.top().as(""), a.unpause().as(""), a.update().as("")),
		a.group("image", "Manage images",
			a.pluginImageBuild(), a.importImage().as(""), a.imagePrune(), a.save().as(""), a.history().as(""), a.imageInspect(), a.load().as(""), a.images().as("ls [OPTIONS] [REPOSITORY[:TAG]]", "list"),
			a.pull().as(""), a.push().as(""), a.rmi().as("rm [OPTIONS] IMAGE [IMAGE...]", "remove"), a.tag().as("")),
		a.group("volume", "Manage volumes", append([]spec{a.volumeCreate(), a.volumeInspect(), a.volumeLs(), a.volumePrune(), a.volumeRm(), a.volumeUpdate()}, a.volumeCopies()...)...),
		a.group("network", "Manage networks", a.networkCheck(), a.networkConnect(), a.networkCreate(), a.networkDisconnect(), a.networkInspect(), a.networkLs(),
			a.networkPrune(), a.networkRm()),
		a.group("system", "Manage the engine's system", a.systemDF(), a.events().as(""), a.info().as(""), a.systemPrune(), a.systemDialStdio()),
		a.group("context", "Manage contexts",
			a.contextCreate(), a.contextExport(), a.contextImport(), a.contextInspect(), a.contextLs(), a.contextRm(), a.contextShow(),
			a.contextUpdate(), a.contextUse()),
		a.group("engine", "Manage the engine itself", a.engineStart(), a.engineStop(), a.engineStatus(), a.engineLogs()),
	}
}

// errHelped ends a run in which only help was asked for.
var errHelped = errors.New("help was asked for")

// parseGlobals parses the flags before the command and returns what follows.
func (a *app) parseGlobals(root *cobra.Command) ([]string, error) {
	fs := pflag.NewFlagSet(a.name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(a.err)
	a.globals.Install(fs)
	fs.AddFlagSet(root.PersistentFlags())
	if err := fs.Parse(a.args); err != nil {
		return nil, a.flagError(root, err)
	}
	if !fs.Changed("config") {
		a.globals.ConfigDir = ""
	}
	rest := fs.Args()
	if help := fs.Lookup("help"); help.Changed && help.Value.String() == "true" {
		if len(rest) == 0 {
			a.usage(root, a.out)
			return nil, errHelped
		}
		// The flag is every command's: left set, it would ask for the help of help.
		help.Changed = false
		return append([]string{"help"}, rest...), help.Value.Set("false")
	}
	return rest, nil
}

func (a *app) flagError(cmd *cobra.Command, err error) error {
	return &statusError{code: 125, msg: fmt.Sprintf("%s%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, usage.SuggestFlag(cmd, err), cmd.UseLine(), cmd.CommandPath())}
}

// later are Docker's commands that Cleat does not have yet.
var later = []string{"checkpoint", "config", "node", "plugin", "secret", "service", "stack", "swarm"}

func (a *app) unknownCommand(root *cobra.Command, name string) error {
	if slices.Contains(later, name) {
		return fmt.Errorf("%[1]s: '%[2]s' is not a cleat command yet: it comes with a later version, see '%[1]s --help' for those there are", a.name, name)
	}
	if name == "trust" {
		return fmt.Errorf("%s: 'trust' is not supported: Docker Content Trust and its notary servers are being retired; "+
			"pull by digest (NAME@sha256:…), and sign and check with cosign or notation, which work with any registry", a.name)
	}
	return fmt.Errorf("%[1]s: unknown command: %[1]s %[2]s%[3]s\n\nRun '%[1]s --help' for more information", a.name, name, usage.Suggest(root, name))
}

func (a *app) noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("%[1]s: unknown command: %[2]s %[3]s%[4]s\n\nUsage:  %[5]s\n\nRun '%[2]s --help' for more information",
			a.name, cmd.CommandPath(), args[0], usage.Suggest(cmd, args[0]), cmd.UseLine())
	}
	return fmt.Errorf("%[1]s: '%[2]s' accepts no arguments\n\nUsage:  %[3]s\n\nRun '%[2]s --help' for more information", a.name, cmd.CommandPath(), cmd.UseLine())
}

func (a *app) minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return fmt.Errorf("%[1]s: '%[2]s' requires at least %[3]d %[4]s\n\nUsage:  %[5]s\n\nSee '%[2]s --help' for more information",
			a.name, cmd.CommandPath(), n, arguments(n), cmd.UseLine())
	}
}

func (a *app) maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return fmt.Errorf("%[1]s: '%[2]s' requires at most %[3]d %[4]s\n\nUsage:  %[5]s\n\nRun '%[2]s --help' for more information",
			a.name, cmd.CommandPath(), n, arguments(n), cmd.UseLine())
	}
}

func (a *app) rangeArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return fmt.Errorf("%[1]s: '%[2]s' requires at least %[3]d and at most %[4]d %[5]s\n\nUsage:  %[6]s\n\nRun '%[2]s --help' for more information",
			a.name, cmd.CommandPath(), least, most, arguments(most), cmd.UseLine())
	}
}

func (a *app) exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return fmt.Errorf("%[1]s: '%[2]s' requires %[3]d %[4]s\n\nUsage:  %[5]s\n\nRun '%[2]s --help' for more information",
			a.name, cmd.CommandPath(), n, arguments(n), cmd.UseLine())
	}
}

func arguments(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}
