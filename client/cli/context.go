package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/docker/cli/cli/context/store"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

const (
	defaultContext  = connect.DefaultContext
	dockerEndpoint  = "docker" // the endpoint's name in a context
	contextFlagHelp = "set the docker endpoint"
)

// contextEndpointMeta is a context's endpoint as Docker stores it.
type contextEndpointMeta struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// contextStore is where Docker's clients keep their contexts, with the default one added, which is made of
// DOCKER_HOST and the flags and cannot be changed.
type contextStore struct {
	store.Store
	app *app
}

func (a *app) contexts() contextStore {
	dir := filepath.Join(a.configDir(), "contexts")
	anything := func() any { return &map[string]any{} } // other programs' fields are kept
	return contextStore{store.New(dir, store.NewConfig(anything, store.EndpointTypeGetter(dockerEndpoint, func() any { return &contextEndpointMeta{} }))), a}
}

func (s contextStore) defaultMeta() (store.Metadata, error) {
	ep, err := s.app.globals.DefaultEndpoint()
	return store.Metadata{
		Name: defaultContext, Metadata: map[string]any{},
		Endpoints: map[string]any{dockerEndpoint: contextEndpointMeta{ep.Host, ep.TLS && ep.SkipVerify}},
	}, err
}

func (s contextStore) GetMetadata(name string) (store.Metadata, error) {
	if name == defaultContext {
		return s.defaultMeta()
	}
	m, err := s.Store.GetMetadata(name)
	if err == nil && m.Metadata == nil {
		m.Metadata = map[string]any{}
	}
	return m, err
}

func (s contextStore) List() ([]store.Metadata, error) {
	list, err := s.Store.List()
	if err != nil {
		return nil, err
	}
	def, err := s.defaultMeta()
	return append(list, def), err
}

func (s contextStore) ListTLSFiles(name string) (map[string]store.EndpointFiles, error) {
	if name != defaultContext {
		return s.Store.ListTLSFiles(name)
	}
	files, err := s.defaultTLS()
	if err != nil || len(files) == 0 {
		return map[string]store.EndpointFiles{}, err
	}
	var names store.EndpointFiles
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return map[string]store.EndpointFiles{dockerEndpoint: names}, nil
}

func (s contextStore) GetTLSData(name, endpoint, file string) ([]byte, error) {
	if name != defaultContext {
		return s.Store.GetTLSData(name, endpoint, file)
	}
	files, err := s.defaultTLS()
	if err != nil {
		return nil, err
	}
	data, ok := files[file]
	if !ok || endpoint != dockerEndpoint {
		return nil, fmt.Errorf("the default context has no %s of endpoint %s", file, endpoint)
	}
	return data, nil
}

func (s contextStore) GetStorageInfo(name string) store.StorageInfo {
	if name == defaultContext {
		return store.StorageInfo{MetadataPath: "<IN MEMORY>", TLSPath: "<IN MEMORY>"}
	}
	return s.Store.GetStorageInfo(name)
}

func (s contextStore) defaultTLS() (map[string][]byte, error) {
	ep, err := s.app.globals.DefaultEndpoint()
	if err != nil {
		return nil, err
	}
	return readTLSFiles(ep.CAFile, ep.CertFile, ep.KeyFile)
}

