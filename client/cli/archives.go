package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/localfiles"
)

func (a *app) commit() spec {
	return spec{
		use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", short: "Create a new image from a container's changes",
		args: a.rangeArgs(1, 2), shownAs: []string{"container commit", "commit"},
		setup: func(fs *pflag.FlagSet) action {
			fs.SetInterspersed(false)
			var changes []string
			author := fs.StringP("author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
			fs.VarP(opts.NewListOptsRef(&changes, nil), "change", "c", "Apply Dockerfile instruction to the created image")
			message := fs.StringP("message", "m", "", "Commit message")
			pause := fs.BoolP("pause", "p", true, "Pause container during commit")
			noPause := fs.Bool("no-pause", false, "Disable pausing container during commit")
			_ = fs.MarkHidden("no-pause")
			return func(ctx context.Context, args []string) error {
				if fs.Changed("pause") && fs.Changed("no-pause") {
					return errors.New("conflicting options: --no-pause and --pause cannot be used together")
				}
				o := client.ContainerCommitOptions{Comment: *message, Author: *author, Changes: changes, NoPause: !*pause || *noPause}
				if len(args) > 1 {
					o.Reference = args[1]
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.ContainerCommit(ctx, args[0], o)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(a.out, res.ID)
				return nil
			}
		},
	}
}

func (a *app) diff() spec {
	return spec{
		use: "diff CONTAINER", short: "Inspect changes to files or directories on a container's filesystem",
		args: a.exactArgs(1), shownAs: []string{"container diff", "diff"},
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.ContainerDiff(ctx, args[0], client.ContainerDiffOptions{})
				if err != nil {
					return err
				}
				for _, change := range res.Changes {
					_, _ = fmt.Fprintln(a.out, change.Kind.String(), change.Path)
				}
				return nil
			}
		},
	}
}

const refuseTerminal = "cowardly refusing to save to a terminal. Use the -o flag or redirect"

func (a *app) export() spec {
	return spec{
		use: "export [OPTIONS] CONTAINER", short: "Export a container's filesystem as a tar archive",
		args: a.exactArgs(1), shownAs: []string{"container export", "export"},
		setup: func(fs *pflag.FlagSet) action {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			return func(ctx context.Context, args []string) error {
				return a.toFile(*output, "failed to export container", func(w io.Writer) error {
					c, err := a.api()
					if err != nil {
						return err
					}
					res, err := c.ContainerExport(ctx, args[0], client.ContainerExportOptions{})
					if err != nil {
						return err
					}
					defer func() { _ = res.Close() }()
					_, err = io.Copy(w, res)
					return err
				})
			}
		},
	}
}

func (a *app) save() spec {
	return spec{
		use: "save [OPTIONS] IMAGE [IMAGE...]", short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		args: a.minArgs(1), shownAs: []string{"image save", "save"},
		setup: func(fs *pflag.FlagSet) action {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			platform := fs.StringSlice("platform", nil, `Save only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")`)
			return func(ctx context.Context, args []string) error {
				ps, err := parsePlatforms(*platform)
				if err != nil {
					return err
				}
				var o []client.ImageSaveOption
				if len(ps) > 0 {
					o = append(o, client.ImageSaveWithPlatforms(ps...))
				}
				return a.toFile(*output, "failed to save image", func(w io.Writer) error {
					c, err := a.api()
					if err != nil {
						return err
					}
					res, err := c.ImageSave(ctx, args, o...)
					if err != nil {
						return err
					}
					defer func() { _ = res.Close() }()
					_, err = io.Copy(w, res)
					return err
				})
			}
		},
	}
}

// toFile writes to the file, which appears only when it is whole, or to the standard
// output if none is named.
func (a *app) toFile(path, what string, write func(io.Writer) error) error {
	if path == "" {
		if a.out.IsTerminal() {
			return errors.New(refuseTerminal)
		}
		return write(a.out)
	}
	if err := localfiles.CheckOutput(path); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return fmt.Errorf("%s: %s is a directory: name a file in it", what, path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = errors.Join(write(f), f.Chmod(0o600), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (a *app) importImage() spec {
	return spec{
		use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", short: "Import the contents from a tarball to create a filesystem image",
		args: a.minArgs(1), shownAs: []string{"image import", "import"},
		setup: func(fs *pflag.FlagSet) action {
			var o client.ImageImportOptions
			fs.VarP(opts.NewListOptsRef(&o.Changes, nil), "change", "c", "Apply Dockerfile instruction to the created image")
			fs.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
			platform := fs.String("platform", "", "Set platform if server is multi-platform capable")
			return func(ctx context.Context, args []string) error {
				if *platform != "" {
					p, err := platforms.Parse(*platform)
					if err != nil {
						return err
					}
					o.Platform = p
				}
				ref := ""
				if len(args) > 1 {
					ref = args[1]
				}
				return a.importFrom(ctx, args[0], ref, o)
			}
		},
	}
}

func (a *app) importFrom(ctx context.Context, from, ref string, o client.ImageImportOptions) error {
	source := client.ImageImportSource{SourceName: "-"}
	switch {
	case from == "-":
		source.Source = a.in
	case strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://"):
		source.SourceName = from
	default:
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		source.Source = f
	}
	c, err := a.negotiated(ctx) // what has been read from a pipe cannot be sent twice
	if err != nil {
		return err
	}
	res, err := c.ImageImport(ctx, source, ref, o)
	if err != nil {
		return err
	}
	defer func() { _ = res.Close() }()
	return showProgress(ctx, res, a.out)
}
