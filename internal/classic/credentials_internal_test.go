package classic

import (
	"context"
	"testing"

	"github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/types/registry"
)

// Clients send the names under which they keep credentials, which are URLs where a login named one.
func TestCredentialsKeptUnderURLs(t *testing.T) {
	c := credentials{auths: map[string]registry.AuthConfig{
		"https://gcr.test": {Username: "a"}, "http://old.test:5000/v1/": {Username: "b"}, "plain.test/team": {Username: "c"},
		"exact.test": {Username: "d"}, "https://exact.test": {Username: "e"}, hub: {Username: "f"},
	}}
	for host, want := range map[string]string{
		"gcr.test": "a", "old.test:5000": "b", "plain.test": "c", "exact.test": "d", "registry-1.docker.io": "f", "old.test": "", "other.test": "", "": "",
	} {
		got, err := c.Credentials(context.Background(), &auth.CredentialsRequest{Host: host})
		if err != nil || got.Username != want {
			t.Errorf("%q: %v, %v; want %q", host, got, err, want)
		}
	}
}
