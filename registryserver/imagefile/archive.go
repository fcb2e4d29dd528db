package imagefile

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxJSON is how large a JSON file of an archive may be.
const maxJSON = 16 << 20

// Archive is an image archive opened for reading.
type Archive struct {
	file *os.File
	temp string // to be removed with it, if the archive was compressed
	at   map[string]section
	made map[digest.Digest][]byte // manifests that docker save's format leaves out
	all  []Entry
}

type section struct{ offset, size int64 }

// Entry is one image of an archive.
type Entry struct {
	// Name is the name given in the archive, "" for none.
	Name string
	// Target is the image's manifest or index.
	Target ocispec.Descriptor
}

// OpenArchive reads the table of contents of an archive. A compressed one is unpacked
// beside itself or, if that is not possible, in the directory for temporary files,
// until Close.
func OpenArchive(name string) (_ *Archive, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &Archive{file: f, at: map[string]section{}, made: map[digest.Digest][]byte{}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := a.unpackCompressed(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := a.scan(); err != nil {
		return nil, fmt.Errorf("%s is not an image archive: %w", name, err)
	}
	if err := a.readImages(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// Images lists the images in the archive.
func (a *Archive) Images() []Entry { return a.all }

// Close frees what the archive holds.
func (a *Archive) Close() error {
	err := a.file.Close()
	if a.temp != "" {
		err = errors.Join(err, os.Remove(a.temp))
	}
	return err
}

func (a *Archive) unpackCompressed() error {
	head := make([]byte, 6)
	n, err := io.ReadFull(a.file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if !compressed(head[:n]) {
		return nil
	}
	plain, err := Decompress(a.file)
	if err != nil {
		return err
	}
	defer plain.Close()
	temp, err := os.CreateTemp(filepath.Dir(a.file.Name()), ".image-*")
	if err != nil {
		if temp, err = os.CreateTemp("", "image-*"); err != nil {
			return err
		}
	}
	packed := a.file
	defer packed.Close()
	a.file, a.temp = temp, temp.Name()
	if _, err := io.Copy(temp, plain); err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	_, err = temp.Seek(0, io.SeekStart)
	return err
}

// scan notes where each file lies. tar reads headers only, and seeks over the rest.
func (a *Archive) scan() error {
	tr := tar.NewReader(a.file)
	links := map[string]string{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := a.file.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.at[name] = section{offset, h.Size}
		case tar.TypeSymlink: // older docker save: one layer under two names
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		}
	}
	for name, target := range links {
		if s, ok := a.at[target]; ok {
			a.at[name] = s
		}
	}
	return nil
}

func (a *Archive) readImages() error {
	if _, ok := a.at[ocispec.ImageIndexFile]; ok {
		var index ocispec.Index
		if err := a.readJSON(ocispec.ImageIndexFile, &index); err != nil {
			return err
		}
		for _, d := range index.Manifests {
			if err := d.Digest.Validate(); err != nil {
				return fmt.Errorf("%s names an image by %q: %w", ocispec.ImageIndexFile, d.Digest, err)
			}
			name := d.Annotations[annotationImageName]
			a.all = append(a.all, Entry{Name: name, Target: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}})
		}
		return nil
	}
	if _, ok := a.at["manifest.json"]; !ok {
		return errors.New("the archive has neither an index.json nor a manifest.json")
	}
	var list []dockerManifest
	if err := a.readJSON("manifest.json", &list); err != nil {
		return err
	}
	for _, m := range list {
		target, err := a.makeManifest(m)
		if err != nil {
			return err
		}
		for _, name := range m.RepoTags {
			a.all = append(a.all, Entry{Name: name, Target: target})
		}
		if len(m.RepoTags) == 0 {
			a.all = append(a.all, Entry{Target: target})
		}
	}
	return nil
}

// makeManifest makes the manifest of an image that docker save described in its own
// way. Layers are named by path there, so their digests must be computed.
func (a *Archive) makeManifest(m dockerManifest) (ocispec.Descriptor, error) {
	cfg, err := a.describe(m.Config, images.MediaTypeDockerSchema2Config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: images.MediaTypeDockerSchema2Manifest,
		Config:    cfg,
	}
	for _, l := range m.Layers {
		layer, err := a.describe(l, images.MediaTypeDockerSchema2Layer)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		head := make([]byte, 6)
		n, _ := a.file.ReadAt(head, a.at[path.Clean(l)].offset)
		if compressed(head[:n]) {
			layer.MediaType = images.MediaTypeDockerSchema2LayerGzip
		}
		manifest.Layers = append(manifest.Layers, layer)
	}
	blob, desc, err := jsonBlob(manifest.MediaType, manifest)
	a.made[desc.Digest] = blob
	return desc, err
}

// describe computes the digest of a file, and lets it be found by it.
func (a *Archive) describe(name, mediaType string) (ocispec.Descriptor, error) {
	s, ok := a.at[path.Clean(name)]
	if !ok {
		return ocispec.Descriptor{}, fmt.Errorf("the archive lacks %s", name)
	}
	d, err := digest.Canonical.FromReader(io.NewSectionReader(a.file, s.offset, s.size))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	a.at[blobPath(d)] = s
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: s.size}, nil
}

func (a *Archive) readJSON(name string, v any) error {
	s := a.at[name]
	if s.size > maxJSON {
		return fmt.Errorf("%s of %d bytes is too large", name, s.size)
	}
	if err := json.NewDecoder(io.NewSectionReader(a.file, s.offset, s.size)).Decode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// blob opens what a descriptor names; has says whether it is there.
func (a *Archive) blob(d ocispec.Descriptor) (r *io.SectionReader, has bool) {
	if b, ok := a.made[d.Digest]; ok {
		return io.NewSectionReader(bytesAt(b), 0, int64(len(b))), true
	}
	if d.Digest.Validate() != nil { // which has no path
		return nil, false
	}
	s, ok := a.at[blobPath(d.Digest)]
	if !ok {
		return nil, false
	}
	return io.NewSectionReader(a.file, s.offset, s.size), true
}

// bytesAt reads a slice at an offset.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
