package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/docker/cli/cli/context/store"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) contextShow() spec {
	return spec{
		use: "show", short: "Print the name of the current context", args: a.noArgs,
		setup: func(*pflag.FlagSet) action {
			return func(context.Context, []string) error {
				_, err := fmt.Fprintln(a.out, a.contextName())
				return err
			}
		},
	}
}

func (a *app) contextInspect() spec {
	return spec{
		use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", short: "Display detailed information on one or more contexts",
		setup: func(fs *pflag.FlagSet) action {
			format := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, names []string) error {
				if len(names) == 0 {
					names = []string{a.contextName()}
				}
				s := a.contexts()
				return a.inspectAll(ctx, names, *format, func(_ context.Context, name string) (any, []byte, error) {
					m, err := s.GetMetadata(name)
					if err != nil {
						return nil, nil, err
					}
					tls, err := s.ListTLSFiles(name)
					if err != nil {
						return nil, nil, err
					}
					found := inspectedContext{m, tls, s.GetStorageInfo(name)}
					raw, err := json.Marshal(found)
					return found, raw, err
				}, nil)
			}
		},
	}
}

type inspectedContext struct {
	store.Metadata
	TLSMaterial map[string]store.EndpointFiles
	Storage     store.StorageInfo
}

func (a *app) contextLs() spec {
	return spec{
		use: "ls [OPTIONS]", short: "List contexts", args: a.noArgs, aliases: []string{"list"}, shownAs: []string{"context ls", "context list"},
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", formatHelp)
			quiet := fs.BoolP("quiet", "q", false, "Only show context names")
			return func(context.Context, []string) error {
				rows, err := a.contextRows()
				if err != nil {
					return err
				}
				switch {
				case *quiet:
					*format = "{{.Name}}"
				case *format == "" || *format == "table":
					*format = `table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}`
				}
				if err := (listing{format: *format, headers: contextHeaders}).write(a.out, rows); err != nil {
					return err
				}
				if os.Getenv(client.EnvOverrideHost) != "" {
					_, _ = fmt.Fprintf(a.err, "Warning: %[1]s environment variable overrides the active context. "+
						"To use a context, either set the global --context flag, or unset %[1]s environment variable.\n", client.EnvOverrideHost)
				}
				return nil
			}
		},
	}
}

var contextHeaders = map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}

func (a *app) contextRows() ([]any, error) {
	s := a.contexts()
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	current, found := a.contextName(), false
	var rows []*contextRow
	for _, m := range list {
		row := &contextRow{name: m.Name, current: m.Name == current}
		found = found || row.current
		if fields, ok := m.Metadata.(map[string]any); ok {
			row.description, _ = fields["Description"].(string)
		}
		if m.Name == defaultContext {
			row.description = "Current DOCKER_HOST based configuration"
		}
		if ep, ok := m.Endpoints[dockerEndpoint].(contextEndpointMeta); ok {
			row.host = ep.Host
		} else {
			row.err = "cannot find docker endpoint in context"
		}
		rows = append(rows, row)
	}
	if !found {
		row := &contextRow{name: current, current: true}
		if _, err := s.GetMetadata(current); err != nil {
			row.err = err.Error()
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y *contextRow) int { return sortorder.NaturalCompare(x.name, y.name) })
	out := make([]any, len(rows))
	for i, r := range rows {
		out[i] = r
	}
	return out, nil
}

// contextRow is one line of `context ls`.
type contextRow struct {
	name, description, host, err string
	current                      bool
}

func (r *contextRow) Name() string           { return r.name }
func (r *contextRow) Description() string    { return r.description }
func (r *contextRow) DockerEndpoint() string { return r.host }
func (r *contextRow) Current() bool          { return r.current }

// Error is cut as docker cuts it.
func (r *contextRow) Error() string {
	const most = 45
	if text := []rune(r.err); len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return r.err
}

func (r *contextRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }
