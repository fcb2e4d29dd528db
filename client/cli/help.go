package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	mobyterm "github.com/moby/term"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Help texts of --format, which Docker's documentation and completions quote.
const (
	formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

	inspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`
)

func (a *app) installGlobals(fs *pflag.FlagSet) {
	dir := config.Dir()
	certs := os.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = dir
	}
	a.globals.install(fs, dir, certs)
}

func (a *app) printVersionLine() {
	if a.name == "docker" {
		_, _ = fmt.Fprintf(a.out, "Docker version %s, build cleat\n", a.version)
		return
	}
	_, _ = fmt.Fprintf(a.out, "Cleat version %s\n", a.version)
}

// usage writes a command's help in Docker's layout.
func (a *app) usage(cmd *cobra.Command, w io.Writer) {
	var b strings.Builder
	isRoot := !cmd.HasParent()
	switch {
	case !cmd.HasSubCommands():
		fmt.Fprintf(&b, "Usage:  %s\n", cmd.UseLine())
	case isRoot:
		fmt.Fprintf(&b, "Usage:  %s [OPTIONS] COMMAND\n", cmd.CommandPath())
	default:
		fmt.Fprintf(&b, "Usage:  %s COMMAND\n", cmd.CommandPath())
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(&b, "\n%s\n", about)
	if paths := cmd.Annotations[annotationPaths]; paths != "" {
		all := strings.Split(paths, ",")
		for i := range all {
			all[i] = a.name + " " + all[i]
		}
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(all, ", "))
	}
	if !isRoot {
		writeFlags(&b, "Options", cmd.LocalFlags())
	}
	var common, groups, others []*cobra.Command
	for _, c := range cmd.Commands() {
		switch {
		case !c.IsAvailableCommand():
		case c.HasSubCommands():
			groups = append(groups, c)
		case isRoot && c.Annotations[annotationTop] != "":
			common = append(common, c)
		default:
			others = append(others, c)
		}
	}
	slices.SortFunc(common, func(x, y *cobra.Command) int {
		return strings.Compare(x.Annotations[annotationTop], y.Annotations[annotationTop])
	})
	writeCommands(&b, "Common Commands", common)
	writeCommands(&b, "Management Commands", groups)
	writeCommands(&b, "Commands", others)
	if isRoot {
		globals := pflag.NewFlagSet("", pflag.ContinueOnError)
		var shown globalOptions
		(&app{globals: shown}).installGlobals(globals)
		writeFlags(&b, "Global Options", globals)
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
	if isRoot {
		fmt.Fprintf(&b, "\nNo engine running yet? Start one with '%s engine start'.\n", filepath.Base(cmd.CommandPath()))
	}
	_, _ = io.WriteString(w, b.String())
}

func writeCommands(b *strings.Builder, title string, cmds []*cobra.Command) {
	if len(cmds) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, c := range cmds {
		fmt.Fprintf(b, "  %-11s %s\n", c.Name(), c.Short)
	}
}

func writeFlags(b *strings.Builder, title string, fs *pflag.FlagSet) {
	cols := 80
	if ws, err := mobyterm.GetWinsize(0); err == nil && ws.Width > 0 {
		cols = int(ws.Width)
	}
	if text := strings.TrimRight(fs.FlagUsagesWrapped(cols-1), " \t\n"); text != "" {
		fmt.Fprintf(b, "\n%s:\n%s\n", title, text)
	}
}
