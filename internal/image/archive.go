package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pack "github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/failure"
)

// An archive's manifest.json may have a million references to one layer, or names for one
// image, in a few megabytes. The kernel stacks 500 layers.
const (
	maxLayers = 1000
	maxNames  = 10_000
	// maxFiles bounds the blobs of an archive and the links among them, of which a compressed one has millions in a few
	// megabytes; maxHops a chain of these.
	maxFiles = 100_000
	maxHops  = 40
)

// archive is an image archive while it is read: once, from front to back, every blob
// going into the content store as it passes by.
type archive struct {
	s *Service
	// lease names this load; the refs of its ingests begin with it.
	lease string
	refs  []string
	// files are the blobs by the archive's path; links the links among them.
	files map[string]blobFile
	links map[string]string
	// The files that describe the rest; nil if they are not there.
	layout, index, manifest []byte
	legacy                  bool // "repositories": docker save before 1.10
}

type blobFile struct {
	ocispec.Descriptor
	head []byte // the first bytes, by which a layer's compression is told
}

// decompress recognises how an archive is compressed by its first bytes.
func decompress(r io.Reader) (io.Reader, func(), error) {
	plain, done, err := pack.Decompress(r)
	switch {
	case errors.Is(err, pack.ErrEmpty):
		return nil, nil, failure.Invalid("the image archive is empty")
	case err != nil:
		return nil, nil, damaged(err)
	}
	return plain, done, nil
}

func damaged(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return failure.Invalid("the image archive is damaged or not a tar archive: %w", err)
}

// read takes the whole archive in.
func (a *archive) read(ctx context.Context, r io.Reader) error {
	plain, done, err := decompress(r)
	if err != nil {
		return err
	}
	defer done()
	tr := tar.NewReader(plain)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.entry(ctx, h, tr); err != nil {
			return err
		}
	}
	// What follows the tar archive's end is padding; it must be readable all the same,
	// since a compressed archive has its checksum there.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return damaged(err)
	}
	return a.followLinks()
}

func (a *archive) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	if err := pack.CheckName(h); err != nil {
		return err
	}
	if len(a.files)+len(a.links) >= maxFiles {
		return failure.Invalid("the image archive has more than %d files: save fewer images into one", maxFiles)
	}
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	switch top, _, _ := strings.Cut(name, "/"); top {
	case ".dockerenv", "bin", "etc", "proc", "usr":
		return failure.Invalid("this is the archive of a filesystem, as export makes it, and not of an image: it has %s; make an image of it by import", top)
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return a.file(ctx, name, h.Size, r)
	case tar.TypeSymlink:
		// Older docker save writes a layer that occurs twice as a link to the first.
		target, err := inside(path.Join(path.Dir(name), h.Linkname))
		if err != nil || path.IsAbs(h.Linkname) {
			return failure.Invalid("the image archive has a link %s to %s, outside of the archive", h.Name, h.Linkname)
		}
		a.links[name] = target
	case tar.TypeLink:
		target, err := inside(h.Linkname)
		if err != nil {
			return failure.Invalid("the image archive has a link %s to %s, outside of the archive", h.Name, h.Linkname)
		}
		a.links[name] = target
	}
	return nil
}

// inside cleans a path of the archive, and refuses one that leads out of it.
func inside(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0) {
		return "", failure.Invalid("the image archive has a file %q, outside of the archive", name)
	}
	return clean, nil
}

func (a *archive) file(ctx context.Context, name string, size int64, r io.Reader) (err error) {
	switch name {
	case ocispec.ImageLayoutFile:
		a.layout, err = whole(name, size, r)
		return err
	case ocispec.ImageIndexFile:
		a.index, err = whole(name, size, r)
		return err
	case "manifest.json":
		a.manifest, err = whole(name, size, r)
		return err
	case "repositories":
		a.legacy = true
		return nil
	}
	if size == 0 {
		return nil // no blob that counts is empty, and the store takes none
	}
	if free, err := a.s.store.Free(); err == nil && size > free {
		return failure.New(errdefs.ErrResourceExhausted, "no space left on device: the image archive's %s has %d bytes, and under %s %d are free", name, size, a.s.store.Root(), free)
	}
	return a.blob(ctx, name, size, r)
}

