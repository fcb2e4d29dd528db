package build

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/store"
)

// BuildKit writes to the database what is there already, several times in each build.
// A write that changes nothing waits for the disk as any other does: these leave it out.

// quietLeases does not delete a lease that does not exist.
type quietLeases struct{ leases.Manager }

func (q quietLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	// There is no question for one lease that only reads, but for what it holds.
	if _, err := q.Manager.ListResources(ctx, lease); errdefs.IsNotFound(err) {
		return err
	}
	return q.Manager.Delete(ctx, lease, opts...)
}

// quietBlobs does not set labels of a blob to what they are, and does not write what is in a layer again.
type quietBlobs struct {
	content.Store
	layers *store.Store
	refs   *metadata.Store
}

// Writer begins a blob. BuildKit calls the archive of a layer that a step has left by the name of the cache's record of
// that layer.
func (q quietBlobs) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Desc.MediaType == ocispec.MediaTypeImageLayer && o.Desc.Digest == "" {
		if record, ok := q.refs.Get(o.Ref); ok {
			w, err := q.layers.LayerWriter(ctx, recordValue(record, recordSnapshot), opts...)
			if err == nil || !errdefs.IsNotFound(err) {
				return w, err
			}
		}
	}
	return q.Store.Writer(ctx, opts...)
}

const labelField = "labels."

func (q quietBlobs) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	if known, err := q.Store.Info(ctx, info.Digest); err == nil && labelled(known, info, fields) {
		return known, nil
	}
	return q.Store.Update(ctx, info, fields...)
}

// labelled reports whether a blob has the labels that the fields name.
func labelled(known, wanted content.Info, fields []string) bool {
	for _, f := range fields {
		name, isLabel := strings.CutPrefix(f, labelField)
		if !isLabel || known.Labels[name] != wanted.Labels[name] {
			return false
		}
	}
	return len(fields) > 0
}
