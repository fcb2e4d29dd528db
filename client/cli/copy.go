package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/localfiles"
)

type copyOptions struct {
	followLink, owners, quiet bool
}

func (a *app) cp() spec {
	return spec{
		use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t" + a.name + " cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		short: "Copy files/folders between a container and the local filesystem",
		long: "Copy files/folders between a container and the local filesystem\n\n" +
			"Use '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\n" +
			"Use '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
		args: a.exactArgs(2), shownAs: []string{"container cp", "cp"},
		setup: func(fs *pflag.FlagSet) action {
			var o copyOptions
			fs.BoolVarP(&o.owners, "archive", "a", false, "Archive mode (copy all uid/gid information)")
			fs.BoolVarP(&o.followLink, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
			fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
			return func(ctx context.Context, args []string) error {
				if !fs.Changed("quiet") {
					o.quiet = !a.out.IsTerminal()
				}
				return a.copyFiles(ctx, args[0], args[1], o)
			}
		},
	}
}

func (a *app) copyFiles(ctx context.Context, src, dst string, o copyOptions) error {
	switch {
	case src == "":
		return errors.New("source can not be empty")
	case dst == "":
		return errors.New("destination can not be empty")
	}
	from, srcPath := splitCopyArg(src)
	to, dstPath := splitCopyArg(dst)
	switch {
	case from != "" && to != "":
		return errors.New("copying between containers is not supported")
	case from != "":
		return a.copyFrom(ctx, from, srcPath, dstPath, o)
	case to != "":
		return a.copyTo(ctx, srcPath, to, dstPath, o)
	}
	return errors.New("must specify at least one container source")
}

// splitCopyArg tells CONTAINER:PATH from a local path, which may hold a colon too if it
// begins with a slash or a dot.
func splitCopyArg(arg string) (container, path string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	container, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, path
}

func (a *app) copyFrom(ctx context.Context, container, src, dst string, o copyOptions) (err error) {
	if dst != "-" {
		if dst, err = localfiles.Absolute(dst); err != nil {
			return err
		}
		if err := localfiles.CheckOutput(dst); err != nil {
			return err
		}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	rebase := ""
	if o.followLink {
		if src, rebase, err = followInContainer(ctx, c, container, src); err != nil {
			return err
		}
	}
	res, err := c.CopyFromContainer(ctx, container, client.CopyFromContainerOptions{SourcePath: src})
	if err != nil {
		return err
	}
	defer func() { _ = res.Content.Close() }()
	if dst == "-" {
		_, err = io.Copy(a.out, res.Content)
		return err
	}
	info := localfiles.Info{Path: src, Exists: true, IsDir: res.Stat.Mode.IsDir()}
	target, err := localfiles.Destination(dst)
	if err != nil {
		return err
	}
	plan, err := localfiles.Prepare(info, target)
	if err != nil {
		return err
	}
	if rebase != "" && plan.New == "" {
		_, plan.Old = localfiles.Split(src)
		plan.New = rebase
	}
	count := &counter{r: res.Content}
	finish := a.copyProgress("Copying from container - ", count, o.quiet)
	err = localfiles.Unpack(ctx, count, plan)
	finish()
	if !o.quiet && err == nil {
		size := count.n.Load()
		content := size
		if !info.IsDir {
			content = res.Stat.Size
		}
		a.copied(content, size, dst)
	}
	return err
}

// followInContainer finds what a link in the container leads to.
func followInContainer(ctx context.Context, c *client.Client, container, src string) (path, rebase string, err error) {
	st, err := c.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: src})
	if err != nil {
		return "", "", err
	}
	if st.Stat.Mode&os.ModeSymlink == 0 {
		return src, "", nil
	}
	target := st.Stat.LinkTarget
	if !filepath.IsAbs(target) {
		dir, _ := localfiles.Split(src)
		target = filepath.Join(dir, target)
	}
	path, rebase = localfiles.Followed(src, target)
	return path, rebase, nil
}

