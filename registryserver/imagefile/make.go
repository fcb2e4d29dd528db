// Package imagefile makes image archives from a directory or a tar file, and sends
// image archives to a registry. An archive is an OCI layout that also has docker save's
// manifest.json, so that every engine loads it; read are both forms.
package imagefile

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression of the layer of a made image.
type Compression string

// The compressions, by the name that --compression takes.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// annotationImageName is where containerd, Docker and Cleat keep an image's full name.
const annotationImageName = "io.containerd.image.name"

// Recipe says what an image is made of.
type Recipe struct {
	// Dir is the root directory, or Tar a tar file of it (gzip and zstd are
	// recognised): one of the two.
	Dir, Tar string
	// Name is the full name with a tag, "docker.io/library/nginx:latest"; Short the
	// familiar form of it.
	Name, Short string
	// Config is the image's configuration.
	Config dockerspec.DockerOCIImageConfig
	// Architecture is Go's word for it; "" is this machine's.
	Architecture string
	// Created is the image's date; the zero time is now.
	Created time.Time
	// Compression of the layer; "" is gzip.
	Compression Compression
}

// Make writes the archive to path, which appears only when it is whole. It returns the
// digest of the manifest: the image's id.
func Make(r Recipe, path string) (id digest.Digest, err error) {
	if (r.Dir == "") == (r.Tar == "") {
		return "", errors.New("an image is made from either a directory or a tar file")
	}
	if r.Architecture == "" {
		r.Architecture = runtime.GOARCH
	}
	if r.Created.IsZero() {
		r.Created = time.Now()
	}
	dir := filepath.Dir(path)
	layerFile, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return "", fmt.Errorf("make the layer beside the archive: %w", err)
	}
	defer os.Remove(layerFile.Name())
	defer layerFile.Close()
	layer, diffID, err := writeLayer(layerFile, r, path)
	if err != nil {
		return "", err
	}

	out, err := os.CreateTemp(dir, ".image-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name()) // gone already if all went well
	defer out.Close()
	id, err = writeArchive(out, r, layerFile, layer, diffID)
	if err != nil {
		return "", fmt.Errorf("write the archive: %w", err)
	}
	if err := out.Chmod(0o644); err != nil {
		return "", err
	}
	if err := out.Close(); err != nil {
		return "", fmt.Errorf("write the archive: %w", err)
	}
	return id, os.Rename(out.Name(), path)
}

// writeLayer writes the compressed layer to f, without f itself and the archive that there may be already.
func writeLayer(f *os.File, r Recipe, archive string) (ocispec.Descriptor, digest.Digest, error) {
	buffered := bufio.NewWriterSize(f, 1<<20)
	blob := digest.Canonical.Digester()
	sink := io.MultiWriter(buffered, blob.Hash())
	var compressor io.WriteCloser
	var err error
	mediaType := ocispec.MediaTypeImageLayerGzip
	switch r.Compression {
	case Gzip, "":
		compressor, err = gzip.NewWriterLevel(sink, gzip.BestSpeed)
	case Zstd:
		mediaType = ocispec.MediaTypeImageLayerZstd
		compressor, err = zstd.NewWriter(sink, zstd.WithEncoderLevel(zstd.SpeedFastest))
	case None:
		mediaType = ocispec.MediaTypeImageLayer
		compressor = nopCloser{sink}
	default:
		err = fmt.Errorf("unknown compression %q: choose gzip, zstd or none", r.Compression)
	}
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	diff := digest.Canonical.Digester()
	if err := writeTar(io.MultiWriter(compressor, diff.Hash()), r, f.Name(), archive); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := errors.Join(compressor.Close(), buffered.Flush()); err != nil {
		return ocispec.Descriptor{}, "", fmt.Errorf("write the layer: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: blob.Digest(), Size: size}, diff.Digest(), nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func writeTar(w io.Writer, r Recipe, without ...string) error {
	if r.Dir != "" {
		return tarDirectory(w, r.Dir, without...)
	}
	f, err := os.Open(r.Tar)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := Decompress(f)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Tar, err)
	}
	defer plain.Close()
	// What is copied must be a tar file: read it as one while it passes through.
	check := tar.NewReader(io.TeeReader(plain, w))
	for {
		_, err := check.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s is not a tar file: %w", r.Tar, err)
		}
	}
	_, err = io.Copy(w, plain)
	return err
}

// document is a small file of an image archive.
type document struct {
	name string
	data []byte
}

// documents are all but the layer: the OCI layout, and manifest.json beside it. id is the manifest's digest.
func documents(r Recipe, layer ocispec.Descriptor, diffID digest.Digest) (files []document, id digest.Digest, err error) {
	created := r.Created.UTC()
	cfg := dockerspec.DockerOCIImage{Config: r.Config}
	cfg.Created = &created
	cfg.Architecture = r.Architecture
	cfg.OS = "linux"
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	cfg.History = []ocispec.History{{Created: &created, CreatedBy: "cleat-registry mkimage"}}
	configBlob, config, err := jsonBlob(ocispec.MediaTypeImageConfig, cfg)
	if err != nil {
		return nil, "", err
	}
	manifestBlob, manifest, err := jsonBlob(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{layer},
	})
	if err != nil {
		return nil, "", err
	}
	named := manifest
	named.Annotations = map[string]string{annotationImageName: r.Name, ocispec.AnnotationRefName: tagOf(r.Name)}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{named},
	})
	if err != nil {
		return nil, "", err
	}
	docker, err := json.Marshal([]dockerManifest{{
		Config:   blobPath(config.Digest),
		RepoTags: []string{r.Short},
		Layers:   []string{blobPath(layer.Digest)},
	}})
	if err != nil {
		return nil, "", err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, "", err
	}
	return []document{
		{ocispec.ImageLayoutFile, layout},
		{ocispec.ImageIndexFile, index},
		{"manifest.json", docker},
		{blobPath(config.Digest), configBlob},
		{blobPath(manifest.Digest), manifestBlob},
	}, manifest.Digest, nil
}

// writeArchive writes the image, and gives its manifest's digest.
func writeArchive(w io.Writer, r Recipe, layerFile *os.File, layer ocispec.Descriptor, diffID digest.Digest) (digest.Digest, error) {
	files, id, err := documents(r, layer, diffID)
	if err != nil {
		return "", err
	}
	created := r.Created.UTC()
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: created}); err != nil {
			return "", err
		}
		if _, err := tw.Write(f.data); err != nil {
			return "", err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: blobPath(layer.Digest), Mode: 0o644, Size: layer.Size, ModTime: created}); err != nil {
		return "", err
	}
	if _, err := layerFile.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if _, err := io.Copy(tw, layerFile); err != nil {
		return "", err
	}
	return id, tw.Close()
}

// dockerManifest is an entry of docker save's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func jsonBlob(mediaType string, v any) ([]byte, ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	return b, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}, err
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}
