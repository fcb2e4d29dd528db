package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/usage"
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

func (a *app) printVersionLine() error {
	if a.name == "docker" {
		_, err := fmt.Fprintf(a.out, "Docker version %s, build cleat\n", a.version)
		return err
	}
	_, err := fmt.Fprintf(a.out, "Cleat version %s\n", a.version)
	return err
}

// usage writes a command's help.
func (a *app) usage(cmd *cobra.Command, w io.Writer) {
	page := usage.Page{Program: a.name}
	if !cmd.HasParent() {
		page.Globals = pflag.NewFlagSet("", pflag.ContinueOnError)
		new(connect.Options).Install(page.Globals)
		page.Footer = fmt.Sprintf("No engine running yet? Start one with '%s engine start'.", filepath.Base(cmd.CommandPath()))
	}
	usage.Write(w, a.err, cmd, page)
}
