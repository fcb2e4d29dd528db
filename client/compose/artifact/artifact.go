// Package artifact puts the files of a Compose project into a registry, in the form in which docker compose reads them
// from there (`oci://REPOSITORY`): a manifest of its own type with a layer for each file.
//
// It promises: what is pushed is what was given, byte for byte; nothing is pushed under the name before all its parts
// are there.
package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/client/compose/label"
)

// The media types of docker compose.
const (
	projectType  = "application/vnd.docker.compose.project"
	fileType     = "application/vnd.docker.compose.file+yaml"
	oldConfig    = "application/vnd.docker.compose.config.empty.v1+json"
	fileName     = "com.docker.compose.file"
	emptyConfig  = "{}"
	tryNewFirst  = ""
	withTypes    = "1.1" // the version of OCI's specification that gives artifacts a type
	withoutTypes = "1.0"
)

// File is one file of a project.
type File struct {
	Name        string // without directory
	Content     []byte
	Extended    bool // it is none of the project's own, but services of those extend its services
	Environment bool // it is an env_file
}

// Push writes files under a reference, REPOSITORY[:TAG], with the user's credentials. Version is that of OCI's
// specification, "1.0" or "1.1"; "" is the newest that the registry takes. It returns the manifest's digest.
func Push(ctx context.Context, reference string, files []File, version string, cfg *configfile.ConfigFile) (string, error) {
	ref, err := name.NewTag(reference)
	if err != nil {
		return "", fmt.Errorf("%q is no REPOSITORY[:TAG]: %w", reference, err)
	}
	switch version {
	case tryNewFirst:
		pushed, err := push(ctx, ref, files, withTypes, cfg)
		if refused(err) {
			return push(ctx, ref, files, withoutTypes, cfg)
		}
		return pushed, err
	case withTypes, withoutTypes:
		return push(ctx, ref, files, version, cfg)
	}
	return "", fmt.Errorf("unsupported OCI version: %s: choose %s or %s", version, withoutTypes, withTypes)
}

// refused says that a registry does not know what it was given, for another reason than who gave it.
func refused(err error) bool {
	var t *transport.Error
	if !errors.As(err, &t) {
		return false
	}
	switch t.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return false
	}
	return t.StatusCode >= 400 && t.StatusCode < 500
}

func push(ctx context.Context, ref name.Tag, files []File, version string, cfg *configfile.ConfigFile) (string, error) {
	core := &image{layers: map[v1.Hash][]byte{}}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: projectType,
		Config:      ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromString(emptyConfig), Size: int64(len(emptyConfig)), Data: []byte(emptyConfig)},
		Annotations: map[string]string{ocispec.AnnotationCreated: time.Now().Format(time.RFC3339)},
	}
	if version == withoutTypes {
		m.ArtifactType, m.Config.MediaType = "", oldConfig
	}
	for _, f := range files {
		d := digest.FromBytes(f.Content)
		core.layers[v1.Hash{Algorithm: string(d.Algorithm()), Hex: d.Encoded()}] = f.Content
		layer := ocispec.Descriptor{
			MediaType: fileType, Digest: d, Size: int64(len(f.Content)), Data: f.Content,
			Annotations: map[string]string{label.Version: label.Compatible, fileName: f.Name},
		}
		switch {
		case f.Environment:
			layer.MediaType, layer.Annotations = envType, map[string]string{label.Version: label.Compatible, envName: f.Name}
		case f.Extended:
			layer.Annotations[extendsKey] = "true"
		}
		m.Layers = append(m.Layers, layer)
	}
	var err error
	if core.manifest, err = json.Marshal(m); err != nil {
		return "", err
	}
	img, err := partial.CompressedToImage(core)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain{cfg}), remote.WithUserAgent("cleat-compose")); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return digest.FromBytes(core.manifest).String(), nil
}

// image is the artifact in the form that the library pushes.
type image struct {
	manifest []byte
	layers   map[v1.Hash][]byte
}

func (i *image) RawManifest() ([]byte, error)        { return i.manifest, nil }
func (i *image) RawConfigFile() ([]byte, error)      { return []byte(emptyConfig), nil }
func (i *image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (i *image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	content, ok := i.layers[h]
	if !ok {
		return nil, fmt.Errorf("the artifact has no layer %s", h)
	}
	return static.NewLayer(content, fileType), nil
}

// keychain gives the credentials of the user's config.json.
type keychain struct{ cfg *configfile.ConfigFile }

// Resolve implements authn.Keychain.
func (k keychain) Resolve(of authn.Resource) (authn.Authenticator, error) {
	host := of.RegistryStr()
	if host == name.DefaultRegistry {
		host = "https://index.docker.io/v1/"
	}
	found, err := k.cfg.GetAuthConfig(host)
	if err != nil {
		return nil, err
	}
	if found.Username == "" && found.IdentityToken == "" && found.RegistryToken == "" {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}), nil
}