// whole reads a small file.
func whole(name string, size int64, r io.Reader) ([]byte, error) {
	if size > maxJSON {
		return nil, failure.Invalid("the image archive's %s of %d bytes is too large", name, size)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, damaged(err)
	}
	return b, nil
}

// blob stores a file. One whose path says its digest must have it.
func (a *archive) blob(ctx context.Context, name string, size int64, r io.Reader) error {
	f := blobFile{Descriptor: ocispec.Descriptor{Size: size}, head: make([]byte, min(size, 6))}
	if _, err := io.ReadFull(r, f.head); err != nil {
		return damaged(err)
	}
	ref := fmt.Sprintf("load-%s-%d", a.lease, len(a.refs))
	a.refs = append(a.refs, ref)
	sum := digest.Canonical.Digester()
	body := &faultReader{r: io.TeeReader(io.MultiReader(bytes.NewReader(f.head), r), sum.Hash())}
	err := content.WriteBlob(ctx, a.s.store.Content, ref, body, ocispec.Descriptor{Size: size})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case body.err != nil:
		return damaged(body.err)
	default:
		return a.s.explainWrite(err, ocispec.Descriptor{Digest: digest.Digest(name), Size: size})
	}
	f.Digest = sum.Digest()
	if declared, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && declared != f.Digest.Encoded() {
		return failure.Invalid("the image archive is damaged: %s has the digest %s", name, f.Digest)
	}
	a.files[name] = f
	return nil
}

// faultReader remembers that it was the reading that failed, and not the writing.
type faultReader struct {
	r   io.Reader
	err error
}

