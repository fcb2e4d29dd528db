package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/util/progress"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageExport is one export of one build.
type imageExport struct {
	exporter.ExporterInstance
	worker *imageWorker
	unpack bool
	push   bool
}

func (x *imageExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	// A name is given last, when all that belongs to the image is there: to wait for the disk once is enough.
	held := &naming{exact: x.push}
	response, finalize, ref, err := x.ExporterInstance.Export(context.WithValue(ctx, namingKey{}, held), src, info)
	if err != nil {
		return nil, nil, nil, err
	}
	if ref == nil {
		return response, finalize, nil, held.give(ctx, x.worker.names)
	}
	made := ref.Descriptor()
	err = x.worker.markBuilt(ctx, made, info.Ref)
	if err == nil && x.unpack {
		err = x.worker.unpack(ctx, src, made, strings.Split(response[exptypes.ExporterImageNameKey], ",")[0])
	}
	if err == nil {
		err = held.give(ctx, x.worker.names)
	}
	image := made
	if err == nil && len(held.given) > 0 && held.image.Digest != made.Digest {
		image = held.image
		ref = &madeBefore{ref, image}
		err = errors.Join(x.worker.markBuilt(ctx, image, info.Ref), tellInstead(ctx, response, made, image))
	}
	if err != nil {
		_ = ref.Release() // what failed is told
		return nil, nil, nil, err
	}
	x.worker.images.Built(image, strings.Split(response[exptypes.ExporterImageNameKey], ","))
	return response, finalize, ref, nil
}

// madeBefore is an image that stands for the one that an export has made.
type madeBefore struct {
	exporter.DescriptorReference // of what was made
	image                        ocispec.Descriptor
}

func (m *madeBefore) Descriptor() ocispec.Descriptor { return m.image }

// tellInstead has an export's response, and who watches the build, told of an image that was made before.
func tellInstead(ctx context.Context, response map[string]string, made, before ocispec.Descriptor) error {
	text, err := json.Marshal(before)
	if err != nil {
		return err
	}
	name := exptypes.ExporterImageNameKey // a dangling one has the digest
	response[name] = strings.ReplaceAll(response[name], made.Digest.String(), before.Digest.String())
	response[exptypes.ExporterImageDigestKey] = before.Digest.String()
	response[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(text)
	return progress.OneOff(ctx, fmt.Sprintf("keeping %s, the same but for when it was attested", before.Digest))(nil)
}
