package build

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/worker/base"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/store"
)

// ExporterMoby is what clients of a Docker engine call the exporter that puts an image
// into the engine.
const ExporterMoby = "moby"

// danglingPrefix begins the name of an image that nobody named. internal/image shows
// such images as <none>.
const danglingPrefix = "moby-dangling"

// buildRefLabel begins the label of an image's blob that names a build that made it.
const buildRefLabel = "moby/build.ref."

// imageWorker is BuildKit's worker with the exporter of a Docker engine.
type imageWorker struct {
	*base.Worker
	settle  func() error // see Builder.openRefs
	settler *settler
	relief  *relief
	wrote   func(dir string) error // see Steps; or nil
	machine machine
	images  Images
	names   names
	store   *store.Store
}

// Exporter gives an exporter by its name.
func (w *imageWorker) Exporter(name string, sessions *session.Manager) (exporter.Exporter, error) {
	if name != ExporterMoby && name != bkclient.ExporterImage {
		return w.Worker.Exporter(name, sessions)
	}
	image, err := w.Worker.Exporter(bkclient.ExporterImage, sessions)
	if err != nil {
		return nil, err
	}
	return &imageExporter{image, w}, nil
}

// imageExporter puts images into the engine, and pushes them if asked to.
type imageExporter struct {
	exporter.Exporter
	worker *imageWorker
}

func (e *imageExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	attrs, err := imageAttributes(attrs)
	if err != nil {
		return nil, err
	}
	unpack := !isFalse(attrs, exptypes.OptKeyUnpack) && !isFalse(attrs, exptypes.OptKeyStore)
	attrs[string(exptypes.OptKeyUnpack)] = "false" // it is done here, see layers.go
	instance, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return &imageExport{instance, e.worker, unpack, isTrue(attrs, exptypes.OptKeyPush)}, nil
}

// imageAttributes fills in what clients of a Docker engine leave to the engine.
func imageAttributes(given map[string]string) (map[string]string, error) {
	attrs := maps.Clone(given)
	if attrs == nil {
		attrs = map[string]string{}
	}
	orElse := func(key exptypes.ImageExporterOptKey, value string) {
		if _, ok := attrs[string(key)]; !ok {
			attrs[string(key)] = value
		}
	}
	name := string(exptypes.OptKeyName)
	full, err := fullNames(attrs[name])
	if err != nil {
		return nil, err
	}
	if full != "" {
		attrs[name] = full
	}
	orElse(exptypes.OptKeyDanglingPrefix, danglingPrefix)
	orElse(exptypes.OptKeyDanglingEmptyOnly, "true")
	if isTrue(attrs, exptypes.OptKeyPush) {
		compressed(attrs)
	} else {
		// Compressing is most of the time that an export takes, and the layers of an
		// image that stays here are never read compressed.
		orElse(exptypes.OptKeyLayerCompression, "uncompressed")
	}
	return attrs, nil
}

// compressed has layers compressed on their way out that were left plain by an export
// before, unless the client says how it wants them.
func compressed(attrs map[string]string) {
	if _, chosen := attrs[string(exptypes.OptKeyLayerCompression)]; chosen {
		return
	}
	if _, chosen := attrs[string(exptypes.OptKeyForceCompression)]; !chosen {
		attrs[string(exptypes.OptKeyForceCompression)] = "true"
	}
}

func isTrue(attrs map[string]string, key exptypes.ImageExporterOptKey) bool {
	v, given := attrs[string(key)]
	return given && (v == "" || v == "true" || v == "1")
}

func isFalse(attrs map[string]string, key exptypes.ImageExporterOptKey) bool {
	v, given := attrs[string(key)]
	off, err := strconv.ParseBool(v)
	return given && err == nil && !off
}

// fullNames normalises a comma list of names; "*" stands for a name that the frontend
// gives.
func fullNames(list string) (string, error) {
	if list == "*" {
		return list, nil
	}
	var full []string
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return "", failure.Invalid("invalid image name %q: %w", name, err)
		}
		if _, exact := named.(reference.Digested); exact {
			return "", failure.Invalid("invalid image name %q: a build cannot be given a digest as its name", name)
		}
		full = append(full, reference.TagNameOnly(named).String())
	}
	return strings.Join(full, ","), nil
}

// markBuilt notes on an image's blob which build made it.
func (w *imageWorker) markBuilt(ctx context.Context, image ocispec.Descriptor, ref string) error {
	value, err := json.Marshal(struct {
		CreatedAt time.Time `json:"createdAt"`
	}{time.Now().UTC()})
	if err != nil {
		return err
	}
	key := buildRefLabel + ref
	_, err = w.ContentStore().Update(ctx, content.Info{Digest: image.Digest, Labels: map[string]string{key: string(value)}}, "labels."+key)
	if err != nil {
		return fmt.Errorf("note the build of the image %s: %w", image.Digest, err)
	}
	return nil
}