func (a *app) copyTo(ctx context.Context, src, container, dst string, o copyOptions) error {
	c, err := a.negotiated(ctx) // what has been read from a pipe cannot be sent twice
	if err != nil {
		return err
	}
	target, err := statInContainer(ctx, c, container, dst)
	if err != nil {
		return err
	}
	if src == "-" {
		if !target.IsDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", container, dst)
		}
		_, err := c.CopyToContainer(ctx, container, client.CopyToContainerOptions{DestinationPath: target.Path, CopyUIDGID: o.owners, Content: a.in})
		return err
	}
	if src, err = localfiles.Absolute(src); err != nil {
		return err
	}
	info, err := localfiles.Source(src, o.followLink)
	if err != nil {
		return err
	}
	plan, err := localfiles.Prepare(info, target)
	if errors.Is(err, localfiles.ErrDirNotExists) {
		// The answer to the question for the path does not say what is missing.
		_, missing := c.ContainerInspect(ctx, container, client.ContainerInspectOptions{})
		if missing != nil {
			return missing
		}
	}
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := localfiles.Pack(ctx, w, info, plan)
		packed <- err
		_ = w.CloseWithError(err)
	}()
	count := &counter{r: r}
	finish := a.copyProgress("Copying to container - ", count, o.quiet)
	_, err = c.CopyToContainer(ctx, container, client.CopyToContainerOptions{DestinationPath: plan.Dir, CopyUIDGID: o.owners, Content: count})
	finish()
	_ = r.Close() // ends the packing if the engine has refused
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return perr // what was wrong here, not how it looked from there
	}
	if err == nil && !o.quiet {
		size, serr := localfiles.ContentSize(info.Path)
		if serr != nil {
			size = count.n.Load()
		}
		a.copied(size, count.n.Load(), container+":"+target.Path)
	}
	return err
}

// statInContainer looks at the destination, following a link. One that is not there may
// be made: the engine will say if it cannot.
func statInContainer(ctx context.Context, c *client.Client, container, dst string) (localfiles.Info, error) {
	info := localfiles.Info{Path: dst}
	res, err := c.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: dst})
	if err == nil && res.Stat.Mode&os.ModeSymlink != 0 {
		target := res.Stat.LinkTarget
		if !filepath.IsAbs(target) {
			dir, _ := localfiles.Split(dst)
			target = filepath.Join(dir, target)
		}
		info.Path = target
		res, err = c.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: target})
	}
	if isUnreachableError(err) {
		return info, err
	}
	if err == nil {
		if err := localfiles.CheckMode(res.Stat.Mode); err != nil {
			return info, fmt.Errorf(`destination "%s:%s" must be a directory or a regular file: %w`, container, dst, err)
		}
		info.Exists, info.IsDir = true, res.Stat.Mode.IsDir()
	}
	return info, nil
}

func isUnreachableError(err error) bool { return connect.IsUnreachable(err) }

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (a *app) copied(content, sent int64, where string) {
	transferred := ""
	if content != sent {
		transferred = " (transferred " + copySize(sent) + ")"
	}
	_, _ = fmt.Fprintf(a.err, "Successfully copied %s%s to %s\n", copySize(content), transferred, where)
}

func copySize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// copyProgress keeps a line with the size up to date until the returned function is
// called.
func (a *app) copyProgress(header string, count *counter, quiet bool) (finish func()) {
	if quiet || !a.err.IsTerminal() {
		return func() {}
	}
	const redraw = 75 * time.Millisecond
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for last := int64(-1); ; {
			if n := count.n.Load(); n != last {
				last = n
				_, _ = fmt.Fprintf(a.err, "\r\x1b[2K%s%s", header, copySize(n))
			}
			select {
			case <-tick.C:
			case <-stop:
				_, _ = fmt.Fprint(a.err, "\r\x1b[2K")
				return
			}
		}
	}()
	return func() { close(stop); <-done }
}
