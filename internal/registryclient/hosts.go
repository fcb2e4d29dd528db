package registryclient

import (
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Hosts gives the hosts to ask for the images of a registry's domain, in their order:
// mirrors first, which are only read from. It has the form that containerd's resolver
// and BuildKit ask for. The caller adds who authorises its requests, and must do so by
// host: credentials are those of the domain itself.
//
// The clients of the hosts keep connections; a caller who is done with them need not do
// anything, as idle ones close by themselves.
func (c *Client) Hosts(domain string) ([]docker.RegistryHost, error) {
	var hosts []docker.RegistryHost
	if domain == HubDomain {
		for _, m := range c.rules.Load().mirrors {
			h, err := c.host(m, m.Host)
			if err != nil {
				return nil, err
			}
			hosts = append(hosts, h)
		}
	}
	origin := &url.URL{Scheme: "https", Host: domain}
	if domain == HubDomain {
		origin.Host = HubHost
	}
	h, err := c.host(origin, domain)
	if err != nil {
		return nil, err
	}
	h.Capabilities |= docker.HostCapabilityPush
	return append(hosts, h), nil
}

// host is one place to ask, whose certificates are kept under certName.
func (c *Client) host(base *url.URL, certName string) (docker.RegistryHost, error) {
	client, _, err := c.httpClient(certName, c.insecure(base.Host), c.patience.answer)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	return docker.RegistryHost{
		Client: client, Host: base.Host, Scheme: base.Scheme, Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Header:       http.Header{"User-Agent": []string{c.userAgent}},
	}, nil
}
