package image

import (
	"archive/tar"
	"encoding/json"
	"io"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestList is docker save's manifest.json, by which programs read an archive that do not know the OCI layout. It has
// each manifest once, with the names of all images that it is of. Containerd's own has the names of one where two indexes
// share a manifest, as two builds of the same do whose attestations differ.
type manifestList struct {
	entries []*listedManifest
	known   map[digest.Digest]*listedManifest
}

// listedManifest is an entry as Docker writes it.
type listedManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// add has the list describe an image by one of its manifests. name is a full one, or "".
func (l *manifestList) add(v *variant, name string) {
	entry := l.known[v.desc.Digest]
	if entry == nil {
		entry = &listedManifest{Config: blobPath(v.manifest.Config.Digest)}
		for _, layer := range v.manifest.Layers {
			entry.Layers = append(entry.Layers, blobPath(layer.Digest))
		}
		if l.known == nil {
			l.known = map[digest.Digest]*listedManifest{}
		}
		l.known[v.desc.Digest] = entry
		l.entries = append(l.entries, entry)
	}
	if name != "" {
		entry.RepoTags = append(entry.RepoTags, familiar(name))
	}
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// write ends an archive with the list.
func (l *manifestList) write(w io.Writer) error {
	text, err := json.Marshal(l.entries)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := archive.Write(text); err != nil {
		return err
	}
	return archive.Close()
}

// endMark is how many bytes say that a tar archive is at its end.
const endMark = 2 * 512

// openEnd passes on what is written but for the archive's end, for more to follow.
type openEnd struct {
	w    io.Writer
	held []byte // what may be the end
}

func (o *openEnd) Write(p []byte) (int, error) {
	if ready := min(len(o.held), len(o.held)+len(p)-endMark); ready > 0 {
		if _, err := o.w.Write(o.held[:ready]); err != nil {
			return 0, err
		}
		o.held = append(o.held[:0], o.held[ready:]...)
	}
	ready := max(0, len(p)-endMark)
	if ready > 0 { // nothing is held any more
		if _, err := o.w.Write(p[:ready]); err != nil {
			return 0, err
		}
	}
	o.held = append(o.held, p[ready:]...)
	return len(p), nil
}
