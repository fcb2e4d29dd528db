package build

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/usage"
)

// spec describes one command, or a group of them.
type spec struct {
	use, short, long string
	args             func(n int) string // says what is wrong with n arguments, empty if nothing
	aliases          []string
	paths            string // that it can be called by, with commas, for its help
	hidden           bool
	setup            func(fs *pflag.FlagSet) action
	subs             []spec
}

type action func(ctx context.Context, args []string) error

func (s spec) name() string { name, _, _ := strings.Cut(s.use, " "); return name }

func (s spec) called(name string) bool { return s.name() == name || slices.Contains(s.aliases, name) }

// Names of the groups that the commands are reached by, beside the bare names that they
// have when this program is run by itself.
var groups = []string{"buildx", "builder", "image", "manifest"}

// commands are all that this program has below buildx and builder.
func (a *app) commands() []spec {
	return append([]spec{a.bake(), a.build(), a.dialStdio(), a.du(), a.history(), a.imagetools(), a.inspect(), a.ls(), a.prune(), a.use(), a.versionInfo()}, a.others()...)
}

// group are the commands of one of the groups.
func (a *app) group(name string) []spec {
	switch name {
	case "image":
		return []spec{a.build()}
	case "manifest":
		return a.manifests()
	}
	return a.commands()
}

// execute finds the command, gives it its flags, and runs it.
func (a *app) execute(ctx context.Context, args []string) error {
	globals := pflag.NewFlagSet(a.program, pflag.ContinueOnError)
	globals.SetInterspersed(false)
	globals.Usage = func() {}
	help := globals.BoolP("help", "h", false, "Print usage")
	a.globals.Install(globals)
	globals.StringVar(&a.builder, "builder", "", "Override the configured builder instance")
	if err := globals.Parse(args); err != nil {
		return &exitError{exitFailed, fmt.Sprintf("%s: %v", a.program, err)}
	}
	if !globals.Changed("config") {
		a.globals.ConfigDir = ""
	}
	if err := a.globals.Check(); err != nil {
		return err
	}
	path, rest := []string{a.program}, globals.Args()
	if len(rest) > 0 && (rest[0] == cobra.ShellCompRequestCmd || rest[0] == cobra.ShellCompNoDescRequestCmd) {
		return a.complete(ctx, rest)
	}
	if len(rest) > 0 && rest[0] == "help" {
		*help, rest = true, rest[1:]
	}
	here := a.commands()
	if len(rest) > 0 && slices.Contains(groups, rest[0]) {
		path, rest = append(path, rest[0]), rest[1:]
		here = a.group(path[1])
	}
	root := spec{use: path[len(path)-1], short: "Build images", subs: here}
	return a.descend(ctx, path, root, rest, *help)
}

// descend walks down to the command that args name and runs it.
func (a *app) descend(ctx context.Context, path []string, s spec, args []string, help bool) error {
	if s.setup == nil {
		a.builderFlag(&args)
	}
	for s.setup == nil && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		i := slices.IndexFunc(s.subs, func(sub spec) bool { return sub.called(args[0]) })
		if i < 0 {
			return &exitError{exitFailed, fmt.Sprintf("%[1]s: unknown command: %[2]s %[3]s\n\nRun '%[2]s --help' for more information", a.program, strings.Join(path, " "), args[0])}
		}
		s, path, args = s.subs[i], append(path, s.subs[i].name()), args[1:]
		if s.setup == nil {
			a.builderFlag(&args)
		}
	}
	if s.setup == nil {
		return a.groupHelp(path, s, help || len(args) > 0)
	}
	return a.run(ctx, path, s, args, help)
}

// builderFlag takes --builder from the front of args, where buildx allows it too.
func (a *app) builderFlag(args *[]string) {
	for len(*args) > 0 {
		switch first := (*args)[0]; {
		case strings.HasPrefix(first, "--builder="):
			a.builder, *args = strings.TrimPrefix(first, "--builder="), (*args)[1:]
		case first == "--builder" && len(*args) > 1:
			a.builder, *args = (*args)[1], (*args)[2:]
		case first == "--debug" || first == "-D":
			a.globals.Debug, *args = true, (*args)[1:]
		default:
			return
		}
	}
}

// run parses the command's flags and runs it.
func (a *app) run(ctx context.Context, path []string, s spec, args []string, help bool) error {
	cmd := a.cobra(path, s)
	fs := cmd.Flags()
	action := s.setup(fs)
	a.commonFlags(fs)
	err := fs.Parse(args)
	if asked, _ := fs.GetBool("help"); asked || help {
		a.usage(cmd, a.stdout)
		return nil
	}
	if err != nil {
		return &exitError{exitFailed, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, cmd.UseLine(), cmd.CommandPath())}
	}
	if s.args != nil {
		if wrong := s.args(fs.NArg()); wrong != "" {
			return &exitError{exitFailed, fmt.Sprintf("%[1]s: '%[2]s' %[3]s\n\nUsage:  %[4]s\n\nRun '%[2]s --help' for more information", a.program, cmd.CommandPath(), wrong, cmd.UseLine())}
		}
	}
	return action(ctx, fs.Args())
}

func (a *app) commonFlags(fs *pflag.FlagSet) {
	fs.Bool("help", false, "Print usage")
	_ = fs.MarkHidden("help")
	fs.StringVar(&a.builder, "builder", a.builder, "Override the configured builder instance")
	fs.BoolVarP(&a.globals.Debug, "debug", "D", a.globals.Debug, "Enable debug logging")
}

// cobra is the command as its help shows it, below the words that it was called by.
func (a *app) cobra(path []string, s spec) *cobra.Command {
	_, tail, _ := strings.Cut(s.use, " ")
	cmd := &cobra.Command{Use: strings.TrimSpace(path[len(path)-1] + " " + tail), Short: s.short, Long: s.long, DisableFlagsInUseLine: true, Annotations: map[string]string{}}
	if s.paths != "" {
		cmd.Annotations[usage.AnnotationPaths] = s.paths
	}
	child := cmd
	for _, word := range slices.Backward(path[:len(path)-1]) {
		parent := &cobra.Command{Use: word, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}}
		parent.AddCommand(child)
		child = parent
	}
	return cmd
}

// groupHelp lists what a group has.
func (a *app) groupHelp(path []string, s spec, asked bool) error {
	cmd := a.cobra(path, spec{use: s.name(), short: s.short})
	for _, sub := range s.subs {
		if sub.hidden {
			continue
		}
		child := &cobra.Command{Use: sub.name(), Short: sub.short, Run: func(*cobra.Command, []string) {}}
		if sub.subs != nil {
			child.AddCommand(&cobra.Command{Use: "x", Run: func(*cobra.Command, []string) {}})
		}
		cmd.AddCommand(child)
	}
	a.commonFlags(cmd.Flags())
	w := a.stderr
	if asked {
		w = a.stdout
	}
	a.usage(cmd, w)
	return nil
}

func (a *app) usage(cmd *cobra.Command, w io.Writer) {
	usage.Write(w, a.stderr, cmd, usage.Page{Program: a.program})
}

func exactly(n int) func(int) string {
	return func(got int) string {
		switch {
		case got == n:
			return ""
		case n == 0:
			return "accepts no arguments"
		case n == 1:
			return "requires 1 argument"
		}
		return fmt.Sprintf("requires %d arguments", n)
	}
}

func atMost(n int) func(int) string {
	return func(got int) string {
		if got <= n {
			return ""
		}
		return fmt.Sprintf("requires at most %d argument", n)
	}
}
