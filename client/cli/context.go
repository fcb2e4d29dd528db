package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/dockerconfig"
)

const (
	defaultContext  = connect.DefaultContext
	dockerEndpoint  = "docker" // the endpoint's name in a context
	contextFlagHelp = "set the docker endpoint"
)

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
		use: "use CONTEXT", short: "Set the current " + a.name + " context", args: a.exactArgs(1),
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
	if err := dockerconfig.Intact(cfg); err != nil {
		return err
	}
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
		return copyTar(a.out, archive)
	}
	// It may hold keys.
	f, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyTar(f, archive)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(dest))
	}
	_, _ = fmt.Fprintf(a.err, "Written file %q\n", dest)
	return nil
}

// copyTar copies an archive of the library for contexts, which leaves out the padding of the last file and the two
// blocks of 512 bytes at the end: tar says of such a file that it is cut off.
func copyTar(w io.Writer, archive io.Reader) error {
	const block = 512
	n, err := io.Copy(w, archive)
	if err != nil {
		return err
	}
	_, err = w.Write(make([]byte, (block-n%block)%block+2*block))
	return err
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
