package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/shlex"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/build/mend"
	"github.com/cleatlabs/cleat/client/build/solve"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) build() spec {
	return spec{
		use: "build [OPTIONS] PATH | URL | -", short: "Start a build", aliases: []string{"b"},
		paths: "build,image build,builder build,buildx build,buildx b",
		args: func(n int) string {
			switch {
			case n == 0:
				return "requires 1 argument: the context, the directory with the files that the Dockerfile copies, usually \".\""
			case n > 1:
				return fmt.Sprintf("requires 1 argument, and there are %d: a value with spaces wants quotes", n)
			}
			return ""
		},
		setup: func(fs *pflag.FlagSet) action {
			var f buildFlags
			f.install(fs)
			return func(ctx context.Context, args []string) error {
				if err := refuse(fs); err != nil {
					return err
				}
				return a.runBuild(ctx, &f, args[0])
			}
		},
	}
}

func (a *app) runBuild(ctx context.Context, f *buildFlags, where string) error {
	t, err := f.describe(where)
	if err != nil {
		return err
	}
	mode, err := displayMode(f.shared.progress, f.quiet)
	if err != nil {
		return err
	}
	if isRegular(f.iidFile) {
		// A file that an earlier build has left must not be taken for this one's.
		if err := os.Remove(f.iidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing image ID file: %w", err)
		}
	}
	if t.Invoke, err = a.invoke(f, t); err != nil {
		return err
	}
	e, err := a.connect()
	if err != nil {
		return err
	}
	t.Stdin = a.stdin
	t.Proxies = a.proxies(e)
	p, err := a.newProgress(ctx, mode)
	if err != nil {
		return err
	}
	res, err := e.Build(ctx, t, p)
	if perr := p.Wait(); err == nil {
		err = perr
	}
	a.warn(p.Warnings(), mode)
	if err != nil {
		return mend.In(fmt.Errorf("failed to build: %w", err), mend.Place{Context: t.Context, Dockerfile: t.Dockerfile})
	}
	return a.report(f, t, res, p, mode)
}

// invoke is what is to run where the build stops: "on-error" is a shell if a step fails,
// anything else a command, at the end too.
func (a *app) invoke(f *buildFlags, t *solve.Target) (*solve.Invoke, error) {
	if f.invoke == "" {
		return nil, nil
	}
	if t.Context == "-" || t.Dockerfile == "-" {
		return nil, errors.New("--invoke needs the standard input, which the context or the Dockerfile comes from")
	}
	if t.Call != nil {
		return nil, errors.New("--invoke and --call cannot be used together: with --call nothing is built")
	}
	i := &solve.Invoke{OnError: f.invoke == "on-error", In: term.NewInput(a.stdin), Out: a.out, Err: a.stderr}
	if !i.OnError {
		words, err := shlex.Split(f.invoke)
		if err != nil || len(words) == 0 {
			return nil, fmt.Errorf("--invoke %q is no command: %w", f.invoke, err)
		}
		i.Command = words
	}
	return i, nil
}

// report tells of a build that has succeeded, in the ways that were asked for.
func (a *app) report(f *buildFlags, t *solve.Target, res *solve.Result, p *solve.Progress, mode progressui.DisplayMode) error {
	if mode == progressui.QuietMode && (f.quiet || f.shared.progress == "quiet") && t.Call == nil {
		_, _ = fmt.Fprintln(a.stdout, res.ImageID())
	}
	if f.iidFile != "" {
		if err := os.WriteFile(f.iidFile, []byte(res.ImageID()), 0o644); err != nil {
			return fmt.Errorf("writing image ID file: %w", err)
		}
	}
	if f.shared.metadataFile != "" {
		if err := writeMetadata(f.shared.metadataFile, metadata(res, t, p.Warnings())); err != nil {
			return err
		}
	}
	if t.Call != nil {
		return a.answer(t, res.Response)
	}
	if msg := res.Response["frontend.result.inlinemessage"]; msg != "" {
		_, _ = fmt.Fprintf(a.stdout, "\n%s\n", msg)
	}
	return nil
}

// displayMode is how progress is shown. "none" shows nothing; "quiet" is -q.
func displayMode(progress string, quiet bool) (progressui.DisplayMode, error) {
	switch progress {
	case "auto", "plain", "tty", "rawjson":
		if quiet && progress != "auto" {
			return "", fmt.Errorf("progress=%s and quiet cannot be used together", progress)
		}
		if !quiet {
			return progressui.DisplayMode(progress), nil
		}
		return progressui.QuietMode, nil
	case "quiet", "none":
		return progressui.QuietMode, nil
	}
	return "", fmt.Errorf("invalid progress mode %s: choose auto, plain, tty, rawjson, quiet or none", progress)
}

func (a *app) newProgress(ctx context.Context, mode progressui.DisplayMode) (*solve.Progress, error) {
	return solve.NewProgress(ctx, a.stderr, mode, fmt.Sprintf("building with %q instance using docker driver", theBuilder), "docker:"+theBuilder)
}

// proxies are those that the user's configuration has for containers.
func (a *app) proxies(e *solve.Engine) map[string]string {
	out := map[string]string{}
	for k, v := range e.Config.ParseProxyConfig(e.API.DaemonHost(), nil) {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

// isRegular says whether there is a file of data at a path, and no device, pipe or link, as /dev/stdout is.
func isRegular(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular()
}

// writeFile replaces a file at once, so that nobody reads half of it. What is there and is no file of data is written to.
func writeFile(path string, data []byte) error {
	if _, err := os.Lstat(path); err == nil && !isRegular(path) {
		return os.WriteFile(path, data, 0o644)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".cleat-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
