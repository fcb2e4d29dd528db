package registryclient_test

import (
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/cleatlabs/cleat/internal/registryclient"
)

func TestHostsOfADomain(t *testing.T) {
	c, err := registryclient.New(registryclient.Config{Mirrors: []string{"http://m.example:5000"}, CertsDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		scheme, host string
		push         bool
	}
	for domain, want := range map[string][]place{
		"docker.io":      {{"http", "m.example:5000", false}, {"https", "registry-1.docker.io", true}},
		"r.example:5001": {{"https", "r.example:5001", true}},
	} {
		hosts, err := c.Hosts(domain)
		if err != nil || len(hosts) != len(want) {
			t.Errorf("%s: %v, %v", domain, hosts, err)
			continue
		}
		for i, h := range hosts {
			got := place{h.Scheme, h.Host, h.Capabilities.Has(docker.HostCapabilityPush)}
			if got != want[i] || !h.Capabilities.Has(docker.HostCapabilityPull|docker.HostCapabilityResolve) || h.Client == nil || h.Authorizer != nil {
				t.Errorf("%s: %+v, want %+v", domain, h, want[i])
			}
		}
	}
	if _, err := c.Hosts("../etc"); err == nil {
		t.Error("a domain that leads out of the certificates' directory was accepted")
	}
}