// readTLSFiles reads certificates under the names that they are stored by.
func readTLSFiles(ca, cert, key string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, path := range map[string]string{"ca.pem": ca, "cert.pem": cert, "key.pem": key} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

func (a *app) contextCreate() spec {
	return spec{
		use: "create [OPTIONS] CONTEXT", short: "Create a context", args: a.exactArgs(1), long: a.contextLongHelp("Create", "create"),
		setup: func(fs *pflag.FlagSet) action {
			description := fs.String("description", "", "Description of the context")
			endpoint := fs.StringToString("docker", nil, contextFlagHelp)
			from := fs.String("from", "", "create context from a named context")
			return func(_ context.Context, args []string) error {
				if err := a.newContextName(args[0]); err != nil {
					return err
				}
				var err error
				switch {
				case *from != "" && len(*endpoint) > 0:
					err = errors.New("cannot use --docker flag when --from is set")
				case *from != "":
					err = a.copyContext(args[0], *from, *description)
				case *endpoint == nil:
					err = a.copyContext(args[0], a.contextName(), *description)
				default:
					err = a.makeContext(args[0], *description, *endpoint)
				}
				if err != nil {
					return err
				}
				return a.contextDone(args[0], "Successfully created context %q\n")
			}
		},
	}
}

func (a *app) contextLongHelp(does, command string) string {
	return does + ` a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ ` + a.name + ` context ` + command + ` my-context --description "some description" --docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file"`
}

func (a *app) contextDone(name, said string) error {
	_, err := fmt.Fprintln(a.out, name)
	_, _ = fmt.Fprintf(a.err, said, name)
	return err
}

func (a *app) newContextName(name string) error {
	if err := store.ValidateContextName(name); err != nil {
		return err
	}
	if _, err := os.Stat(a.contexts().GetStorageInfo(name).MetadataPath); err == nil {
		return fmt.Errorf("context %q already exists", name)
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("error while getting existing contexts: %w", err)
	}
	return nil
}

// copyContext makes a context of another, with a description of its own if one is given.
func (a *app) copyContext(name, from, description string) error {
	s := a.contexts()
	archive := store.Export(from, described{s, description})
	defer func() { _ = archive.Close() }()
	return store.Import(name, s, archive)
}

// described gives contexts another description.
type described struct {
	store.Reader
	description string
}

func (d described) GetMetadata(name string) (store.Metadata, error) {
	m, err := d.Reader.GetMetadata(name)
	if fields, ok := m.Metadata.(map[string]any); ok && d.description != "" {
		fields["Description"] = d.description
	}
	return m, err
}

func (a *app) makeContext(name, description string, endpoint map[string]string) error {
	meta, tls, err := a.endpointOf(endpoint)
	if err != nil {
		return fmt.Errorf("unable to create docker endpoint config: %w", err)
	}
	fields := map[string]any{}
	if description != "" {
		fields["Description"] = description
	}
	s := a.contexts()
	err = s.CreateOrUpdate(store.Metadata{Name: name, Metadata: fields, Endpoints: map[string]any{dockerEndpoint: meta}})
	if err != nil {
		return err
	}
	data := store.ContextTLSData{}
	if len(tls) > 0 {
		data.Endpoints = map[string]store.EndpointTLSData{dockerEndpoint: {Files: tls}}
	}
	return s.ResetTLSMaterial(name, &data)
}

// endpointOf reads the value of --docker.
func (a *app) endpointOf(values map[string]string) (meta contextEndpointMeta, tls map[string][]byte, err error) {
	for key := range values {
		if !slices.Contains([]string{"from", "host", "ca", "cert", "key", "skip-tls-verify"}, key) {
			return meta, nil, errors.New("unrecognized config key: " + key)
		}
	}
	if from, ok := values["from"]; ok {
		m, err := a.contexts().GetMetadata(from)
		if err != nil {
			return meta, nil, err
		}
		meta, ok = m.Endpoints[dockerEndpoint].(contextEndpointMeta)
		if !ok {
			return meta, nil, fmt.Errorf("unable to get endpoint from context %q", from)
		}
		return meta, nil, nil
	}
	if tls, err = readTLSFiles(values["ca"], values["cert"], values["key"]); err != nil {
		return meta, nil, err
	}
	if skip, ok := values["skip-tls-verify"]; ok {
		if meta.SkipTLSVerify, err = strconv.ParseBool(skip); err != nil {
			return meta, nil, fmt.Errorf("skip-tls-verify: parsing %q: %w", skip, strconv.ErrSyntax)
		}
	}
	meta.Host = values["host"]
	ep := connect.Endpoint{
		Host: meta.Host, CAFile: values["ca"], CertFile: values["cert"], KeyFile: values["key"],
		TLS: len(tls) > 0 || meta.SkipTLSVerify, SkipVerify: meta.SkipTLSVerify,
	}
	// What cannot be connected with is better refused now than when it is used.
	options, err := ep.ClientOptions()
	if err == nil {
		_, err = client.New(options...)
	}
	if err != nil {
		return meta, nil, fmt.Errorf("invalid docker endpoint options: %w", err)
	}
	return meta, tls, nil
}

func (a *app) contextUpdate() spec {
	return spec{
		use: "update [OPTIONS] CONTEXT", short: "Update a context", args: a.exactArgs(1), long: a.contextLongHelp("Update", "update"),
		setup: func(fs *pflag.FlagSet) action {
			description := fs.String("description", "", "Description of the context")
			values := fs.StringToString("docker", nil, contextFlagHelp)
			return func(_ context.Context, args []string) error {
				return a.updateContext(args[0], *description, *values)
			}
		},
	}
}

func (a *app) updateContext(name, description string, values map[string]string) error {
	if err := store.ValidateContextName(name); err != nil {
		return err
	}
	s := a.contexts()
	m, err := described{s, description}.GetMetadata(name)
	if err != nil {
		return err
	}
	if values == nil {
		if err := s.CreateOrUpdate(m); err != nil {
			return err
		}
		return a.contextDone(name, "Successfully updated context %q\n")
	}
	meta, tls, err := a.endpointOf(values)
	if err != nil {
		return fmt.Errorf("unable to create docker endpoint config: %w", err)
	}
	m.Endpoints[dockerEndpoint] = meta
	if err := s.CreateOrUpdate(m); err != nil {
		return err
	}
	var data *store.EndpointTLSData
	if len(tls) > 0 {
		data = &store.EndpointTLSData{Files: tls}
	}
	if err := s.ResetEndpointTLSMaterial(name, dockerEndpoint, data); err != nil {
		return err
	}
	return a.contextDone(name, "Successfully updated context %q\n")
}

func (a *app) contextUse() spec {
	return spec{
		use: "use CONTEXT", short: "Set the current docker context", args: a.exactArgs(1),
		setup: func(*pflag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				name, stored := args[0], ""
				if name != defaultContext {
					if err := store.ValidateContextName(name); err != nil {
						return err
					}
					if _, err := a.contexts().GetMetadata(name); err != nil {
						return err
					}
					stored = name
				}
				if err := a.storeCurrentContext(stored); err != nil {
					return err
				}
				if err := a.contextDone(name, "Current context is now %q\n"); err != nil {
					return err
				}
				if name != defaultContext && os.Getenv(client.EnvOverrideHost) != "" {
					_, _ = fmt.Fprintf(a.err, "Warning: %[1]s environment variable overrides the active context. "+
						"To use %[2]q, either set the global --context flag, or unset %[1]s environment variable.\n", client.EnvOverrideHost, name)
				}
				return nil
			}
		},
	}
}

