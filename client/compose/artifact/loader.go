package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	scheme     = "oci://"
	envType    = "application/vnd.docker.compose.envfile"
	envName    = "com.docker.compose.envfile"
	extendsKey = "com.docker.compose.extends"
	largest    = 16 << 20 // of all files of a project
)

// Loader reads projects from registries: it is compose-go's loader of `oci://REPOSITORY[:TAG]`. What it has read lies
// in the user's cache, by its digest. It is used by one goroutine.
type Loader struct {
	// Config gives the user's config.json, when it is needed.
	Config func() *configfile.ConfigFile
	known  map[string]string
}

// Accept says whether a path is one of a registry.
func (l *Loader) Accept(path string) bool { return strings.HasPrefix(path, scheme) }

// Dir is the directory of a project that was loaded.
func (l *Loader) Dir(path string) string { return l.known[path] }

// Load gives the path of a local copy of a project's file, which is fetched once.
func (l *Loader) Load(ctx context.Context, path string) (string, error) {
	if dir, ok := l.known[path]; ok {
		return filepath.Join(dir, "compose.yaml"), nil
	}
	ref, err := name.ParseReference(strings.TrimPrefix(path, scheme))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	dir, err := l.fetch(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("failed to pull OCI resource %q: %w", ref, err)
	}
	if l.known == nil {
		l.known = map[string]string{}
	}
	l.known[path] = dir
	return filepath.Join(dir, "compose.yaml"), nil
}

func (l *Loader) fetch(ctx context.Context, ref name.Reference) (string, error) {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain{l.Config()}), remote.WithUserAgent("cleat-compose")}
	found, err := remote.Get(ref, options...)
	if err != nil {
		return "", err
	}
	if found.MediaType.IsIndex() {
		// An application with its images: the project is one of its manifests.
		var index ocispec.Index
		if err := json.Unmarshal(found.Manifest, &index); err != nil {
			return "", err
		}
		for _, m := range index.Manifests {
			if m.ArtifactType == projectType {
				return l.fetch(ctx, ref.Context().Digest(m.Digest.String()))
			}
		}
		return "", errors.New("the index refers to no compose project")
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(found.Manifest, &m); err != nil {
		return "", err
	}
	if m.ArtifactType != projectType && (m.ArtifactType != "" || m.Config.MediaType != oldConfig) {
		return "", fmt.Errorf("it is not a compose project OCI artifact, but %q", m.ArtifactType)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "cleat-compose", found.Digest.Hex)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	files, err := filesIn(m, func(d ocispec.Descriptor) ([]byte, error) { return read(ref, d, options) })
	if err != nil {
		return "", err
	}
	return dir, store(dir, files)
}

// read gets one layer, whose digest is checked.
func read(ref name.Reference, d ocispec.Descriptor, options []remote.Option) ([]byte, error) {
	layer, err := remote.Layer(ref.Context().Digest(d.Digest.String()), options...)
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed() // as it lies there
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readWhole(r, d)
}

// readWhole reads what is d's: its end is read, too, for only there the digest is compared, and nothing beyond.
func readWhole(r io.Reader, d ocispec.Descriptor) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err == nil && int64(len(content)) != d.Size {
		err = fmt.Errorf("the layer %s is not of the %d bytes that its manifest says", d.Digest, d.Size)
	}
	return content, err
}

// filesIn puts the layers together: the project's own files are the documents of one, others lie beside it.
func filesIn(m ocispec.Manifest, get func(ocispec.Descriptor) ([]byte, error)) (map[string][]byte, error) {
	files := map[string][]byte{}
	var own [][]byte
	left := int64(largest)
	for _, d := range m.Layers {
		beside := ""
		switch {
		case d.MediaType == envType:
			beside = d.Annotations[envName]
		case d.MediaType != fileType:
			continue
		case d.Annotations[extendsKey] != "":
			beside = d.Annotations[fileName]
		}
		if d.Size < 0 || d.Size > left {
			return nil, fmt.Errorf("invalid OCI artifact: its files are more than %d MiB", largest>>20)
		}
		left -= d.Size
		content, err := get(d)
		if err != nil {
			return nil, err
		}
		switch {
		case d.MediaType == fileType && d.Annotations[extendsKey] == "":
			own = append(own, content)
		case beside == "" || beside == "." || beside == ".." || strings.ContainsAny(beside, "/\\\x00") || beside == "compose.yaml":
			return nil, fmt.Errorf("invalid OCI artifact: %q is no name of a file", beside)
		default:
			files[beside] = content
		}
	}
	if len(own) == 0 {
		return nil, errors.New("invalid OCI artifact: it has no Compose file")
	}
	files["compose.yaml"] = bytes.Join(own, []byte("\n---\n"))
	return files, nil
}

// store makes a directory with files, or nothing.
func store(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made) // gone by then, unless something failed
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(made, file), content, 0o600); err != nil {
			return err
		}
	}
	err = os.Rename(made, dir)
	if _, there := os.Stat(dir); there == nil {
		return nil // another one was faster
	}
	return err
}
