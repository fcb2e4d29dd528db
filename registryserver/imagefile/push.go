package imagefile

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Destination says where and as whom to push.
type Destination struct {
	// Ref is the name to push to, with the registry's address in it.
	Ref string
	// Username and Password, if the registry wants them.
	Username, Password string
	// Insecure allows plain HTTP and certificates that cannot be verified; always so
	// for loopback addresses.
	Insecure bool
}

// Push sends one image to a registry. What is there already is not sent again.
func (a *Archive) Push(ctx context.Context, image Entry, to Destination) error {
	named, err := reference.ParseNormalizedNamed(to.Ref)
	if err != nil {
		return fmt.Errorf("%q: %w", to.Ref, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return fmt.Errorf("%q: push to a tag, not to a digest", to.Ref)
	}
	tagged := reference.TagNameOnly(named)
	resolver := docker.NewResolver(docker.ResolverOptions{
		Headers: http.Header{"User-Agent": []string{"cleat-registry"}},
		Hosts:   func(host string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{to.host(host)}, nil },
	})
	pusher, err := resolver.Pusher(ctx, tagged.String()+"@"+image.Target.Digest.String())
	if err != nil {
		return err
	}
	p := &push{archive: a, pusher: pusher, sent: map[digest.Digest]bool{}}
	if err := p.send(ctx, image.Target); err != nil {
		return fmt.Errorf("push %s: %w", reference.FamiliarString(tagged), err)
	}
	return nil
}

func (to Destination) host(name string) docker.RegistryHost {
	transport := docker.DefaultHTTPTransport(nil)
	client := &http.Client{Transport: transport}
	if to.Insecure || docker.IsLocalhost(name) {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		client.Transport = docker.NewHTTPFallback(transport)
	}
	address, _ := docker.DefaultHost(name)
	return docker.RegistryHost{
		Client:       client,
		Host:         address,
		Scheme:       "https",
		Path:         "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
		Authorizer: docker.NewDockerAuthorizer(
			docker.WithAuthClient(client),
			docker.WithAuthCreds(func(string) (string, string, error) { return to.Username, to.Password, nil })),
	}
}

type push struct {
	archive *Archive
	pusher  remotes.Pusher
	sent    map[digest.Digest]bool
}

// send sends what a descriptor refers to, and then what it names.
func (p *push) send(ctx context.Context, d ocispec.Descriptor) error {
	if p.sent[d.Digest] {
		return nil
	}
	p.sent[d.Digest] = true
	blob, ok := p.archive.blob(d)
	if !ok {
		return fmt.Errorf("the archive lacks %q, a %s", d.Digest, d.MediaType)
	}
	if images.IsIndexType(d.MediaType) || images.IsManifestType(d.MediaType) {
		if err := p.sendChildren(ctx, d, blob); err != nil {
			return err
		}
	}
	w, err := p.pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err = content.Copy(ctx, w, blob, d.Size, d.Digest)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s in the archive is shorter than declared: %w", d.Digest, err)
	}
	return err
}

func (p *push) sendChildren(ctx context.Context, d ocispec.Descriptor, blob io.Reader) error {
	if d.Size > maxJSON {
		return fmt.Errorf("%s of %d bytes is too large for a %s", d.Digest, d.Size, d.MediaType)
	}
	var refs struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
	}
	if err := json.NewDecoder(blob).Decode(&refs); err != nil {
		return fmt.Errorf("%s is not a valid %s: %w", d.Digest, d.MediaType, err)
	}
	children := append(refs.Manifests, refs.Layers...)
	if refs.Config != nil {
		children = append(children, *refs.Config)
	}
	for _, c := range children {
		if err := p.send(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
