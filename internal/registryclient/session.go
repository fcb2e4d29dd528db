package registryclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Session is the conversation about one image: its hosts are chosen and its
// credentials bound. It may be used by many goroutines until it is closed.
type Session struct {
	name  reference.Named
	hosts []host
	// first is the host that knew the image; what is fetched is asked of it first.
	first int
	agent string
	// reached says that the registry has answered.
	reached  atomic.Bool
	patience patience
}

// host is one place to ask.
type host struct {
	docker.RegistryHost
	mirror   bool
	insecure bool
	close    func()
}

// url is where the host is asked.
func (h host) url() string { return h.Scheme + "://" + h.Host }

// address is how the host is named to the user: without a scheme if either may do.
func (h host) address() string {
	if h.insecure && h.Scheme == "https" {
		return h.Host
	}
	return h.url()
}

// Open starts a session about name. auth may be nil. With a name that has neither a
// tag nor a digest, only [Session.Tags] makes sense.
func (c *Client) Open(name reference.Named, auth *registry.AuthConfig) (_ *Session, err error) {
	s := &Session{name: name, agent: c.userAgent, patience: c.patience}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	domain := reference.Domain(name)
	if domain == HubDomain {
		for _, m := range c.rules.Load().mirrors {
			if err := s.add(c, m, m.Host, nil, true, c.patience.ask); err != nil {
				return nil, err
			}
		}
	}
	registryHost := domain
	if domain == HubDomain {
		registryHost = HubHost
	}
	origin := &url.URL{Scheme: "https", Host: registryHost}
	if err := s.add(c, origin, domain, auth, false, c.patience.ask); err != nil {
		return nil, err
	}
	return s, nil
}

// add appends a host whose certificates are kept under certName, and whose answers are
// waited for so long.
func (s *Session) add(c *Client, base *url.URL, certName string, auth *registry.AuthConfig, mirror bool, answer time.Duration) error {
	insecure := c.insecure(base.Host)
	client, closeIdle, err := c.httpClient(certName, insecure, answer)
	if err != nil {
		return err
	}
	h := host{
		RegistryHost: docker.RegistryHost{
			Client:       client,
			Host:         base.Host,
			Scheme:       base.Scheme,
			Path:         "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		},
		mirror:   mirror,
		insecure: insecure,
		close:    closeIdle,
	}
	header := http.Header{"User-Agent": []string{c.userAgent}}
	if auth != nil && auth.RegistryToken != "" {
		h.Header = http.Header{"Authorization": []string{"Bearer " + auth.RegistryToken}}
	} else {
		h.Authorizer = newAuthorizer(
			docker.WithAuthClient(client),
			docker.WithAuthHeader(header),
			docker.WithAuthCreds(credentials(base.Host, auth)))
	}
	s.hosts = append(s.hosts, h)
	return nil
}

// credentials answers for the one host that they are for. An identity token is a
// password without a user name.
func credentials(forHost string, auth *registry.AuthConfig) func(string) (string, string, error) {
	return func(host string) (string, string, error) {
		switch {
		case auth == nil || host != forHost:
			return "", "", nil
		case auth.IdentityToken != "":
			return "", auth.IdentityToken, nil
		default:
			return auth.Username, auth.Password, nil
		}
	}
}

// Close ends the session's idle connections.
func (s *Session) Close() {
	for _, h := range s.hosts {
		h.close()
	}
}

func (s *Session) resolver(hosts []host) remotes.Resolver {
	var list []docker.RegistryHost
	for _, h := range hosts {
		list = append(list, h.RegistryHost)
	}
	return docker.NewResolver(docker.ResolverOptions{
		Headers: http.Header{"User-Agent": []string{s.agent}},
		Hosts:   func(string) ([]docker.RegistryHost, error) { return list, nil },
	})
}

// Resolve asks the mirrors, then the registry, for the descriptor of the name. The
// error is that of the registry itself, with what the mirrors said added; give it to
// [Session.Explain].
func (s *Session) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var mirrors []error
	for i, h := range s.hosts {
		_, desc, err := s.resolver(s.hosts[i:i+1]).Resolve(ctx, s.name.String())
		if err == nil {
			s.first = i
			s.reached.Store(true)
			return desc, nil
		}
		if ctx.Err() != nil {
			return ocispec.Descriptor{}, ctx.Err()
		}
		err = &hostError{address: h.address(), err: err}
		if !h.mirror {
			if errdefs.IsNotFound(err) {
				err = s.whyNotFound(ctx, h, err)
			}
			return ocispec.Descriptor{}, &resolveError{err: err, mirrors: mirrors}
		}
		mirrors = append(mirrors, err)
	}
	return ocispec.Descriptor{}, errors.New("no registry to ask") // Open always adds the origin
}

// Fetcher gives the blobs of the image: from the host that resolved the name, and from
// the others should it fail.
func (s *Session) Fetcher(ctx context.Context) (remotes.Fetcher, error) {
	hosts := append([]host{s.hosts[s.first]}, s.hosts[:s.first]...)
	hosts = append(hosts, s.hosts[s.first+1:]...)
	f, err := s.resolver(hosts).Fetcher(ctx, s.name.String())
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		// A descriptor may bring URLs of its own to fetch from. Nothing that a
		// manifest says sends the engine to another address.
		elsewhere := desc.URLs
		desc.URLs = nil
		rc, err := f.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		return &blobReader{ReadCloser: rc, missing: missingBlobError{address: hosts[0].address(), elsewhere: elsewhere}}, nil
	}), nil
}

// blobReader reads a blob. The request is made at the first Read, and again after a
// Seek, which resumes.
type blobReader struct {
	io.ReadCloser
	missing missingBlobError // if it is
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && errdefs.IsNotFound(err) {
		missing := b.missing
		missing.err = err
		err = &missing
	}
	return n, err
}

func (b *blobReader) Seek(offset int64, whence int) (int64, error) {
	s, ok := b.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("the download cannot be resumed")
	}
	return s.Seek(offset, whence)
}

// Address is that of the host that knew the image or, before one was asked, of the
// first one.
func (s *Session) Address() string { return s.hosts[s.first].address() }
