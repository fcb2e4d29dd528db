package operate

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

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
	if len(gone) > 0 && running(c) {
		// The API removes no files: the image's own rm has to.
		if err := o.hook(ctx, c, types.ServiceHook{Command: append(types.ShellCommand{"rm", "-rf", "--"}, gone...), User: "0"}); err != nil {
			return err
		}
	}
	if len(there) == 0 {
		return nil
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() { _ = w.CloseWithError(watch.Archive(w, there)) }()
	_, err := o.API.CopyToContainer(ctx, c.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: r, CopyUIDGID: true})
	return err
}
