package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/template"

	"github.com/containerd/platforms"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/spf13/pflag"
)

// lookup finds one object.
type lookup func(ctx context.Context, ref string) (typed any, raw []byte, err error)

// inspectSpec is the command that inspects what is called kind; flags adds its own flags, and what it returns is the
// lookup that they ask for.
func (a *app) inspectSpec(kind, short string, flags func(*pflag.FlagSet) func(*client.Client) (lookup, error)) spec {
	return spec{
		use: "inspect [OPTIONS] " + kind + " [" + kind + "...]", short: short, args: a.minArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.StringP("format", "f", "", inspectFormatHelp)
			of := flags(fs)
			return func(ctx context.Context, refs []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				get, err := of(c)
				if err != nil {
					return err
				}
				return a.inspectAll(ctx, refs, *format, get, of)
			}
		},
	}
}

func (a *app) inspect() spec {
	return a.inspectSpec("NAME|ID", "Return low-level information on Docker objects", func(fs *pflag.FlagSet) func(*client.Client) (lookup, error) {
		size := fs.BoolP("size", "s", false, "Display total file sizes if the type is container")
		kind := fs.String("type", "", `Only inspect objects of the given type`)
		return func(c *client.Client) (lookup, error) {
			return a.anyKind(c, *kind, *size), checkKind(*kind, fs.Changed("type"))
		}
	})
}

const allKinds = `"config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`

func checkKind(kind string, given bool) error {
	switch kind {
	case "container", "image", "network", "volume":
		return nil
	case "config", "node", "plugin", "secret", "service", "task":
		return fmt.Errorf("--type %s is not supported yet", kind)
	case "":
		if !given {
			return nil
		}
		return errors.New("type is empty: must be one of " + allKinds)
	}
	return fmt.Errorf("unknown type: %q: must be one of %s", kind, allKinds)
}

// anyKind looks for containers first, then images, networks and volumes.
func (a *app) anyKind(c *client.Client, kind string, size bool) lookup {
	by := a.inspectors(c, size)
	return func(ctx context.Context, ref string) (any, []byte, error) {
		for _, k := range []string{"container", "image", "network", "volume"} {
			if kind != "" && kind != k {
				continue
			}
			typed, raw, err := by[k](ctx, ref)
			if err != nil {
				if kind == "" && notThisKind(err) {
					continue
				}
				return nil, nil, err
			}
			if size && k != "container" {
				_, _ = fmt.Fprintln(a.err, "WARNING: --size ignored for", k)
			}
			return typed, raw, nil
		}
		return nil, nil, errors.New("Error: No such object: " + ref) //nolint:staticcheck // Docker's text
	}
}

func (a *app) containerInspect() spec {
	return a.inspectSpec("CONTAINER", "Display detailed information on one or more containers", func(fs *pflag.FlagSet) func(*client.Client) (lookup, error) {
		size := fs.BoolP("size", "s", false, "Display total file sizes")
		return func(c *client.Client) (lookup, error) { return a.inspectors(c, *size)["container"], nil }
	})
}

func (a *app) imageInspect() spec {
	return a.inspectSpec("IMAGE", "Display detailed information on one or more images", func(fs *pflag.FlagSet) func(*client.Client) (lookup, error) {
		platform := fs.String("platform", "", `Inspect a specific platform of the multi-platform image.
If the image or the server is not multi-platform capable, the command will error out if the platform does not match.
'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)`)
		return func(c *client.Client) (lookup, error) {
			var options []client.ImageInspectOption
			if *platform != "" {
				p, err := platforms.Parse(*platform)
				if err != nil {
					return nil, fmt.Errorf("invalid platform: %w", err)
				}
				options = append(options, client.ImageInspectWithPlatform(&p))
			}
			return func(ctx context.Context, ref string) (any, []byte, error) {
				var raw bytes.Buffer
				r, err := c.ImageInspect(ctx, ref, append(options, client.ImageInspectWithRawResponse(&raw))...)
				return r.InspectResponse, raw.Bytes(), err
			}, nil
		}
	})
}

func (a *app) volumeInspect() spec {
	return a.inspectSpec("VOLUME", "Display detailed information on one or more volumes", func(*pflag.FlagSet) func(*client.Client) (lookup, error) {
		return func(c *client.Client) (lookup, error) { return a.inspectors(c, false)["volume"], nil }
	})
}