// storeCurrentContext notes the context in the user's configuration, which is not written if nothing changes.
func (a *app) storeCurrentContext(name string) error {
	cfg := a.config()
	if cfg.CurrentContext == name {
		return nil
	}
	cfg.CurrentContext = name
	return cfg.Save()
}

func (a *app) contextRm() spec {
	return spec{
		use: "rm CONTEXT [CONTEXT...]", short: "Remove one or more contexts", args: a.minArgs(1), aliases: []string{"remove"},
		shownAs: []string{"context rm", "context remove"},
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Force the removal of a context in use")
			return func(_ context.Context, names []string) error {
				var errs []error
				for _, name := range names {
					if err := a.removeContext(name, *force); err != nil {
						errs = append(errs, err)
						continue
					}
					_, _ = fmt.Fprintln(a.out, name)
				}
				return errors.Join(errs...)
			}
		},
	}
}

func (a *app) removeContext(name string, force bool) error {
	if name == defaultContext {
		return errors.New(`context "default" cannot be removed`)
	}
	if err := store.ValidateContextName(name); err != nil {
		return err
	}
	s := a.contexts()
	if _, err := os.Stat(s.GetStorageInfo(name).MetadataPath); errors.Is(err, os.ErrNotExist) && !force {
		return fmt.Errorf("context %q does not exist", name)
	}
	if name == a.contextName() {
		if !force {
			return fmt.Errorf("context %q is in use, set -f flag to force remove", name)
		}
		if err := a.storeCurrentContext(""); err != nil {
			return err
		}
	}
	return s.Remove(name)
}

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
				})
			}
		},
	}
}

type inspectedContext struct {
	store.Metadata
	TLSMaterial map[string]store.EndpointFiles
	Storage     store.StorageInfo
}

func (a *app) contextExport() spec {
	return spec{
		use: "export [OPTIONS] CONTEXT [FILE|-]", short: "Export a context to a tar archive FILE or a tar stream on STDOUT.", args: a.rangeArgs(1, 2),
		setup: func(*pflag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				name, dest := args[0], args[0]+".dockercontext"
				if len(args) == 2 {
					dest = args[1]
				}
				if err := store.ValidateContextName(name); err != nil && name != defaultContext {
					return err
				}
				archive := store.Export(name, a.contexts())
				defer func() { _ = archive.Close() }()
				return a.writeContext(archive, dest)
			}
		},
	}
}

func (a *app) writeContext(archive io.Reader, dest string) error {
	if dest == "-" {
		if a.out.IsTerminal() {
			return errors.New("cowardly refusing to export to a terminal, specify a file path")
		}
		_, err := io.Copy(a.out, archive)
		return err
	}
	// It may hold keys.
	f, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, archive)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(dest))
	}
	_, _ = fmt.Fprintf(a.err, "Written file %q\n", dest)
	return nil
}

func (a *app) contextImport() spec {
	return spec{
		use: "import CONTEXT FILE|-", short: "Import a context from a tar or zip file", args: a.exactArgs(2),
		setup: func(*pflag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				if err := a.newContextName(args[0]); err != nil {
					return err
				}
				var archive io.Reader = a.in
				if args[1] != "-" {
					f, err := os.Open(args[1])
					if err != nil {
						return err
					}
					defer func() { _ = f.Close() }()
					archive = f
				}
				if err := store.Import(args[0], a.contexts(), archive); err != nil {
					return err
				}
				return a.contextDone(args[0], "Successfully imported context %q\n")
			}
		},
	}
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
