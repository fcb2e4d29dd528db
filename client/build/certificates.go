package build

import (
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/cleatlabs/cleat/registrytrust"
)

// trusting reaches each host with the certificates kept for it below dir; configure is given a client for it. A host is
// asked for its certificates once.
func trusting(dir string, configure func(*http.Client) docker.RegistryHosts) docker.RegistryHosts {
	var mu sync.Mutex
	known := map[string][]docker.RegistryHost{}
	return func(host string) ([]docker.RegistryHost, error) {
		mu.Lock()
		defer mu.Unlock()
		if hosts, ok := known[host]; ok {
			return hosts, nil
		}
		cfg, err := registrytrust.TLS(dir, host)
		if err != nil {
			return nil, err
		}
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = cfg
		hosts, err := configure(&http.Client{Transport: t})(host)
		if err == nil {
			known[host] = hosts
		}
		return hosts, err
	}
}
