package operate

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/watch"
)

// Sync copies files into a container, whose user owns them there, and removes those from
// it that are gone from the host.
func (o *Operator) Sync(ctx context.Context, c Container, files []watch.Copy) error {
	var there []watch.Copy
	var gone []string
	for _, f := range files {
		if _, err := os.Lstat(f.From); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, f.To)
		} else {
			there = append(there, f)
		}
	}
	if !c.Running() {
		gone = nil
	}
	var errs []error
	for _, some := range portions(gone) {
		// The API removes no files: the image's own rm has to, and where there is none the others are copied all the same.
		errs = append(errs, o.hook(ctx, c, types.ServiceHook{Command: append(types.ShellCommand{"rm", "-rf", "--"}, some...), User: "0"}))
	}
	if len(there) == 0 {
		return errors.Join(errs...)
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() { _ = w.CloseWithError(watch.Archive(w, there)) }()
	_, err := o.API.CopyToContainer(ctx, c.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: r, CopyUIDGID: true})
	return errors.Join(append(errs, err)...)
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
