// Package usage writes the help of a command in Docker's layout, for every client program
// alike: usage, what it does, the names it goes by, its options and its commands.
package usage

import (
	"fmt"
	"io"
	"slices"
	"strings"

	mobyterm "github.com/moby/term"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Annotations of a command that its page shows.
const (
	// AnnotationTop puts a command of the root among the common ones; its value orders them.
	AnnotationTop = "top"
	// AnnotationPaths are all paths that a command can be called by, without the program's
	// name, with commas between them.
	AnnotationPaths = "paths"
	// AnnotationManagement puts a command among those that hold others, though its own are
	// another program's.
	AnnotationManagement = "management"
)

// Page is what the page of a command shows beside the command itself.
type Page struct {
	Program string         // the name that the annotated paths begin with
	Globals *pflag.FlagSet // the flags before the command, shown on the root's page
	Footer  string         // the root's last line
}

// Write writes the page of cmd to w, and to stderr why it cannot be written, as on a full disk.
func Write(w, stderr io.Writer, cmd *cobra.Command, page Page) {
	var b strings.Builder
	isRoot := !cmd.HasParent()
	switch {
	case !cmd.HasSubCommands():
		fmt.Fprintf(&b, "Usage:  %s\n", cmd.UseLine())
	case isRoot:
		fmt.Fprintf(&b, "Usage:  %s [OPTIONS] COMMAND\n", cmd.CommandPath())
	case cmd.HasAvailableLocalFlags():
		fmt.Fprintf(&b, "Usage:  %s [OPTIONS] COMMAND\n", cmd.CommandPath())
	default:
		fmt.Fprintf(&b, "Usage:  %s COMMAND\n", cmd.CommandPath())
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(&b, "\n%s\n", about)
	if paths := cmd.Annotations[AnnotationPaths]; paths != "" {
		all := strings.Split(paths, ",")
		for i := range all {
			all[i] = page.Program + " " + all[i]
		}
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(all, ", "))
	}
	if !isRoot {
		options := pflag.NewFlagSet("", pflag.ContinueOnError)
		options.AddFlagSet(cmd.LocalFlags())
		options.AddFlagSet(cmd.InheritedFlags())
		writeFlags(&b, "Options", options)
	}
	writeSections(&b, cmd)
	if isRoot && page.Globals != nil {
		writeFlags(&b, "Global Options", page.Globals)
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
	if isRoot && page.Footer != "" {
		fmt.Fprintf(&b, "\n%s\n", page.Footer)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
	}
}

type line struct{ name, about, order string }

// writeSections lists the commands below cmd by kind.
func writeSections(b *strings.Builder, cmd *cobra.Command) {
	var common, groups, others []line
	for _, c := range cmd.Commands() {
		l := line{c.Name(), c.Short, c.Annotations[AnnotationTop]}
		switch {
		case !c.IsAvailableCommand():
		case c.HasSubCommands(), c.Annotations[AnnotationManagement] != "":
			groups = append(groups, l)
		case !cmd.HasParent() && l.order != "":
			common = append(common, l)
		default:
			others = append(others, l)
		}
	}
	slices.SortFunc(common, func(x, y line) int { return strings.Compare(x.order, y.order) })
	writeCommands(b, "Common Commands", common)
	writeCommands(b, "Management Commands", groups)
	writeCommands(b, "Commands", others)
}

func writeCommands(b *strings.Builder, title string, list []line) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, l := range list {
		fmt.Fprintf(b, "  %-11s %s\n", l.name, l.about)
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
