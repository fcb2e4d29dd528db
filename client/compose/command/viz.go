package command

import (
	"context"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// drawing is how `viz` draws a project.
type drawing struct {
	networks, ports, image bool
	separator              string
}

func (a *app) vizCommand() *cobra.Command {
	var d drawing
	var size int
	var spaces bool
	cmd := command("viz [OPTIONS]", "EXPERIMENTAL - Generate a graphviz graph from your compose file", func(ctx context.Context, _ []string) error {
		if size < 0 {
			return fmt.Errorf("invalid indentation size: %d", size)
		}
		p, err := a.load(ctx)
		if err != nil {
			return err
		}
		indent := strings.Repeat("\t", size)
		if spaces {
			indent = strings.Repeat(" ", size)
		}
		d.separator = a.separator()
		_, _ = fmt.Fprintln(a.out, d.graph(p, indent))
		return nil
	})
	f := cmd.Flags()
	f.BoolVar(&d.ports, "ports", false, "Include service's exposed ports in output graph")
	f.BoolVar(&d.networks, "networks", false, "Include service's attached networks in output graph")
	f.BoolVar(&d.image, "image", false, "Include service's image name in output graph")
	f.IntVar(&size, "indentation-size", 1, "Number of tabs or spaces to use for indentation")
	f.BoolVar(&spaces, "spaces", false, "If given, space character ' ' will be used to indent,\notherwise tab character '\\t' will be used")
	return cmd
}

// graph is the project in the language of graphviz, in a stable order.
func (d *drawing) graph(p *types.Project, indent string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n%slayout=dot;\n", p.Name, indent)
	for _, name := range project.Names(p) {
		fmt.Fprintf(&b, "%s%q [style=\"filled\" label=<%s>];\n", indent, name, d.label(p, p.Services[name]))
	}
	b.WriteString("\n")
	for _, name := range project.Names(p) {
		for _, on := range slices.Sorted(maps.Keys(p.Services[name].DependsOn)) {
			fmt.Fprintf(&b, "%s%q -> %q;\n", indent, name, on)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// label is what stands in a service's node.
func (d *drawing) label(p *types.Project, s types.ServiceConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<font point-size="15">%s</font>`, html.EscapeString(s.Name))
	section := func(title string, lines []string) {
		fmt.Fprintf(&b, `<font point-size="10"><br/><br/><b>%s:</b>`, title)
		for _, l := range lines {
			b.WriteString("<br/>" + html.EscapeString(l))
		}
		b.WriteString("</font>")
	}
	if d.networks && len(s.Networks) > 0 {
		section("Networks", s.NetworksByPriority())
	}
	if d.ports && len(s.Ports) > 0 {
		lines := make([]string, len(s.Ports))
		for i, port := range s.Ports {
			host := ""
			if port.HostIP != "" {
				host = port.HostIP + ":"
			}
			lines[i] = fmt.Sprintf("%s%s:%d (%s, %s)", host, port.Published, port.Target, port.Protocol, port.Mode)
		}
		section("Ports", lines)
	}
	if d.image {
		section("Image", []string{spec.ImageName(p, s, d.separator)})
	}
	return b.String()
}