func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// abort removes what a failed load left half-written.
func (a *archive) abort(ctx context.Context) error {
	var errs []error
	for _, ref := range a.refs {
		if err := a.s.store.Content.Abort(context.WithoutCancel(ctx), ref); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (a *archive) followLinks() error {
	for name := range a.links {
		target := name
		for hops := 0; a.links[target] != ""; hops++ {
			if hops > maxHops {
				return failure.Invalid("the image archive's link %s leads in a circle, or over more than %d others", name, maxHops)
			}
			target = a.links[target]
		}
		if f, ok := a.files[target]; ok {
			a.files[name] = f
		}
	}
	return nil
}

// archived is one image of an archive.
type archived struct {
	target ocispec.Descriptor
	names  []string // full names
}

// images lists what is in the archive, once it is read.
func (a *archive) images(ctx context.Context) ([]archived, error) {
	switch {
	case a.index != nil && a.layout != nil:
		return a.fromLayout()
	case a.manifest != nil:
		return a.fromSave(ctx)
	case a.legacy:
		return nil, failure.Invalid("the image archive has the format of docker save before 1.10, which is not supported: save the image again with a current engine")
	}
	for name := range a.files {
		if dir, file := path.Split(name); dir != "" && (file == "manifest.json" || file == ocispec.ImageLayoutFile) {
			return nil, failure.Invalid("the image archive has %s in a directory of its own: make the archive of what is in there (tar -C %s -cf FILE .)", name, path.Clean(dir))
		}
	}
	return nil, failure.Invalid("this is not an image archive: it has neither docker save's manifest.json nor an OCI layout (oci-layout and index.json)")
}

// fromLayout reads an OCI layout. Names are those that containerd and Docker write; the
// specification's own annotation counts if it holds a full name and not a mere tag.
func (a *archive) fromLayout() ([]archived, error) {
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(a.layout, &layout); err != nil {
		return nil, damaged(err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return nil, failure.Invalid("the image archive is an OCI layout of the unknown version %q", layout.Version)
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.index, &index); err != nil {
		return nil, damaged(err)
	}
	if len(index.Manifests) > maxNames {
		return nil, failure.Invalid("the image archive's index has %d images and names, more than %d", len(index.Manifests), maxNames)
	}
	var list []archived
	at := map[digest.Digest]int{}
	for _, d := range index.Manifests {
		if !images.IsIndexType(d.MediaType) && !images.IsManifestType(d.MediaType) {
			return nil, failure.Invalid("the image archive's index names %s of the type %q, which is not an image", d.Digest, d.MediaType)
		}
		i, known := at[d.Digest]
		if !known {
			i = len(list)
			at[d.Digest] = i
			list = append(list, archived{target: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}})
		}
		name, err := layoutName(d.Annotations)
		if err != nil {
			return nil, err
		}
		if name != "" {
			list[i].names = append(list[i].names, name)
		}
	}
	return list, nil
}

func layoutName(annotations map[string]string) (string, error) {
	name := annotations[images.AnnotationImageName]
	if name == "" {
		name = annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:") {
			return "", nil
		}
	}
	return loadedName(name)
}

// fromSave reads docker save's own format, and makes the manifests that it lacks: the
// very ones that Docker makes of it, so that the image has the same id there.
func (a *archive) fromSave(ctx context.Context) ([]archived, error) {
	var entries []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(a.manifest, &entries); err != nil {
		var typed *json.UnmarshalTypeError
		if errors.As(err, &typed) && typed.Field == "" && typed.Value == "object" {
			return nil, failure.Invalid("the archive's manifest.json is not docker save's, but an image's own, as skopeo and buildah write it in the form dir: " +
				"have the image written as docker-archive or oci-archive")
		}
		return nil, damaged(err)
	}
	var list []archived
	named := 0
	for _, e := range entries {
		if named += max(1, len(e.RepoTags)); len(e.Layers) > maxLayers || named > maxNames {
			return nil, failure.Invalid("the image archive's manifest.json has images of more than %d layers, or more than %d names or images", maxLayers, maxNames)
		}
		target, err := a.makeManifest(ctx, e.Config, e.Layers)
		if err != nil {
			return nil, err
		}
		img := archived{target: target}
		for _, tag := range e.RepoTags {
			name, err := loadedName(tag)
			if err != nil {
				return nil, err
			}
			img.names = append(img.names, name)
		}
		list = append(list, img)
	}
	return list, nil
}

func (a *archive) makeManifest(ctx context.Context, config string, layers []string) (ocispec.Descriptor, error) {
	cfg, err := a.lookup(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	cfg.MediaType = images.MediaTypeDockerSchema2Config
	m := struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		Config        ocispec.Descriptor   `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
	}{2, images.MediaTypeDockerSchema2Manifest, cfg.Descriptor, []ocispec.Descriptor{}}
	for _, name := range layers {
		l, err := a.lookup(name)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		switch pack.Compression(l.head) {
		case "":
			l.MediaType = images.MediaTypeDockerSchema2Layer
		case "zstd":
			l.MediaType = ocispec.MediaTypeImageLayerZstd
		case "gzip":
			l.MediaType = images.MediaTypeDockerSchema2LayerGzip
		default:
			return ocispec.Descriptor{}, failure.Invalid("the image archive's layer %s is compressed with %s, which is not supported", name, pack.Compression(l.head))
		}
		m.Layers = append(m.Layers, l.Descriptor)
	}
	blob, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	ref := fmt.Sprintf("load-%s-%d", a.lease, len(a.refs))
	a.refs = append(a.refs, ref)
	return desc, content.WriteBlob(ctx, a.s.store.Content, ref, bytes.NewReader(blob), desc)
}

func (a *archive) lookup(name string) (blobFile, error) {
	clean, err := inside(name)
	if err != nil {
		return blobFile{}, err
	}
	f, ok := a.files[clean]
	if !ok {
		return blobFile{}, failure.Invalid("the image archive is incomplete: its manifest.json names %s, which is not there", name)
	}
	return f, nil
}

// noSpace reports whether an error is a full disk.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
