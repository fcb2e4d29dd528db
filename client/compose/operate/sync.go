package operate

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/watch"
)

// Sync copies files into a container, whose user owns them there, and removes those from
// it that are gone from the host.
func (o *Operator) Sync(ctx context.Context, c Container, files []watch.Copy) error {
	there, gone := sortOut(files)
	gone = unmounted(c, files, gone)
	if !c.Running() {
		gone = nil
	}
	err := o.remove(ctx, c, gone)
	if len(there) == 0 {
		return err
	}
	failed := o.send(ctx, c, there)
	if failed == nil || !c.Running() {
		return errors.Join(err, failed)
	}
	// Nobody has told of what became a directory, or was an empty one: the container is asked.
	others, unknown := o.ofAnotherKind(ctx, c, there)
	if unknown != nil || len(others) == 0 {
		return errors.Join(err, failed)
	}
	return errors.Join(err, o.remove(ctx, c, others), o.send(ctx, c, there))
}

// remove takes files out of a container. The API removes none: the image's own rm has to, and where there is none the
// others are copied all the same.
func (o *Operator) remove(ctx context.Context, c Container, files []string) error {
	var errs []error
	for _, some := range portions(files) {
		errs = append(errs, o.hook(ctx, c, types.ServiceHook{Command: append(types.ShellCommand{"rm", "-rf", "--"}, some...), User: "0"}))
	}
	return errors.Join(errs...)
}

// ofAnotherKind are the files that are directories on the host and none in the container, or the other way round, which an
// archive does not replace. A rule's own target stays, as what the user wrote may be a directory that the file was to go
// into, and so does what is mounted.
func (o *Operator) ofAnotherKind(ctx context.Context, c Container, files []watch.Copy) (others []string, err error) {
	for _, f := range files {
		info, err := os.Lstat(f.From)
		if err != nil || f.To == f.Target || mountedIn(c, f.To) {
			continue
		}
		r, err := o.API.ContainerStatPath(ctx, c.ID, client.ContainerStatPathOptions{Path: f.To})
		switch {
		case errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err): // or what it was in is a file
		case err != nil:
			return nil, err
		case r.Stat.Mode.IsDir() != info.IsDir():
			others = append(others, f.To)
		}
	}
	return others, nil
}

// mountedIn says whether something is mounted on a path of a container, or below it.
func mountedIn(c Container, at string) bool {
	return slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool {
		return m.Destination == at || strings.HasPrefix(m.Destination, at+"/")
	})
}

// unmounted are those of the files' paths in a container whose removal takes nothing out of what is mounted there: on it,
// below it, or on the way to it from the target of its rule, as dependencies that are installed in a volume between the
// sources. What is within a target that is in a volume itself is the host's.
func unmounted(c Container, files []watch.Copy, paths []string) []string {
	targets := map[string]string{}
	for _, f := range files {
		targets[f.To] = f.Target
	}
	return slices.DeleteFunc(paths, func(p string) bool {
		return mountedIn(c, p) || slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool {
			return strings.HasPrefix(p, m.Destination+"/") && strings.HasPrefix(m.Destination, strings.TrimSuffix(targets[p], "/")+"/")
		})
	})
}

// send copies files into a container.
func (o *Operator) send(ctx context.Context, c Container, files []watch.Copy) error {
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := watch.Archive(w, files)
		_ = w.CloseWithError(err)
		made <- err
	}()
	_, err := o.API.CopyToContainer(ctx, c.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: r, CopyUIDGID: true})
	_ = r.Close()
	if unread := <-made; unread != nil && !errors.Is(unread, io.ErrClosedPipe) {
		return unread // to the API's client it is the connection that has failed
	}
	return err
}

// sortOut are the files that are there, and where in a container those are that are not. With these goes a directory in
// whose place a file has come: an archive does not put it there.
func sortOut(files []watch.Copy) (there []watch.Copy, gone []string) {
	var others []string // that are no directories
	for _, f := range files {
		switch info, err := os.Lstat(f.From); {
		case watch.Gone(err):
			gone = append(gone, f.To)
		case err == nil && !info.IsDir():
			others = append(others, f.To)
			fallthrough
		default:
			there = append(there, f)
		}
	}
	directories := map[string]bool{}
	for _, p := range gone {
		for dir := path.Dir(p); !directories[dir]; dir = path.Dir(dir) {
			directories[dir] = true
		}
	}
	for _, p := range others {
		if directories[p] {
			gone = append(gone, p)
		}
	}
	return there, gone
}

// mostArguments is how many bytes of paths one command is given, far below what the kernel lets a program be started
// with: a version control system that checks out another branch removes files by the ten thousand.
const mostArguments = 64 << 10

// portions shares paths that are to be removed out to commands. Those below another one go with it. Where the root is to
// become what a directory of the host is, that directory may be moved away for a moment: nobody wants an empty container,
// nor what is mounted in it emptied.
func portions(paths []string) (all [][]string) {
	paths = slices.Clone(paths)
	slices.SortFunc(paths, func(a, b string) int { // what is below a path comes right behind it
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	last, size := "", mostArguments
	for _, path := range paths {
		if path == "/" || last != "" && (path == last || strings.HasPrefix(path, last+"/")) {
			continue
		}
		last = path
		if size += len(path) + 1; size > mostArguments {
			all, size = append(all, nil), len(path)+1
		}
		all[len(all)-1] = append(all[len(all)-1], path)
	}
	return all
}