func (a *app) networkInspect() spec {
	return a.inspectSpec("NETWORK", "Display detailed information on one or more networks", func(fs *pflag.FlagSet) func(*client.Client) (lookup, error) {
		verbose := fs.BoolP("verbose", "v", false, "Verbose output for diagnostics")
		return func(c *client.Client) (lookup, error) {
			return func(ctx context.Context, ref string) (any, []byte, error) {
				r, err := c.NetworkInspect(ctx, ref, client.NetworkInspectOptions{Verbose: *verbose})
				return r.Network, r.Raw, err
			}, nil
		}
	})
}

// inspectAll prints every object that is found, as a JSON array or through the
// template, and then reports those that are not. of is where get comes from, nil
// if that is not the engine.
func (a *app) inspectAll(ctx context.Context, refs []string, format string, get lookup, of func(*client.Client) (lookup, error)) error {
	var tmpl *template.Template
	if format != "" && format != jsonFormat {
		var err error
		if tmpl, err = templates.Parse(format); err != nil {
			return &statusError{code: 64, msg: "template parsing error: " + err.Error(), cause: err}
		}
	}
	var errs []error
	var raws [][]byte
	var text bytes.Buffer
	for _, ref := range refs {
		typed, raw, err := get(ctx, ref)
		if err == nil && tmpl != nil {
			err = executeInspect(&text, tmpl, typed, raw, func(version string) ([]byte, error) { return a.earlier(ctx, ref, version, of) })
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		raws = append(raws, bytes.TrimSpace(raw))
	}
	if err := a.printInspected(raws, &text, format, tmpl != nil); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (a *app) printInspected(raws [][]byte, text *bytes.Buffer, format string, templated bool) error {
	var out bytes.Buffer
	switch all := append(append([]byte("["), bytes.Join(raws, []byte(","))...), ']'); {
	case templated:
		out = *text
	case len(raws) == 0:
		out.WriteString("[]")
	case format == jsonFormat:
		if err := json.Compact(&out, all); err != nil {
			return err
		}
	default:
		if err := json.Indent(&out, all, "", "    "); err != nil {
			return err
		}
	}
	if !templated || out.Len() == 0 {
		out.WriteByte('\n')
	}
	_, err := a.out.Write(out.Bytes())
	return err
}

// executeInspect runs the template on the typed object; if that has not what the
// template asks for, on the engine's JSON, whose field names may be newer; and then on
// the object as earlier versions of the API describe it.
func executeInspect(out *bytes.Buffer, tmpl *template.Template, typed any, raw []byte, earlier func(version string) ([]byte, error)) error {
	plain, err := withPlainAddresses(tmpl)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := plain.Execute(&b, typed); err != nil {
		if err := executeOnJSON(&b, tmpl, raw); err != nil {
			if !slices.ContainsFunc(earlierVersions, func(version string) bool {
				before, none := earlier(version)
				return none == nil && executeOnJSON(&b, tmpl, before) == nil
			}) {
				return err
			}
		}
	}
	out.Write(b.Bytes())
	out.WriteByte('\n')
	return nil
}

// executeOnJSON runs the template on an object as the engine describes it.
func executeOnJSON(b *bytes.Buffer, tmpl *template.Template, raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var generic any
	if err := dec.Decode(&generic); err != nil {
		return fmt.Errorf("unable to read inspect data: %w", err)
	}
	strict, err := tmpl.Clone()
	if err != nil {
		return err
	}
	b.Reset()
	if err := strict.Option("missingkey=error").Execute(b, generic); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	return nil
}

// earlierVersions of the API are the last ones that have what was dropped since, and that scripts ask for. After 1.51 a
// container's NetworkSettings had no more the address on the default network themselves, as in
// {{.NetworkSettings.IPAddress}}, nor an image its Parent, GraphDriver and DockerVersion; after 1.43, its VirtualSize and
// soon its ContainerConfig. They go on working.
var earlierVersions = []string{"1.51", "1.43"}

// earlier is the object as a version of the API describes it.
func (a *app) earlier(ctx context.Context, ref, version string, of func(*client.Client) (lookup, error)) ([]byte, error) {
	if of == nil || versions.LessThanOrEqualTo(a.conn.ClientVersion(), version) {
		return nil, errors.New("already asked")
	}
	c, err := a.connect(version)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	get, err := of(c)
	if err != nil {
		return nil, err
	}
	_, raw, err := get(ctx, ref)
	return raw, err
}
